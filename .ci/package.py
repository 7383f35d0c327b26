"""Build sdist and wheel, and use the wheel where no clone is: `make package`.

The environment is empty but for the wheel and the packages that this interpreter has. Opening or
listing anything of the clone is an error there, in every process.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
PACKAGES = [place for place in sys.path if place.endswith("site-packages")]

GUARD = """
import os, sys
CLONE, ALLOWED = {clone!r}, {allowed!r}
def guard(event, words):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(words[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(words[0]))
        if path.startswith(CLONE + os.sep) and not (path + os.sep).startswith(ALLOWED):
            os.write(2, f"{{event}} of the clone: {{path}}\\n".encode())
            os._exit(99)
sys.addaudithook(guard)
"""
"""What each Python of the environment begins with."""

MODULE = "import baq_cli; print(baq_cli.__file__)"
WRONGLY = "open({!r}).read()"
TESTS = ["tests/recipes/test_recipes.py", "tests/agents/test_baselines.py"]
"""A few of the sdist's tests, which show that their helpers are there."""

SMALL = "shared.hidden=[16,16] shared.batch_size=32 evaluation.episodes=1 threads=1"
SMALLER = {
    "pretrain": f"--seeds 1 --gradient-steps 60 {SMALL}",
    "finetune": "--env-steps 60 baq.warmup_env_steps=20",
    "compare": f"--dataset baq/pendulum/replay-v0 --seeds 1 --gradient-steps 40 --env-steps 20 "
    f"--workers 1 {SMALL}",
    "ope": "--steps 50",
    "bench": "--seconds 0.05 --rounds 1 --env-steps 50 --hidden 16,16 --batch 32",
}
"""What README's commands are given here as well, so that they end within seconds."""
LATER = ("d3rlpy", "data import", "me/")
"""What a command isn't run with: another library beside, and the reader's own logs."""


def build(out: Path) -> tuple[Path, Path]:
    """Build the sdist of the clone, and the wheel from that sdist; return both."""
    run(sys.executable, "-m", "build", "--outdir", out, CLONE, at=out, env=dict(os.environ))
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def check_sdist(sdist: Path) -> None:
    """Fail unless the sdist holds every file that git knows."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.check_output(["git", "-C", str(CLONE), "ls-files", "-z"], text=True)
    missing = {name for name in listed.split("\0") if name and (CLONE / name).exists()} - held
    assert not missing, f"the sdist lacks {sorted(missing)}"


def check_wheel(wheel: Path) -> None:
    """Fail unless the wheel holds the package, its recipes and its licence, and no more."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("/LICENSE") for name in archive.namelist()), "no licence"
    package = {
        f"baq_cli/{path.relative_to(CLONE / 'src' / 'baq_cli').as_posix()}"
        for path in (CLONE / "src" / "baq_cli").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    recipes = {
        f"baq_cli/recipes/shipped/{path.relative_to(CLONE / 'recipes').as_posix()}"
        for path in (CLONE / "recipes").rglob("*")
        if path.is_file()
    }
    assert held == package | recipes, sorted(held ^ (package | recipes))


def install(wheel: Path, place: Path) -> Path:
    """Make an environment with the wheel in it, which may borrow packages; return its programs."""
    venv.create(place, with_pip=False)
    programs = place / "bin"
    pip = (sys.executable, "-m", "pip", "--python", programs / "python")
    run(
        *pip, "install", "--quiet", "--no-deps", "--no-index", wheel, at=place, env=dict(os.environ)
    )
    (own,) = place.glob("lib/python*/site-packages")
    # A folder that a .pth file names is searched, but the .pth files in it aren't read: this
    # interpreter's editable baq_cli stays out.
    (own / "borrowed.pth").write_text("\n".join(PACKAGES) + "\n", encoding="utf-8")
    allowed = tuple(place + os.sep for place in PACKAGES)
    guard = GUARD.format(clone=str(CLONE), allowed=allowed)
    (own / "sitecustomize.py").write_text(guard, encoding="utf-8")
    return programs


def run(*words: str | Path, at: Path, env: dict[str, str], expect: int = 0) -> str:
    """Run a program in a folder; return what it prints, or fail with all of it."""
    done = subprocess.run(
        [str(word) for word in words], cwd=at, env=env, capture_output=True, text=True, timeout=600
    )
    if done.returncode != expect:
        sys.exit(f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def readme_commands() -> Iterator[list[str]]:
    """Yield the words of each `baq` command of README's blocks, as it is run here."""
    text = (CLONE / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    for block in text.split("```")[1::2]:
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["baq"] and not any(part in line for part in LATER):
                told = "" if "status" in words else SMALLER.get(words[1], "")
                yield [*words[1:], *told.split()]


def main() -> None:
    """Build, look into what was built, install the wheel, and use it."""
    with tempfile.TemporaryDirectory(prefix="baq-package-") as made:
        place = Path(made).resolve()
        home = place / "home"
        home.mkdir()
        sdist, wheel = build(place)
        check_sdist(sdist)
        check_wheel(wheel)
        programs = install(wheel, place / "environment")
        env = {"PATH": os.pathsep.join([str(programs), "/usr/bin", "/bin"]), "HOME": str(home)}
        env["OMP_NUM_THREADS"] = "1"

        def use(program: str, *words: str | Path, at: Path = home, expect: int = 0) -> str:
            return run(programs / program, *words, at=at, env=env, expect=expect)

        use("python", "-c", WRONGLY.format(str(CLONE / "README.md")), expect=99)  # the guard works
        assert use("python", "-c", MODULE).startswith(str(place / "environment"))
        version = use("baq", "--version")
        assert version.split()[-1] in wheel.name, version
        assert "pendulum/baq" in use("baq", "recipes", "list", "pendulum")
        assert "cal_ql" in use("baq", "methods")
        for words in readme_commands():
            use("baq", *words)
        assert (home / "runs" / "compare" / "report.html").is_file()
        with tarfile.open(sdist) as archive:
            archive.extractall(place / "unpacked", filter="data")
        (root,) = (place / "unpacked").iterdir()
        use("python", "-m", "pytest", "-x", "-p", "no:cacheprovider", *TESTS, at=root)
        print(f"{sdist.name} and {wheel.name}: built, installed and used outside the clone")


if __name__ == "__main__":
    main()

"""A command that is given in a stranger's folder runs nothing that lies there."""

from __future__ import annotations

import os
import shlex
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import pytest

from baq_cli import safe_python as python
from baq_cli.envs.making import make_env
from baq_cli.errors import EnvironmentMismatch, UsageError
from baq_cli.launch.child import Child
from baq_cli.launch.ray.launcher import Ray
from baq_cli.untrusted import TRUST_VARIABLE
from support.advice import follows
from support.logs import written

DECOYS = ("torch", "yaml", "multiprocessing", "submitit", "baq_cli", "runpy", "venv")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where modules of the folder that we are in leave a mark once they run."""
    theirs, mark = tmp_path / "theirs", tmp_path / "ran"
    theirs.mkdir()
    for name in DECOYS:
        written(theirs / f"{name}.py", f"open({str(mark)!r}, 'a').write(__name__)\nraise OSError\n")
    monkeypatch.chdir(theirs)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    source = [os.path.abspath(place) for place in sys.path if place]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(source))
    return mark


def test_the_decoys_work(mark: Path) -> None:
    """Otherwise the tests below could pass for a reason of their own."""
    subprocess.run([sys.executable, "-m", "baq_cli.launch.worker", "x"], capture_output=True)
    assert mark.exists()


def test_a_cell_s_process_imports_nothing_from_where_it_starts(mark: Path, tmp_path: Path) -> None:
    cell = tmp_path / "cell"
    cell.mkdir()
    for directory in (None, Path.cwd()):
        child = Child(cell, 1, directory=directory)
        assert "status 3" in child.attend([]), "there is no cell: it came as far as to look"
        assert not mark.exists()


def test_a_job_of_submitit_imports_nothing_from_where_it_starts(mark: Path, tmp_path: Path) -> None:
    """Its command is what `running` gives, then `-u -m MODULE FOLDER`; here of another module."""
    file = written(tmp_path / "a b.json", "[1]")
    words = shlex.split(f"{python.running('json.tool')} -u -m json.tool {shlex.quote(str(file))}")
    done = subprocess.run([*words, "--compact"], capture_output=True, text=True)
    assert done.stdout == "[1]\n", done.stderr
    assert not mark.exists()


def test_processes_that_libraries_start_leave_the_folder_out(mark: Path) -> None:
    """Spawned ones begin with `python -c "from multiprocessing…"`, as does what tracks them."""
    script = (
        "from baq_cli.safe_python import never_from_here; never_from_here()\n"
        "import multiprocessing, os\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=os.getpid)\n"
        "    process.start(); process.join(); print(process.exitcode)"
    )
    path = written(mark.parent / "script.py", script)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.stdout == "0\n", done.stderr
    assert not mark.exists()


def test_ray_is_started_elsewhere(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver's folder comes first on its workers' path."""
    pytest.importorskip("ray")
    here, started = os.getcwd(), []

    def init(**asked: object) -> None:
        started.append(os.getcwd())
        raise RuntimeError("no cluster")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(UsageError, match="no cluster"):
        Ray()
    assert (started, os.getcwd()) == ([os.sep], here)


def test_the_package_is_run_as_a_module_without_the_folder_that_it_is_run_in(mark: Path) -> None:
    """Python itself looks for the package there; nothing else is."""
    Path("baq_cli.py").unlink()
    words = [sys.executable, "-m", "baq_cli"]
    done = subprocess.run([*words, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "baq"), done.stderr
    assert not mark.exists()


ROBOT = """
import gymnasium as gym
from gymnasium.envs.classic_control import PendulumEnv
gym.register("Robot-v0", PendulumEnv, max_episode_steps=3)
"""


@pytest.fixture
def trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a folder of one's own, with --trust-env; what is imported and registered is dropped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield
    gym.registry.pop("Robot-v0", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "a_robot"]:
        del sys.modules[name]


def refused(env: str) -> str:
    with pytest.raises(EnvironmentMismatch) as found:
        make_env(env)
    return str(found.value)


def install(package: Path) -> None:
    """Have a folder on the path as `pip install -e` does: by a file among the packages."""
    packages = package.parent / "packages"
    packages.mkdir()
    written(packages / "a_robot.pth", f"{package}\n")
    site.addsitedir(str(packages))


@follows("'{}' lies in the current folder, which is kept off Python's path: put the folder there")
@pytest.mark.parametrize("by", ["PYTHONPATH", "pip"])
@pytest.mark.parametrize(
    ("file", "module"),
    [("a_robot.py", "a_robot"), ("a_robot/__init__.py", "a_robot"), ("a_robot/b.py", "a_robot.b")],
)
def test_an_environment_in_the_current_folder_is_not_imported_and_the_advice_works(
    file: str, module: str, by: str, trusting: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / file).parent.mkdir(parents=True)
    (here / file).write_text(ROBOT)
    monkeypatch.chdir(here)
    said = refused(f"{module}:Robot-v0")
    assert "'a_robot' lies in the current folder" in said
    assert "PYTHONPATH=. before the command" in said
    if by == "pip":
        assert "pip install -e ." in said
        install(here)
    else:
        monkeypatch.syspath_prepend(here)  # as Python does for PYTHONPATH
    make_env(f"{module}:Robot-v0").close()


@follows(
    "The module '{}' isn't on Python's path: put the folder that it lies in there (PYTHONPATH=FO",
    "The module '{}' was found; install what it imports.",
)
@pytest.mark.parametrize("by", ["PYTHONPATH", "pip"])
def test_a_module_that_lies_elsewhere_is_found_where_the_message_says(
    by: str, trusting: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").mkdir()
    written(tmp_path / "src" / "a_robot.py", "import no_such_simulator\n" + ROBOT)
    said = refused("a_robot:Robot-v0")
    assert "PYTHONPATH=FOLDER before the command" in said
    if by == "pip":
        assert "pip install -e FOLDER" in said
        install(tmp_path / "src")
    else:
        monkeypatch.syspath_prepend(tmp_path / "src")
    said = refused("a_robot:Robot-v0")
    assert "No module named 'no_such_simulator'" in said
    assert "install what it imports" in said
    assert "PYTHONPATH" not in said
    monkeypatch.setitem(sys.modules, "no_such_simulator", ModuleType("no_such_simulator"))
    make_env("a_robot:Robot-v0").close()


def test_a_command_finds_a_module_of_the_current_folder_that_is_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "a_robot.py", ROBOT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ".", prepend=os.pathsep)
    words = ["-m", "baq_cli", "data", "score-reference", "a_robot:Robot-v0", "--episodes", "2"]
    done = subprocess.run([sys.executable, *words, "--trust-env"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

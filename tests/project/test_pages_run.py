"""What README and docs say is done as they say it: every command of a page, from its top down.

Each is run to its end, in this process, with what `SMALLER` puts behind it; it must end well and
leave what it was told to. What a page's reader has of their own is given by `support.desk`, and a
reference dataset is built by its own behaviours, but shorter. Not run are the commands of a block
that says what it needs (`<!-- needs: robot -->`), and those with something left to the reader
(`…`): test_pages.py reads them all. test_tutorial.py runs the tutorial as it stands.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from baq_cli.agents.registry import METHODS
from baq_cli.data.minari.folder import dataset_path
from baq_cli.data.suite import SUITE
from support.desk import GIVEN, settle_at_home
from support.here import run_baq
from support.pages import LATER, PAGES, Block, blocks, file_of, words_in
from support.places import REPOSITORY
from support.small_methods import small_words

# -- what is smaller here

PLAY = shlex.split("threads=1 env_workers=false evaluation.episodes=1 evaluation.background=false")
NETWORKS = shlex.split("shared.hidden=[16,16] shared.batch_size=32 evaluation.estimate_updates=10")
METHOD = [
    word
    for algo, method in METHODS.items()
    for word in small_words(algo)
    if "critics" in method.Config.own or not word.startswith(f"{algo}.critics=")
]
"""Every method's own counts and layers, of what its stages and models take."""
OFFLINE = shlex.split("--gradient-steps 8 evaluation.every_gradient_steps=8")
ONLINE = shlex.split("--env-steps 16 evaluation.every_env_steps=16")
CELLS = [*OFFLINE, *ONLINE, "--workers", "1", *PLAY, *NETWORKS, *METHOD]
SMALLER = {
    "pretrain": [*OFFLINE, *PLAY, *NETWORKS, *METHOD],
    "finetune": [*ONLINE, *PLAY, *METHOD],
    "compare": ["--seeds", "1", *CELLS],
    "tune": [*shlex.split("--trials 2 --seeds 0, --report-seeds 10,"), *CELLS],
    "ope": shlex.split("--steps 10"),
    "advise": shlex.split("--steps 10 --episodes 5"),
    "eval": shlex.split("--max-episode-steps 50"),
    "bench": shlex.split("--seconds 0.02 --rounds 1 --env-steps 50 --hidden 16,16 --batch 32"),
    "data collect": shlex.split("--env-steps 400"),
    "data score-reference": shlex.split("--episodes 2"),
}
"""What stands behind each command here, and goes over what the page says: budgets and sizes."""
FEWER_METHODS = {"all": "baq,bc,sac", "published": "baq,iql"}
"""What stands in a list of methods here, for time: half a minute for every method on two tasks, and
more for fifteen in AntMaze, whose episodes are long. test_pages.py resolves every one, and
tests/runs/test_resume_all.py trains each in both phases.
"""
AS_IT_STANDS = {"status", "--repeat"}
"""Words of commands that take up what is there, and nothing beside it."""
SUITE_STEPS = 400
"""Environment steps of a reference dataset."""
ESTIMATE_STEPS = 10
"""Gradient steps of an estimate that no option sets: of a comparison, and of a page's program."""

# -- who does it

WORDS = {"ID": "baq/pendulum/replay-v0"}
"""What stands in the place of a word that a page leaves to its reader."""
LEFT = ("--out", "--id", "--plot", "--video")
"""The options that name what a command leaves."""
GOES_ON = ("compare", "tune", "report")
"""Commands that take up what is there under the same name."""
RUN_ELSEWHERE = {"docs/tutorial.md": "test_tutorial.py"}
OWN_MODULES = ("my_package", "my_arm", "my_hand")
COMPLETION = ["--install-completion"]
"""It asks which shell has started it: tests/cli/test_completion.py runs it in one."""


class Reader:
    """Somebody who does what a page says, in a folder of their own."""

    def __init__(self) -> None:
        self.has: set[str] = set()

    def run(self, given: list[str]) -> None:
        """Run a command with its budget here; fail unless it ends well and leaves what it says."""
        words = [WORDS.get(word, str(Path(word).expanduser())) for word in given]
        made = [words[at + 1] for at, word in enumerate(words) if word in LEFT]
        self.provide(shlex.join(word for word in words if word not in made))
        if words[0] not in GOES_ON:
            for name in made:  # an earlier part of the page may have left another of the name
                remove(name)
        status, _, said = run_baq(*smaller(words))
        assert status == 0, f"baq {shlex.join(words)}\n{said}"
        if "--dry-run" not in words:
            assert [name for name in made if not there(name)] == []

    def provide(self, text: str) -> None:
        """Make what a text names of the reader's own, unless it is there."""
        for name, make in GIVEN.items():
            path = str(Path(name).expanduser())
            if name in self.has or not re.search(rf"(?<![\w/-]){re.escape(path)}(?![\w-])", text):
                continue
            self.has.add(name)
            if there(path):
                continue
            if isinstance(make, str):
                self.run(shlex.split(make)[1:])
            else:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                make(Path(path))

    def follow(self, block: Block) -> None:
        """Run a program of a page, with the names in it that are the reader's own."""
        text = block.text.replace("5_000", str(ESTIMATE_STEPS))
        self.provide(text)
        for name in re.findall(r'save_arrays\(\s*"([^"]+)"', text):
            remove(name)
        exec(compile(text, block.page, "exec"), dict(PROGRAMS[block.page]))


def smaller(words: list[str]) -> list[str]:
    """Return a command with its budget here."""
    if AS_IT_STANDS & set(words):
        return words
    found = list(words)
    for at in (at for at, word in enumerate(words) if word == "--algos"):
        named = words[at + 1].split(",")
        found[at + 1] = ",".join(FEWER_METHODS.get(name, name) for name in named)
    return found + SMALLER.get(words[0], SMALLER.get(" ".join(words[:2]), []))


def there(name: str) -> bool:
    """Return whether a file, a folder or a dataset of that name is there."""
    return Path(name).exists() or (is_id(name) and dataset_path(name).exists())


def remove(name: str) -> None:
    path = dataset_path(name) if is_id(name) else Path(name)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def is_id(name: str) -> bool:
    return re.fullmatch(r"(?:me|baq|D4RL)/[\w-]+(?:/[\w-]+)?-v\d+", name) is not None


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A reader in a folder and a home of their own, who may import what lies in that folder."""
    settle_at_home(tmp_path, monkeypatch)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, reference in SUITE.items():
        shorter = replace(reference, transitions=SUITE_STEPS, threads=1)
        monkeypatch.setitem(SUITE, name, shorter)
    monkeypatch.setattr("baq_cli.launch.cell_estimates.STEPS", ESTIMATE_STEPS)
    gymnasium.register("BareArm-v0", "gymnasium.envs.classic_control:PendulumEnv")
    yield Reader()
    for name in ("Arm-v0", "BareArm-v0"):
        gymnasium.registry.pop(name, None)
    for name in OWN_MODULES:
        sys.modules.pop(name, None)
    if "wandb" in sys.modules:  # its service writes into this home, which is gone then
        sys.modules["wandb"].teardown()


# -- the pages' commands


@pytest.mark.parametrize("name", sorted(PAGES.keys() - RUN_ELSEWHERE))
def test_every_command_of_a_page_does_what_it_says(name: str, reader: Reader) -> None:
    for block in blocks(name):
        if (given := file_of(block)) is not None:
            reader.provide(block.text)
            Path(given).write_text(block.text)
        if block.language == "python" and name in PROGRAMS:
            reader.follow(block)
        for found in words_in(block):
            if block.needs is None and LATER not in found and found != COMPLETION:
                reader.run(found)


# -- the pages' programs

STEPS = 40
PROGRAMS: dict[str, dict[str, Any]] = {
    "docs/data.md": {
        "read_stick": lambda: np.array([0.5], np.float32),
        "obs": np.random.default_rng(0).normal(size=(STEPS, 3)),
        "actions": np.random.default_rng(1).uniform(-1, 1, (STEPS, 1)),
        "rewards": np.random.default_rng(2).normal(size=STEPS),
        "terminated": np.arange(STEPS) % 20 == 9,
        "truncated": np.arange(STEPS) % 20 == 19,
    },
    "docs/estimates.md": {},
}
"""The pages whose programs run among their commands, with the names that a reader gives them."""
PROGRAMS_ELSEWHERE = {
    "docs/tutorial.md": "test_tutorial.py",
    "docs/deployment.md": "deploy/test_export.py",
    "CONTRIBUTING.md": "test_contributing.py",
    "docs/robots.md": "below",
}
EXCERPTS = {"docs/methods.md", "docs/writing-a-method.md"}
"""Pages that show parts of what is in src/."""


def test_every_page_with_a_program_is_known() -> None:
    found = {name for name in PAGES for block in blocks(name) if block.language == "python"}
    assert found == PROGRAMS.keys() | PROGRAMS_ELSEWHERE.keys() | EXCERPTS


def program(page: str, begins: str) -> Block:
    (block,) = (of for of in blocks(page) if of.language == "python" and begins in of.text)
    return block


def test_whoever_a_page_has_take_over_does(reader: Reader) -> None:
    controller = "def my_controller(obs):\n    return [0.5]\n"
    Path("my_hand.py").write_text(program("docs/robots.md", "class Expert").text + controller)
    command = "finetune --checkpoint runs/offline --seeds 0, --out runs/b --intervene"
    reader.run([*shlex.split(command), "my_hand:Expert"])
    last = Path("runs/b/diagnostics.csv").read_text().splitlines()[-1]
    assert last.split(",")[-2:] == ["taken_over_env_steps", "16.0"]


def test_a_wrapper_as_a_page_has_it_says_what_was_done_instead(reader: Reader) -> None:
    reader.follow(program("docs/data.md", "class TakenOver"))
    env = gymnasium.make("Arm-v0")
    env.reset(seed=0)
    *_, info = env.step(np.array([-1.0], np.float32))
    assert info["executed_action"] == [0.5]


# -- the pages' measurements


class Read(Exception):
    """A program has read its words."""


MEASURED = sorted(
    {
        found.strip()
        for page in PAGES.values()
        for found in re.findall(r"python (benchmarks/\w+\.py[^`\n|)]*)", page.read_text("utf-8"))
    }
)


@pytest.mark.parametrize("line", MEASURED)
def test_a_measurement_takes_the_words_that_a_page_gives_it(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *given = shlex.split(line, comments=True)
    found = runpy.run_path(str(REPOSITORY / program), run_name="read")
    parse = argparse.ArgumentParser.parse_args

    def only_read(parser: argparse.ArgumentParser) -> None:
        parse(parser)
        raise Read

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_read)
    monkeypatch.setattr(sys, "argv", [program, *given])
    if "argparse" in found:
        with pytest.raises(Read):
            found["main"]()
    else:
        assert given == []

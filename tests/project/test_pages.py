"""Every command that README and docs name is one that there is, and takes what it is given.

A command is run as far as the page alone decides: read by the parser, its recipe resolved, every
key, value, method, recipe and dataset checked; where its work would begin it is stopped: so what is
read are the budgets and settings that stand in the page. test_pages_run.py runs the same commands
to their end, on smaller budgets, and test_tutorial.py runs a page as it stands. What can't be run
without a robot, a card, a cluster, a network, a screen or OpenGL says so in the page, in a comment
above its block: `<!-- needs: network -->`; it is read all the same.
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import pytest
import torch
import typer

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.cli import compare, tune
from baq_cli.cli.groups import DEBUG, TRUST
from baq_cli.cli.main import app
from baq_cli.data.suite import SUITE
from baq_cli.recipes.load import resolve
from baq_cli.recipes.names import recipe_folder, recipe_names
from baq_cli.recipes.schema import Recipe
from support.here import run_baq, settle
from support.pages import (
    LATER,
    NEEDS,
    PAGES,
    blocks,
    commands,
    file_of,
    inline,
    is_baq,
    lines,
    words_in,
)
from support.places import REPOSITORY

RECIPES = recipe_names()
DATASETS = {
    *SUITE,
    *re.findall(
        r"^dataset: (\S+)",
        "\n".join((recipe_folder() / f"{name}.yaml").read_text() for name in RECIPES),
        re.MULTILINE,
    ),
}
LISTING = re.compile(r"(methods|recipes|data suite|data)( (list|show|validate)\b.*)?$")
"""Commands that only say what there is."""
TARGET = re.compile(r"^([\w-]+):", re.MULTILINE)
READ_WHOLE = {"methods", "cql", "--json", "list", *RECIPES}
"""The last words of those that can be read here."""
INSTALLS = r"pip(x)? install|uvx |git clone|baq data download|make (demo|test|setup)\b"
EXTRAS_OF = re.compile(r"^(\w+) = \[", re.MULTILINE)
EXTRAS = re.compile(r"baq-cli\[([\w,]+)\]")


class Begun(Exception):
    """A command has come to where its work begins; `given` is what it would work on."""

    def __init__(self, given: Any) -> None:
        self.given = given


# -- reading a command


def begins(*given: Any, **_: Any) -> Any:
    raise Begun(given[0])


def parsed_only(**given: Any) -> None:
    raise Begun(given)


def command_tree(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, inside in getattr(command, "commands", {}).items():
        yield f"{path} {name}".strip(), inside
        yield from command_tree(inside, f"{path} {name}".strip())


FLAGS = (DEBUG, TRUST, "--install-completion", "--show-completion")
BAQ = typer.main.get_group(app)  # one of its own, since its commands are replaced
RESOLVED = ("pretrain", "finetune", "compare run", "tune run")
"""Commands whose words become recipes: of the others the parser alone sees the words."""
for _path, _command in command_tree(BAQ):
    if not hasattr(_command, "commands") and _path not in RESOLVED:
        _command.callback = parsed_only


class Reader:
    """Somebody who goes through a page from its top, without the time to train anything."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.made: dict[str, Recipe] = {}
        """The recipes of the runs that the page's commands would leave in their folders."""
        importlib.import_module("baq_cli.launch.cell_runs")  # binds the names as they are
        patch.setattr("baq_cli.engine.phases.commands.run_pretrain", begins)
        patch.setattr("baq_cli.engine.phases.commands.run_finetune", begins)
        patch.setattr("baq_cli.engine.phases.commands.run_repeat", begins)
        patch.setattr("baq_cli.engine.checkpoints.folder.load", self.checkpoint)
        patch.setattr(compare, "run_comparison", begins)
        patch.setattr(compare, "show_plan", begins)
        patch.setattr(tune, "run_search", begins)

    def run(self, words: list[str]) -> Any:
        """Run a command to where its work begins; return what it would work on."""
        self.patch.setattr(sys, "argv", ["baq", *words])
        with pytest.raises(Begun) as begun:
            BAQ.main(words, standalone_mode=False)
        given = begun.value.given
        if isinstance(given, Recipe):
            check_recipe(given.run.model_dump())
            self.made[words[words.index("--out") + 1]] = given
        elif words[0] == "compare" and isinstance(given, list):
            for cell in given:
                check_recipe(cell.recipe)
        return given

    def checkpoint(self, place: Path) -> Any:
        """Stand for the checkpoint of a run: one of this page, or the reader's own."""
        recipe = self.made.get(str(place)) or recipe_of_the_reader(place.name)
        document = {"recipe": recipe.as_dict(), "env_id": None, "phase": "offline"}
        agent = {"inputs.reward": torch.tensor([1.0, 0.0]), "critic.0": torch.zeros(1)}
        return SimpleNamespace(document={**document, "algo": recipe.run.algo}, agent=agent)


def recipe_of_the_reader(name: str) -> Recipe:
    """Return the recipe of a run that the page doesn't make, of the method that its name names."""
    algo = next((method for method in METHODS if name.endswith(f"-{method}")), "baq")
    return resolve([{"algo": algo, "dataset": "me/arm/monday-v0"}], method_configs())


def check_recipe(recipe: dict[str, Any]) -> None:
    """Fail where a recipe's dataset or environment is none that there is, nor the reader's own."""
    dataset, env = recipe.get("dataset"), recipe.get("env")
    if dataset is not None and not dataset.startswith(("me/", "ID")):
        assert dataset in DATASETS
    if env is not None and ":" not in env and env != "ID":
        assert env in gymnasium.registry


def options_known(words: list[str]) -> bool:
    """Say whether a command is one that there is, and every option that is named one of its."""
    there_are = dict(command_tree(BAQ))
    if words[0].startswith("--"):
        return words[0] in {"--help", *FLAGS, *(name for of in BAQ.params for name in of.opts)}
    names = [" ".join(words[:n]) for n in (3, 2, 1)]
    path = next((name for name in names if name in there_are), None)
    if path is None:
        return False
    command = there_are.get(f"{path} run", there_are[path])
    known = {name for of in command.params for name in (*of.opts, *of.secondary_opts)}
    asked = {word.partition("=")[0] for word in words if word.startswith("--")}
    return asked <= known | {"--help", *FLAGS}


# -- the pages


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    settle(tmp_path, monkeypatch)
    return Reader(monkeypatch)


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_a_page_can_be_run_as_it_stands(name: str, reader: Reader) -> None:
    for block in blocks(name):
        assert set((block.needs or NEEDS[0]).split(", ")) <= set(NEEDS), block.text
        if (given := file_of(block)) is not None:
            Path(given).write_text(block.text)
        for words in words_in(block):
            if LATER in words or words[0].startswith("--"):
                assert options_known([word for word in words if word != LATER]), words
            elif LISTING.match(" ".join(words)) and words[-1] in READ_WHOLE:
                status, _, said = run_baq(*words)
                assert status == 0, said
            else:
                reader.run(words)


@pytest.mark.parametrize("name", PAGES)
def test_every_command_in_a_sentence_is_one_that_there_is(name: str) -> None:
    named = [shlex.split(code) for code in inline(name) if code.startswith("baq ")]
    unknown = [words for words in named if not options_known(words[1:])]
    assert unknown == []


def test_other_commands_name_what_there_is() -> None:
    targets = set(TARGET.findall((REPOSITORY / "Makefile").read_text()))
    extras = set(EXTRAS_OF.findall((REPOSITORY / "pyproject.toml").read_text()))
    found = 0
    for name in PAGES:
        text = PAGES[name].read_text("utf-8")
        for target in re.findall(r"(?:^|`)make ([a-z]\w*)\b", text, re.MULTILINE):
            assert target in targets, (name, target)
            found += 1
        for names in EXTRAS.findall(text):
            assert set(names.split(",")) <= extras, (name, names)
            found += 1
        for file in re.findall(r"python (benchmarks/\w+\.py)", text):
            assert (REPOSITORY / file).exists(), (name, file)
            found += 1
    assert found > 15


def test_what_cannot_be_run_everywhere_says_what_it_needs() -> None:
    for name in PAGES:
        for block in blocks(name):
            for line in commands(block):
                if re.match(INSTALLS, line.text) or "--against" in line.text:
                    assert "network" in (block.needs or ""), (name, line.text)
                if "--render" in line.text:
                    assert "screen" in (block.needs or ""), (name, line.text)
                if "MUJOCO_GL" in line.text:
                    assert "OpenGL" in (block.needs or ""), (name, line.text)
                if re.search(r"--launcher|^srun|^bsub|^sbatch", line.text):
                    assert "cluster" in (block.needs or ""), (name, line.text)
                if re.search(r"--control-hz|--intervene (keyboard|gamepad)", line.text):
                    assert "robot" in (block.needs or ""), (name, line.text)


def test_there_are_commands_to_read() -> None:
    found = [line for name in PAGES for block in blocks(name) for line in lines(block)]
    assert sum(is_baq(line.text) for line in found) > 90

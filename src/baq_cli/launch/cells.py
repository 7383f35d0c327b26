"""One cell of a comparison: a method on a dataset, pre-trained then fine-tuned, all its seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.phases.commands import run_finetune, run_pretrain
from baq_cli.engine.phases.origin import Origin, environment_on
from baq_cli.engine.phases.start import RunRequest
from baq_cli.errors import DataError
from baq_cli.recipes.load import reopen
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.checked import Checked, check_content
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.files import disk_errors, json_bytes, read_json, replace_file

FILE = "cell.json"


class _RecipeFields(Checked):
    algo: str
    seeds: list[int] = Field(min_length=1)


class _CellFields(Checked):
    task: str
    method: str
    recipe: _RecipeFields
    command: str


@dataclass(frozen=True)
class Cell:
    """A method's whole course on a task; its phases are runs in `folder/offline` and `…/online`.

    `task` is a dataset's id; `method` is a label, the algorithm with what a grid sets. `recipe`
    is a resolved recipe as a mapping; it names the dataset, and the environment where that isn't
    the dataset's. `command` made the cell, and continues it.
    """

    task: str
    method: str
    folder: Path
    recipe: dict[str, Any]
    command: str

    @property
    def name(self) -> str:
        return f"{self.task}: {self.method}"

    def beside(self, episodes: Episodes) -> Cell:
        """Return the cell with its environment named whole, if its method sees no dataset to ask.

        It is the one, with the limit, in which methods that see the dataset act. Raises
        EnvironmentMismatch as making it does.
        """
        recipe = reopen(self.recipe, method_configs())
        if METHODS[recipe.run.algo].learns_offline:
            return self
        quiet: Observer = lambda event: None  # noqa: E731
        env = Origin.make(environment_on(recipe, episodes, quiet), quiet, episodes.cut_after).env
        named = {"env": env.id, "env_args": env.kwargs or None}
        limit = {"max_episode_steps": env.max_episode_steps}
        return replace(self, recipe=self.recipe | named | limit)

    def on_threads(self, threads: int) -> Cell:
        """Return the cell with its share of the cores, unless its recipe says otherwise."""
        evaluation = self.recipe["evaluation"]
        background = bool(evaluation["background"])  # by default no core is free
        shared = {
            "threads": self.recipe["threads"] or threads,
            "evaluation": evaluation | {"background": background},
        }
        return replace(self, recipe=self.recipe | shared)

    def save(self) -> None:
        """Write the cell into its folder, for whoever runs it."""
        with disk_errors(f"prepare {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            content = {key: value for key, value in asdict(self).items() if key != "folder"}
            replace_file(self.folder / FILE, json_bytes(content))

    @classmethod
    def load(cls, folder: Path) -> Cell:
        """Read a cell from its folder.

        Raises DataError when there is none, or it is damaged.
        """
        content = read_json(folder / FILE)
        check_content(_CellFields, content, folder / FILE)
        try:
            return cls(folder=folder, **content)
        except TypeError as error:
            raise DataError(f"{folder / FILE} is damaged: {error}") from error


def recipe_of(cell: Cell) -> Recipe:
    """Return a cell's recipe; what one of an earlier version lacks means what it did then."""
    return reopen(cell.recipe, method_configs())


def run_cell(cell: Cell, observer: Observer) -> None:
    """Run a cell's phases, those that its method has, from where they were left."""
    recipe = recipe_of(cell)
    method = METHODS[recipe.run.algo]
    source = None
    if method.learns_offline:
        observer(Note(f"{cell.name}: pre-training"))
        run_pretrain(recipe, _order(cell, "offline", observer))
        source = ckpt.load(cell.folder / "offline")
    if method.learns_online:
        observer(Note(f"{cell.name}: fine-tuning"))
        order = _order(cell, "online", observer)
        run_finetune(recipe if source else _without_data(recipe), order, source)


def _order(cell: Cell, phase: str, observer: Observer) -> RunRequest:
    return RunRequest(cell.folder / phase, observer, cell.command, cell.command, resume=True)


def _without_data(recipe: Recipe) -> Recipe:
    """Return the recipe of a method that learns from the environment alone."""
    run = recipe.run.model_copy(update={"dataset": None})
    return Recipe(run, recipe.method)

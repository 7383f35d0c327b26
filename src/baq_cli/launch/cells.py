"""One cell of a comparison: a method on a dataset, pre-trained then fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.engine import checkpoint as ckpt
from baq_cli.engine.events import Note, Observer
from baq_cli.engine.operations import run_finetune, run_pretrain
from baq_cli.engine.sources import Order
from baq_cli.recipes.load import resolve
from baq_cli.recipes.schema import Recipe


@dataclass(frozen=True)
class Cell:
    """A method's whole course; its phases are runs in `folder/offline` and `folder/online`.

    `recipe` is a resolved recipe as a mapping; it names the dataset, and the environment where
    that isn't the dataset's.
    """

    name: str
    folder: Path
    recipe: dict[str, Any]
    command: str
    resume_command: str
    resume: bool = False

    def in_environment(self, env_id: str | None) -> Cell:
        """Return the cell with an environment named, if its method sees no dataset to ask."""
        if METHODS[self.recipe["algo"]].learns_offline:
            return self
        return replace(self, recipe=self.recipe | {"env": self.recipe["env"] or env_id})

    def last_run(self) -> Path:
        """Return the run that holds all of the cell's evaluations."""
        online = self.folder / "online"
        return online if METHODS[self.recipe["algo"]].learns_online else self.folder / "offline"


def run_cell(cell: Cell, observer: Observer) -> None:
    """Run a cell's phases, those that its method has; finished ones are kept on a resume."""
    recipe = resolve([cell.recipe], method_configs())
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


def _order(cell: Cell, phase: str, observer: Observer) -> Order:
    folder = cell.folder / phase
    return Order(folder, observer, cell.command, cell.resume_command, cell.resume)


def _without_data(recipe: Recipe) -> Recipe:
    """Return the recipe of a method that learns from the environment alone."""
    run = recipe.run.model_copy(update={"dataset": None})
    return Recipe(run, recipe.method)

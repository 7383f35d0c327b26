"""One cell of a comparison: a method on a dataset, pre-trained then fine-tuned, all its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from baq_cli.errors import DataError, clipped
from baq_cli.launch.pruning import Pruning, curve_of
from baq_cli.runs.checked import Checked, check_content
from baq_cli.runs.files import disk_errors, json_bytes, read_json, replace_file
from baq_cli.runs.folder import MATRIX

FILE = "cell.json"
MOST_PATH = 1_000


class _RecipeFields(Checked):
    algo: str
    seeds: list[int] = Field(min_length=1)


class _CellFields(Checked):
    task: str
    method: str
    recipe: _RecipeFields
    command: str
    offline_only: bool = False
    pruning: Pruning | None = None


@dataclass(frozen=True)
class Cell:
    """A method's whole course on a task; its phases are runs in `folder/offline` and `…/online`.

    `task` is a dataset's id; `method` is a label, the algorithm with what a grid sets. `recipe`
    is a resolved recipe as a mapping; it names the dataset, and the environment where that isn't
    the dataset's. `command` made the cell, and continues it. With `offline_only` it ends with its
    pre-training; `pruning` says when a trial is stopped early (`launch.pruning.Pruning`).
    """

    task: str
    method: str
    folder: Path
    recipe: dict[str, Any]
    command: str
    offline_only: bool = False
    pruning: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.task}: {self.method}"

    def is_pruned(self) -> bool:
        """Return whether its rule stops the cell by what its evaluations say so far."""
        if self.pruning is None:
            return False
        rule = Pruning.model_validate(self.pruning)
        try:
            curve = curve_of(self.folder, rule.chosen_from)
        except DataError:  # its resume mends that, or says what is wrong
            return False
        return curve is not None and rule.cut_of(curve, int(self.recipe[curve.unit])) is not None

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


class _EntryFields(Checked):
    folder: str = Field(max_length=MOST_PATH)


class _MatrixFields(Checked):
    cells: list[_EntryFields]


def save_matrix(cells: Sequence[Cell], out: Path) -> None:
    """Note the cells of a comparison in its folder; those of earlier commands stay."""
    entries = {(cell.task, cell.method): cell.folder for cell in [*cells, *load_cells(out)]}
    content = {
        "cells": [
            {"task": task, "method": method, "folder": folder.relative_to(out).as_posix()}
            for (task, method), folder in entries.items()
        ],
    }
    with disk_errors(f"start a comparison in {out}"):
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / MATRIX, json_bytes(content))
        for cell in cells:
            cell.save()


def load_cells(out: Path) -> list[Cell]:
    """Return the cells of the comparison in a folder; none where none was begun.

    Raises DataError when a file of it is damaged.
    """
    if not (out / MATRIX).exists():
        return []
    content = read_json(out / MATRIX)
    check_content(_MatrixFields, content, out / MATRIX)
    return [Cell.load(_inside(out, entry["folder"])) for entry in content["cells"]]


def _inside(out: Path, folder: str) -> Path:
    """Return a cell's folder; a file from somewhere else can't name one outside."""
    path = out / folder
    if "\0" in folder or not path.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{out / MATRIX} names a folder outside of it: {clipped(folder)}")
    return path

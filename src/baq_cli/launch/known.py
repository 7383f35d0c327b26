"""Cells that a comparison's folder holds already: what may change of them, and which are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import make_agent
from baq_cli.engine.phases.resuming import check_budget
from baq_cli.errors import DataError, UsageError, listed
from baq_cli.launch.cell_runs import recipe_of, sees_data
from baq_cli.launch.cells import Cell, load_cells
from baq_cli.launch.journal import state_of, write_state
from baq_cli.recipes.load import FREE_IN_A_COMPARISON, differences
from baq_cli.report.protocol import Protocol, check_same_protocol, environment_asked, protocol_of
from baq_cli.runs.folder import read_metrics
from baq_cli.units import UNITS, Phase


def check_known(cells: Sequence[Cell], out: Path) -> None:
    """Compare cells with those that a matrix in `out` holds already.

    Raises UsageError for a cell that is there with another recipe, naming the keys; for one whose
    runs can't go on as they are asked to; and for cells beside which those of their task that are
    there couldn't be reported.
    """
    for cell in cells:
        if not (cell.folder / "cell.json").exists():
            continue
        before = recipe_of(Cell.load(cell.folder)).as_dict()
        changed = differences(before, cell.recipe, free=FREE_IN_A_COMPARISON)
        changed += _remeasured(cell, before)
        if changed:
            raise UsageError(
                f"{out} holds '{cell.name}' with another recipe: {'; '.join(changed)}. Give the "
                "values it was begun with, or choose another --out."
            )
        _check_goes_on(cell, before, out)
    _check_tasks(cells, out)


def is_finished(cell: Cell) -> bool:
    """Return whether a cell was run to its end by this very recipe."""
    if state_of(cell.folder).stage != "done":
        return False
    return recipe_of(Cell.load(cell.folder)).as_dict() == cell.recipe


def left_to_run(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that aren't finished, and note that of those that were, by another recipe.

    Else one that is stopped before it goes on would seem finished by the recipe that it has now.
    """
    left = [cell for cell in cells if not is_finished(cell)]
    for cell in left:
        if state_of(cell.folder).stage == "done":
            write_state(cell.folder, "waiting")
    return left


def _remeasured(cell: Cell, before: dict[str, Any]) -> list[str]:
    """Say what of a cell's evaluations would be another thing than what was measured already."""
    keys = ["episodes"] if any(_done(cell, phase) is not None for phase in UNITS) else []
    keys += [f"every_{unit}" for phase, unit in UNITS.items() if _done(cell, phase) is not None]
    was, now = before["evaluation"], cell.recipe["evaluation"]
    return [
        f"evaluation.{key} was {was[key]}, this command says {now[key]}"
        for key in keys
        if was[key] != now[key]
    ]


def _check_goes_on(cell: Cell, before: dict[str, Any], out: Path) -> None:
    """Raise UsageError where a cell's phases can't go on to the steps that are asked for.

    It is refused here, where nothing of a finished cell is written over yet.
    """
    done = {phase: _done(cell, phase) for phase in UNITS}
    for phase, unit in UNITS.items():
        trained, was, asked = done[phase], before[unit], cell.recipe[unit]
        if trained is None:
            continue
        if phase == "offline" and done["online"] is not None:
            if trained != asked:
                raise UsageError(
                    f"{out} holds '{cell.name}' fine-tuned from {trained:,} {unit}, and this "
                    f"command says {asked:,}: say --gradient-steps {trained}, or choose another "
                    "--out."
                )
        elif asked < trained or asked != was:
            try:
                check_budget(_agent(cell, phase), trained, was, asked)
            except UsageError as error:
                raise UsageError(f"'{cell.name}' in {out} is kept as it is: {error}") from error


def _done(cell: Cell, phase: Phase) -> int | None:
    """Return the steps at the last evaluation of a cell's phase; None where none is known."""
    run = cell.folder / phase
    if not run.exists():
        return None
    try:
        rows = [row for row in read_metrics(run) if row["phase"] == phase]
    except DataError:  # its resume mends that, or says what is wrong
        return None
    return max((int(row[UNITS[phase]]) for row in rows), default=None)


def _agent(cell: Cell, phase: Phase) -> Any:
    """Return a small agent of a cell's method, to be asked what it is scheduled by."""
    recipe = recipe_of(cell)
    spec = Spec(recipe.run.seeds[:1], 1, 1, (0.0, 1.0), torch.device("cpu"))
    return make_agent(recipe.run.algo, recipe.method, spec, phase)


def _check_tasks(cells: Sequence[Cell], out: Path) -> None:
    """Raise UsageError for cells that couldn't be reported with those that `out` holds."""
    names = {(cell.task, cell.method) for cell in cells}
    others = [cell for cell in load_cells(out) if (cell.task, cell.method) not in names]
    for task in dict.fromkeys(cell.task for cell in cells):
        held = [replace(c, recipe=recipe_of(c).as_dict()) for c in others if c.task == task]
        new = [cell for cell in cells if cell.task == task]
        try:
            check_same_protocol(task, {cell.method: _protocol(cell) for cell in [*held, *new]})
        except UsageError as error:
            raise UsageError(
                f"{error} {out} holds {listed([cell.method for cell in held])} of that task: name "
                "them all in one command to give them other budgets, or choose another --out."
            ) from error


def _protocol(cell: Cell) -> Protocol:
    """Return what a cell shares with others; one that sees no data has its environment named."""
    asked = environment_asked(cell.recipe) if sees_data(recipe_of(cell)) else {}
    return protocol_of(cell.recipe) | asked

"""What came of a comparison's cells: the courses of finished ones, and why others are missing."""

from __future__ import annotations

from collections.abc import Sequence

from baq_cli.errors import DataError
from baq_cli.launch.cells import Cell
from baq_cli.launch.journal import State, read_progress, state_of
from baq_cli.report.document import Failure
from baq_cli.report.method_runs import Course, course_of

PHASES = ("offline", "online")


def outcome(cells: Sequence[Cell]) -> tuple[list[Course], list[Failure]]:
    """Return the courses of finished cells, and what is to be said of the others.

    A cell whose files can't be read counts as missing, and says why.
    """
    courses, failures = [], []
    for cell in cells:
        state, seeds = state_of(cell.folder), tuple(cell.recipe["seeds"])
        if state.stage != "done":
            failures.append(Failure(cell.task, cell.method, _why(cell, state), seeds))
            continue
        folders = [cell.folder / phase for phase in PHASES if (cell.folder / phase).exists()]
        try:
            courses.append(course_of(folders, cell.method, cell.task))
        except DataError as error:
            failures.append(Failure(cell.task, cell.method, str(error), seeds))
    return courses, failures


def _why(cell: Cell, state: State) -> str:
    if state.stage == "failed":
        return state.error or "failed"
    if state.stage == "waiting" and state.error is not None:
        return state.error
    progress = read_progress(cell.folder)
    if progress is None:
        return "not started"
    return f"not finished: {progress.phase}, {progress.done:,} of {progress.total:,}"

"""How far a cell is, as its folder says."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from typing import Any

from baq_cli.errors import DataError
from baq_cli.launch.cells import Cell
from baq_cli.launch.journal import State, read_progress, state_of
from baq_cli.runs.events import Progress
from baq_cli.runs.folder import read_metrics
from baq_cli.units import UNITS


@dataclass(frozen=True)
class Standing:
    """A cell's stage, the counters of its phase, and its last evaluation's mean return.

    `stage` is that of the cell's state, or `lost` when its process is gone without saying so.
    """

    task: str
    method: str
    stage: str
    progress: Progress | None
    last_return: float | None
    where: str | None
    error: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def as_row(self) -> dict[str, Any]:
        """Return what fits in a table of the task's cells."""
        found = self.progress if self.stage not in ("done", "waiting") else None
        going = found if self.stage == "running" else None
        return {
            "method": self.method,
            "stage": self.stage,
            "progress": found and f"{found.done:,} / {found.total:,} {UNITS[found.phase]}",
            "updates/s": going and f"{going.updates_per_second:.0f}",
            "phase's time left": going and f"{going.seconds_left:.0f} s",
            "last return": self.last_return,
            "where": self.where if going else "",
        }


def standing_of(cell: Cell) -> Standing:
    """Return how far a cell is."""
    state, progress = state_of(cell.folder), read_progress(cell.folder)
    return Standing(
        cell.task,
        cell.method,
        _stage(state),
        progress,
        _last_return(cell),
        None if state.host is None else f"process {state.pid} on {state.host}",
        state.error,
    )


def _stage(state: State) -> str:
    """Return the stage; of a process on another machine nothing more can be told."""
    if state.stage != "running" or state.pid is None or state.host != socket.gethostname():
        return state.stage
    try:
        os.kill(state.pid, 0)
    except ProcessLookupError:
        return "lost"
    except PermissionError:
        return state.stage
    return state.stage


def _last_return(cell: Cell) -> float | None:
    """Return the last evaluation's mean over seeds and episodes, of the later phase."""
    for phase in ("online", "offline"):
        try:
            rows = read_metrics(cell.folder / phase)
        except DataError:
            continue
        if rows:
            seeds = len(cell.recipe["seeds"])
            return sum(float(row["return_mean"]) for row in rows[-seeds:]) / seeds
    return None

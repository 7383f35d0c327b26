"""What a dataset alone says of the policies that finished cells have pre-trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints.folder import load_agent_file
from baq_cli.engine.estimation.assessment import assess
from baq_cli.engine.estimation.estimate import STEPS
from baq_cli.errors import DataError
from baq_cli.launch.cells import Cell
from baq_cli.launch.journal import state_of
from baq_cli.runs.events import Event, Note
from baq_cli.runs.files import disk_errors, json_bytes, read_json, replace_file
from baq_cli.runs.folder import ESTIMATE


def estimate_cells(
    cells: Sequence[Cell], data: Mapping[str, Episodes], watch: Callable[[str, Event], None]
) -> None:
    """Estimate the last policies of each finished cell's pre-training, unless that is done.

    The estimate is kept in the run's folder, where reports find it. Methods without an offline
    phase have nothing to estimate.
    """
    for cell in cells:
        run = cell.folder / "offline"
        if state_of(cell.folder).stage != "done" or not run.exists() or _is_kept(run):
            continue
        watch(cell.name, Note(f"{cell.name}: estimating its policies from {cell.task}"))
        found = assess(run, data[cell.task], STEPS).as_dict()
        with disk_errors(f"write the estimate {run / ESTIMATE}"):
            replace_file(run / ESTIMATE, json_bytes(found))


def _is_kept(run: Path) -> bool:
    """Return whether a run's last policies are those of its estimate; a run may have gone on."""
    try:
        kept = read_json(run / ESTIMATE).get("checkpoint_gradient_steps")
    except DataError:  # there is none, or it is damaged: it is made anew
        return False
    return bool(kept == load_agent_file(run).document["gradient_steps"])

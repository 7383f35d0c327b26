"""What a dataset alone says of the policies that finished cells have pre-trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from baq_cli.data.episodes import Episodes
from baq_cli.engine.estimation.assessment import assess
from baq_cli.engine.estimation.estimate import STEPS
from baq_cli.launch.cells import Cell
from baq_cli.launch.journal import read_state
from baq_cli.runs.events import Event, Note
from baq_cli.runs.files import disk_errors, json_bytes, replace_file
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
        if read_state(cell.folder).stage != "done" or not run.exists() or (run / ESTIMATE).exists():
            continue
        watch(cell.name, Note(f"{cell.name}: estimating its policies from {cell.task}"))
        found = assess(run, data[cell.task], STEPS).as_dict()
        with disk_errors(f"write the estimate {run / ESTIMATE}"):
            replace_file(run / ESTIMATE, json_bytes(found))

"""The trackers of a run: made, told what the run directory is told, dropped when they fail."""

from __future__ import annotations

import csv
import heapq
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path

from baq_cli.errors import UsageError
from baq_cli.plain_files import MOST_LOG
from baq_cli.recipes.schema import Recipe, TrackerName
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.files import json_bytes, read_json, replace_file
from baq_cli.runs.log import Log, Row
from baq_cli.runs.trackers.interface import Followed, Kept, Tracker
from baq_cli.runs.trackers.mlflow import Mlflow
from baq_cli.runs.trackers.scalars import Scalars, diagnostic_scalars, metric_scalars
from baq_cli.runs.trackers.tensorboard import TensorBoard
from baq_cli.runs.trackers.wandb import Wandb
from baq_cli.untrusted import read_text

FILE = "trackers.json"
TRACKERS: dict[TrackerName, Callable[[], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
}
SCALARS: dict[Log, Callable[[Iterable[Row]], list[Scalars]]] = {
    "metrics": metric_scalars,
    "diagnostics": diagnostic_scalars,
}


def make_tracker(name: TrackerName) -> Tracker:
    """Make a tracker; its package is imported here and not before.

    Raises UsageError, naming the extra, when that can't be done.
    """
    try:
        with redirect_stdout(sys.stderr):
            return TRACKERS[name]()
    except ImportError as error:
        raise UsageError(
            f"tracking with {name} needs a package that can't be imported: {error}. Install it "
            f"with: pip install 'baq-cli[{name}]'"
        ) from error


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Raise UsageError when a tracker's package is missing, before anything is written."""
    for name in names:
        make_tracker(name)


class Trackers:
    """Those that follow one run; one that fails is told of in a Note and dropped."""

    def __init__(self, recipe: Recipe, folder: Path, observer: Observer):
        self._recipe, self._folder, self._observer = recipe, folder, observer
        self._live = {name: make_tracker(name) for name in recipe.run.track}

    def begin(self) -> None:
        """Begin to follow a run that has just been started in its folder."""
        self._each(self._begin)

    def resume(self) -> None:
        """Go on following a run whose folder was taken back to the checkpoint it resumes from."""
        self._each(self._begin)
        self._each(lambda name, tracker: replay(self._folder, tracker))

    def log(self, log: Log, rows: Iterable[Row]) -> None:
        """Pass on rows that were added to `<log>.csv`."""
        if self._live:
            moments = SCALARS[log](rows)
            self._each(lambda name, tracker: _log(moments, tracker))

    def close(self, done: bool) -> None:
        """End what is followed; a second call has nothing to end."""
        self._each(lambda name, tracker: tracker.close(done))
        self._live = {}

    def _begin(self, name: TrackerName, tracker: Tracker) -> None:
        manifest = read_json(self._folder / "manifest.json")
        path = self._folder / FILE
        kept: dict[str, Kept] = read_json(path) if path.exists() else {}
        followed = Followed(
            self._folder, self._recipe.as_dict(), manifest, dict(kept.get(name, {}))
        )
        kept[name] = tracker.begin(followed)
        replace_file(path, json_bytes(kept))

    def _each(self, call: Callable[[TrackerName, Tracker], None]) -> None:
        """Call every tracker; what one prints goes to stderr, and its exception ends it alone."""
        for name, tracker in list(self._live.items()):
            try:
                with redirect_stdout(sys.stderr):
                    call(name, tracker)
            except Exception as error:
                del self._live[name]
                what = " ".join(f"{type(error).__name__}: {error}".split())
                self._observer(Note(f"{name} no longer follows this run: {what}"))
                with suppress(Exception), redirect_stdout(sys.stderr):
                    tracker.close(False)


def _log(moments: Iterable[Scalars], tracker: Tracker) -> None:
    for moment in moments:
        tracker.log(moment)


def replay(folder: Path, tracker: Tracker) -> None:
    """Log everything that a run's folder holds, in the order in which it was written.

    Diagnostics are written before the evaluation at the same gradient step.
    """
    found = []
    for log in ("diagnostics", "metrics"):
        text = read_text(folder / f"{log}.csv", MOST_LOG)
        found.append(SCALARS[log](csv.DictReader(io.StringIO(text, newline=""))))
    _log(heapq.merge(*found, key=lambda moment: moment.gradient_steps), tracker)

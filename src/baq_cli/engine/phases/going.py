"""How a phase gets on: its pace, what is left of it, and whether the cores are its own."""

from __future__ import annotations

from baq_cli.engine.phases.busy import Busy
from baq_cli.engine.phases.outlook import Outlook
from baq_cli.engine.phases.timing import Laps, Pace
from baq_cli.runs.events import Note, Observer, Progress
from baq_cli.units import Phase


class Going:
    """Reports twice a second how a phase gets on, at the rate since this session's first update.

    So neither what comes before updates (a start, steps without any) nor pauses count in a rate.
    """

    def __init__(
        self, phase: Phase, laps: Laps, steps: int, outlook: Outlook, busy: Busy, tell: Observer
    ):
        self._phase, self._laps, self._tell = phase, laps, tell
        self._outlook, self._busy = outlook, busy
        self._updates, self._first = False, 0
        self.pace = Pace(0, steps, laps)

    def tick(self, done: int, total: int, steps: int, taken_over: float | None) -> None:
        """Report `done` of `total`, and the learner's gradient steps, if it is time to."""
        if self.pace.is_due(done >= total):
            self._report(done, total, steps, taken_over)
        if not self._updates and steps > self.pace.steps:
            self._updates, self._first = True, steps - self.pace.steps
            self.pace.count_from(done, steps)

    def _report(self, done: int, total: int, steps: int, taken_over: float | None) -> None:
        made, rate, left = self.pace.at(done, total, steps)
        left = self._outlook.left(done, total, left, self._laps)
        if self._updates:
            self._outlook.say(done, total, left, self.pace.counted, self._tell)
        said = self._busy.look(steps, self._laps.seconds.get("update", 0.0))
        if said is not None:
            self._tell(Note(said))
        counts = self._first + made, rate, left
        self._tell(Progress(self._phase, done, total, *counts, taken_over=taken_over))

"""Where the time of a run goes, and how fast it gets on."""

from __future__ import annotations

import time

REPORT_SECONDS = 0.5
PAUSES = ("evaluate", "write")
"""What a phase stops for at an interval."""


class Laps:
    """Seconds by what they were spent on, from one call to the next.

    On a CUDA device work is counted where the host waits for it. `earlier` is what the phase took
    before this session.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.earlier = 0.0
        self._started = time.monotonic()
        self._last = time.perf_counter()

    @property
    def in_all(self) -> float:
        """The seconds that the phase has taken, over all its sessions."""
        return self.earlier + time.monotonic() - self._started

    @property
    def paused(self) -> float:
        """The seconds of this session's pauses."""
        return sum(self.seconds.get(name, 0.0) for name in PAUSES)

    @property
    def evaluated_share(self) -> float | None:
        """Evaluations' share of this session's seconds, 0 to 1; None of a session without any."""
        spent = sum(self.seconds.values())
        return self.seconds.get("evaluate", 0.0) / spent if spent else None

    def lap(self, name: str) -> None:
        """Count the time since the last lap as spent on `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self.counts[name] = self.counts.get(name, 0) + 1
        self._last = now


class Pace:
    """How fast a phase, or a stage of it, gets on: said twice a second.

    `done` counts what the phase is counted in, `steps` its gradient steps; rates are over the time
    since they were last counted from, without the pauses of `laps`.
    """

    def __init__(self, done: int, steps: int, laps: Laps | None = None):
        self._said = time.monotonic()
        self._laps = laps
        self.count_from(done, steps)

    def count_from(self, done: int, steps: int) -> None:
        """Let the rates count from here."""
        self._done, self.steps, self._since = done, steps, self._clock()

    @property
    def counted(self) -> float:
        """The seconds over which rates are, without pauses."""
        return max(self._clock() - self._since, 1e-9)

    def _clock(self) -> float:
        """Return the seconds that went by, but for pauses."""
        return time.monotonic() - (0.0 if self._laps is None else self._laps.paused)

    def is_due(self, at_end: bool = False) -> bool:
        """Tell whether it is time to say something, as it is at the end."""
        now = time.monotonic()
        if now - self._said < REPORT_SECONDS and not at_end:
            return False
        self._said = now
        return True

    def at(self, done: int, total: int, steps: int) -> tuple[int, float, float]:
        """Return the gradient steps made, how many a second, and the seconds left to `total`."""
        elapsed = self.counted
        made = steps - self.steps
        left = (total - done) * elapsed / max(done - self._done, 1)
        return made, made / elapsed, left

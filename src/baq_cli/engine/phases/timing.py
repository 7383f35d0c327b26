"""Where the time of a run goes, and how fast it gets on."""

from __future__ import annotations

import time

REPORT_SECONDS = 0.5


class Laps:
    """Seconds by what they were spent on, from one call to the next.

    On a CUDA device work is counted where the host waits for it. `earlier` is what the phase took
    before this session.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.earlier = 0.0
        self._started = time.monotonic()
        self._last = time.perf_counter()

    @property
    def in_all(self) -> float:
        """The seconds that the phase has taken, over all its sessions."""
        return self.earlier + time.monotonic() - self._started

    def lap(self, name: str) -> None:
        """Count the time since the last lap as spent on `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


class Pace:
    """How fast a phase, or a stage of it, gets on: said twice a second.

    `done` counts what the phase is counted in, `steps` its gradient steps; rates are over the time
    since they were last counted from.
    """

    def __init__(self, done: int, steps: int):
        self._said = time.monotonic()
        self.count_from(done, steps)

    def count_from(self, done: int, steps: int) -> None:
        """Let the rates count from here."""
        self._done, self._steps, self._since = done, steps, time.monotonic()

    def is_due(self, at_end: bool = False) -> bool:
        """Tell whether it is time to say something, as it is at the end."""
        now = time.monotonic()
        if now - self._said < REPORT_SECONDS and not at_end:
            return False
        self._said = now
        return True

    def at(self, done: int, total: int, steps: int) -> tuple[int, float, float]:
        """Return the gradient steps made, how many a second, and the seconds left to `total`."""
        elapsed = max(time.monotonic() - self._since, 1e-9)
        made = steps - self._steps
        left = (total - done) * elapsed / max(done - self._done, 1)
        return made, made / elapsed, left

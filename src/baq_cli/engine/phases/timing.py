"""Where the time of a run goes."""

from __future__ import annotations

import time


class Laps:
    """Seconds by what they were spent on, from one call to the next.

    On a CUDA device work is counted where the host waits for it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count the time since the last lap as spent on `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

"""Deadlines on the wall clock: waiting for each, and how late what is due at it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SPIN_NS = 300_000
"""How long before a deadline sleeping gives way to looking at the clock: a sleep may end late."""
SLICE_NS = 20_000_000
"""The longest sleep, after which is asked whether to go on."""


class Clock:
    """Deadlines `1 / hz` seconds apart, the first at once.

    Where one is late by more than half a period, the next is a whole period after it, so that no
    two actions come in a burst.
    """

    def __init__(
        self,
        hz: float,
        now: Callable[[], int] = time.perf_counter_ns,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.period_ns = round(1e9 / hz)
        self._now, self._sleep = now, sleep
        self._due, self._begins = self._now(), True

    def restart(self) -> None:
        """Let the next deadline be now where it is over, as in an episode that begins."""
        self._begins = True

    def wait(self, goes_on: Callable[[], bool]) -> int | None:
        """Wait for the next deadline; return by how many nanoseconds it is over.

        None as soon as `goes_on` says no.
        """
        now = self._now()
        due = max(self._due, now) if self._begins else self._due
        self._begins = False
        while True:
            if not goes_on():
                return None
            left = due - now - SPIN_NS
            if left <= 0:
                break
            self._sleep(min(left, SLICE_NS) / 1e9)
            now = self._now()
        while now < due:
            now = self._now()
        late = now - due
        self._due = (due if 2 * late < self.period_ns else now) + self.period_ns
        return late


@dataclass(frozen=True)
class Lateness:
    """What is said of the deadlines of a run, in milliseconds: the first of an episode has none."""

    deadlines: int
    missed: int
    worst_ms: float
    p99_ms: float

    @classmethod
    def of(cls, late_ns: Array, tolerance_ms: float) -> Lateness:
        """Return it for deadlines that were late by so many nanoseconds, `[N]`."""
        if not len(late_ns):
            return cls(0, 0, 0.0, 0.0)
        late = np.asarray(late_ns) / 1e6
        p99 = float(np.percentile(late, 99))
        return cls(len(late), int((late > tolerance_ms).sum()), float(late.max()), p99)

    @property
    def share(self) -> float:
        """The share of deadlines that were missed."""
        return self.missed / self.deadlines if self.deadlines else 0.0

    def __str__(self) -> str:
        return (
            f"{self.missed:,} of {self.deadlines:,} deadlines missed ({self.share:.2%}), worst "
            f"{self.worst_ms:.2f} ms late, 99th percentile {self.p99_ms:.2f} ms"
        )

    def facts(self) -> dict[str, Any]:
        """Return it as a manifest has it."""
        return {
            "deadlines": self.deadlines,
            "missed": self.missed,
            "missed_share": round(self.share, 6),
            "worst_ms": round(self.worst_ms, 3),
            "p99_ms": round(self.p99_ms, 3),
        }

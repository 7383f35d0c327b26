"""An x axis that both phases share, each with its own scale, the hand-over between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from baq_cli.report.curves import Array, Curve
from baq_cli.units import Phase

OFFLINE_SHARE = 0.4
"""Part of the width that the offline phase gets when there are both phases."""
PER_CENT = "per cent"
"""What a phase counts whose curves count different things: each curve's share of its own budget."""
COUNTED = {
    "gradient_steps": "gradient steps",
    "env_steps": "environment steps",
    "evaluations": "evaluations",
    PER_CENT: "% of own budget",
}


@dataclass(frozen=True)
class TwoPartAxis:
    """An x axis from 0 to 1 that the phases share.

    `ends` holds each phase's last counter, `units` what it counts.
    """

    ends: dict[Phase, int]
    units: dict[Phase, str]

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> TwoPartAxis:
        ends: dict[Phase, int] = {}
        units: dict[Phase, str] = {}
        for curve in curves:
            ends[curve.phase] = max(ends.get(curve.phase, 1), int(curve.counters[-1]))
            if units.setdefault(curve.phase, curve.unit) != curve.unit:
                units[curve.phase] = PER_CENT
        ends |= {phase: 100 for phase, unit in units.items() if unit == PER_CENT}
        return cls(ends, units)

    @property
    def handover(self) -> float | None:
        """Where the hand-over is; None with one phase alone."""
        return OFFLINE_SHARE if len(self.ends) == 2 else None

    def span(self, phase: Phase) -> tuple[float, float]:
        """Return where a phase begins and ends."""
        if self.handover is None:
            return 0.0, 1.0
        return (0.0, self.handover) if phase == "offline" else (self.handover, 1.0)

    def place(self, phase: Phase, counters: Array) -> Array:
        """Return where a phase's counters `[T]` lie."""
        begin, end = self.span(phase)
        return begin + (end - begin) * (counters / self.ends[phase])  # 1.0 at the end

    def positions(self, curve: Curve) -> Array:
        """Return where a curve's evaluations `[T]` lie."""
        counters = curve.counters.astype(np.float64)
        if self.units[curve.phase] == PER_CENT:
            counters *= 100 / max(counters[-1], 1)
        return self.place(curve.phase, counters)

    def ticks(self, phase: Phase, most: int | None = None) -> list[tuple[float, str]]:
        """Return a phase's ticks and their labels; the offline ones keep clear of online's 0.

        There are about as many as the width of a page holds; with `most` at most so many parts,
        on axes where two offline labels have no room between 0 and the hand-over.
        """
        from matplotlib.ticker import EngFormatter, MaxNLocator

        clear_until = 0.85 if most is None else 0.4
        most = most or (6 if not self.handover else 4 if phase == "offline" else 5)
        locator = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=True)
        counters = np.asarray(locator.tick_values(0, self.ends[phase]))
        counters = counters[(counters >= 0) & (counters <= self.ends[phase])]
        if self.handover and phase == "offline":
            clear = counters < clear_until * self.ends[phase]
            counters = counters[clear | (counters == self.ends[phase])]
        label = EngFormatter(sep="")
        places = self.place(phase, counters).tolist()
        return [(x, label(counter)) for x, counter in zip(places, counters.tolist(), strict=True)]

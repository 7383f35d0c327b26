"""Which scores a figure of both phases shows: all that came online, and what led there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from baq_cli.report.curves import Array, Curve
from baq_cli.report.summary import mean_over_seeds, std_over_seeds
from baq_cli.report.wording import fixed
from baq_cli.units import decimals

MOST_TIMES = 2
"""Where all scores take more than this many times the room of those in sight, some are not."""
MARGIN = 0.05
"""Of what is in sight, left free at either end."""


@dataclass(frozen=True)
class Sight:
    """A figure's lowest and highest score, and those of all curves: further at one end or both."""

    low: float
    high: float
    lowest: float
    highest: float

    @property
    def down(self) -> str:
        """How far curves go below the figure, as text, which is empty where they don't."""
        return _arrow("↓", self.lowest) if self.lowest < self.low else ""

    @property
    def up(self) -> str:
        """How far curves go above the figure, as text, which is empty where they don't."""
        return _arrow("↑", self.highest) if self.highest > self.high else ""


def in_sight(
    curves: Iterable[Curve], dataset_mean: float | None = None, seeds: bool = False
) -> Sight | None:
    """Return which scores a figure shows where it would show little if it showed all, else None.

    A first evaluation offline may lie so far from every other that what happens online is one line.
    In sight are the second half of each offline curve and online curves whole, ± one standard
    deviation, with `seeds` each of these too, and the dataset's mean. A figure of one phase shows
    all.
    """
    every, kept = [], [] if dataset_mean is None else [np.asarray(dataset_mean)]
    phases = set()
    for curve in curves:
        phases.add(curve.phase)
        scores = _bands(curve.returns)
        if seeds:
            scores = np.concatenate([scores, curve.returns])
        every.append(scores)
        kept.append(scores[:, scores.shape[1] // 2 :] if curve.phase == "offline" else scores)
    if len(phases) < 2:
        return None
    low, high = _ends(kept)
    lowest, highest = _ends([*every, *kept])
    if highest - lowest <= MOST_TIMES * (high - low):
        return None
    margin = MARGIN * (high - low)
    return Sight(low - margin, high + margin, lowest, highest)


def _arrow(way: str, score: float) -> str:
    return f"{way} {fixed(score, decimals([score]))}"


def _bands(returns: Array) -> Array:
    """Return the two edges of a curve's band, `[2, T]`; of one seed they are its scores."""
    mean, std = mean_over_seeds(returns), np.nan_to_num(std_over_seeds(returns))
    return np.array([mean - std, mean + std])


def _ends(parts: Iterable[Array]) -> tuple[float, float]:
    values = np.concatenate([np.ravel(part) for part in parts])
    return float(np.nanmin(values)), float(np.nanmax(values))

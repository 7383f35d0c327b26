"""A run in four numbers. Every statistic that `baq` prints is defined here, and only here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from baq_cli.engine.events import Phase
from baq_cli.report.curves import Array, Curve, PhaseCurves

# -- over seeds


def mean_over_seeds(values: Array) -> Array:
    """Return the mean over the first axis, `[S, ...]` to `[...]`, of the seeds that have a value.

    NaN marks a seed without one; the mean of none is NaN.
    """
    has = ~np.isnan(values)
    total = np.where(has, values, 0.0).sum(axis=0)
    count = has.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def std_over_seeds(values: Array) -> Array:
    """Return the sample standard deviation over the first axis (divisor: seeds minus one).

    Shapes and NaN as in `mean_over_seeds`; NaN where fewer than two seeds have a value.
    """
    has = ~np.isnan(values)
    count = has.sum(axis=0)
    squares = np.where(has, (values - mean_over_seeds(values)) ** 2, 0.0).sum(axis=0)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)


# -- per seed: a curve of S seeds to `[S]`, in units of raw return


def offline_score(curve: Curve) -> Array:
    """Return the last offline evaluation, `[S]`: what pre-training ended with."""
    return curve.returns[:, -1]


def handover_score(curve: Curve) -> Array:
    """Return the online evaluation at env_steps 0, `[S]`: before any environment step or update.

    NaN when that evaluation is missing.
    """
    if curve.counters[0] != 0:
        return np.full(len(curve.seeds), np.nan)
    return curve.returns[:, 0]


def deepest_dip(curve: Curve) -> Array:
    """Return the hand-over score minus the lowest early online evaluation, `[S]`, at least zero.

    Early: after env_steps 0, and within the first quarter of the env_steps of the last online
    evaluation; when none falls there, the first evaluation after 0. The lowest is taken for each
    seed by itself. NaN when there is no hand-over score or no evaluation after it.
    """
    handover = handover_score(curve)
    after = curve.counters > 0
    if not after.any():
        return np.full(len(curve.seeds), np.nan)
    early = after & (4 * curve.counters <= curve.counters[-1])
    if not early.any():
        early = curve.counters == curve.counters[after][0]
    return np.maximum(handover - curve.returns[:, early].min(axis=1), 0.0)


def final_score(curve: Curve) -> Array:
    """Return the last online evaluation, `[S]`; the last, not the best."""
    return curve.returns[:, -1]


@dataclass(frozen=True)
class Definition:
    """A statistic: its heading in tables, the phase it is read from, and its value for each seed"""

    heading: str
    phase: Phase
    per_seed: Callable[[Curve], Array]


DEFINITIONS = {
    "offline": Definition("offline", "offline", offline_score),
    "handover": Definition("at hand-over", "online", handover_score),
    "deepest_dip": Definition("deepest dip", "online", deepest_dip),
    "final": Definition("final", "online", final_score),
}


# -- a run


@dataclass(frozen=True, eq=False)
class Statistic:
    """One number a seed, `values [S]`, with NaN where a seed doesn't have it."""

    values: Array

    @property
    def mean(self) -> float:
        return float(mean_over_seeds(self.values))

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; NaN with fewer than two."""
        return float(std_over_seeds(self.values))

    @property
    def count(self) -> int:
        """How many seeds have a value."""
        return int((~np.isnan(self.values)).sum())


@dataclass(frozen=True, eq=False)
class RunSummary:
    """A run of S seeds in numbers.

    `statistics` has an entry for each of `DEFINITIONS`; `gradient_steps` and `env_steps` are the
    counters of the last offline and the last online evaluation, None where there is none.
    """

    label: str
    environment: str
    dataset: str | None
    seeds: tuple[int, ...]
    gradient_steps: int | None
    env_steps: int | None
    statistics: dict[str, Statistic]

    def __getitem__(self, name: str) -> Statistic:
        return self.statistics[name]


def summarise(
    label: str, curves: PhaseCurves, environment: str, dataset: str | None = None
) -> RunSummary:
    """Return a method's summary on an environment, from its curves."""
    seeds = tuple(dict.fromkeys(seed for curve in curves.values() for seed in curve.seeds))
    last = {phase: int(curve.counters[-1]) for phase, curve in curves.items()}
    statistics = {
        name: Statistic(_at_seeds(definition, curves.get(definition.phase), seeds))
        for name, definition in DEFINITIONS.items()
    }
    return RunSummary(
        label, environment, dataset, seeds, last.get("offline"), last.get("online"), statistics
    )


def _at_seeds(definition: Definition, curve: Curve | None, seeds: tuple[int, ...]) -> Array:
    """Return a statistic for each of `seeds`, NaN for those that the curve doesn't have."""
    values = np.full(len(seeds), np.nan)
    if curve is not None:
        values[[seeds.index(seed) for seed in curve.seeds]] = definition.per_seed(curve)
    return values

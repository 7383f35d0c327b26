"""A run in numbers: each statistic of `definitions.py` over the run's seeds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from baq_cli.bootstrap import Interval, interval
from baq_cli.report import aggregates
from baq_cli.report.curves import Array, Curve, PhaseCurves
from baq_cli.report.definitions import DEFINITIONS, UNKNOWN, Definition, Goals

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


# -- a run of S seeds


@dataclass(frozen=True, eq=False)
class Statistic:
    """One number a seed, `values [S]`: NaN where it isn't known, infinity where it never came.

    Where a seed never got there, the mean, its spread and its interval are NaN: the mean of the
    others alone would favour the method that fails more often. `never` says which did.
    """

    values: Array

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN with none, or with one that never got there."""
        return np.nan if self.never.any() else float(mean_over_seeds(self.values))

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; NaN with fewer than two, or where the mean is."""
        return np.nan if self.never.any() else float(std_over_seeds(self.values))

    @property
    def count(self) -> int:
        """How many seeds were measured, those that never got there among them."""
        return int((~np.isnan(self.values)).sum())

    @property
    def never(self) -> npt.NDArray[np.bool_]:
        """Which seeds never got there, `[S]`."""
        return np.isinf(self.values)

    @cached_property
    def interval(self) -> Interval:
        """The mean with its 95 % bootstrap interval over seeds; NaN bounds with fewer than two."""
        if self.never.any():
            return Interval(np.nan, np.nan, np.nan)
        return interval([self.values], aggregates.mean)

    @property
    def low(self) -> float:
        return self.interval.low

    @property
    def high(self) -> float:
        return self.interval.high


@dataclass(frozen=True, eq=False)
class RunSummary:
    """A run of S seeds in numbers.

    `statistics` has an entry for each of `DEFINITIONS`; `gradient_steps` and `env_steps` are the
    counters of the last offline and the last online evaluation, None where there is none.
    `estimated` is what no episode was played for; then `environment` may be None.
    """

    label: str
    environment: str | None
    dataset: str | None
    seeds: tuple[int, ...]
    gradient_steps: int | None
    env_steps: int | None
    statistics: dict[str, Statistic]
    estimated: bool = False

    def __getitem__(self, name: str) -> Statistic:
        return self.statistics[name]


def summarise(
    label: str,
    curves: PhaseCurves,
    environment: str | None,
    dataset: str | None = None,
    goals: Goals = UNKNOWN,
) -> RunSummary:
    """Return a method's summary on an environment, from its curves.

    Without `goals`, what is measured against them is unknown.
    """
    seeds = tuple(dict.fromkeys(seed for curve in curves.values() for seed in curve.seeds))
    last = {phase: int(curve.counters[-1]) for phase, curve in curves.items()}
    statistics = {
        name: Statistic(_at_seeds(definition, curves.get(definition.phase), goals, seeds))
        for name, definition in DEFINITIONS.items()
    }
    counted = last.get("offline"), last.get("online")
    estimated = any(curve.estimated for curve in curves.values())
    return RunSummary(label, environment, dataset, seeds, *counted, statistics, estimated)


def _at_seeds(
    definition: Definition, curve: Curve | None, goals: Goals, seeds: tuple[int, ...]
) -> Array:
    """Return a statistic for each of `seeds`, NaN for those that the curve doesn't have."""
    values = np.full(len(seeds), np.nan)
    if curve is not None:
        values[[seeds.index(seed) for seed in curve.seeds]] = definition.per_seed(curve, goals)
    return values

"""Methods over many tasks and seeds. Every aggregate that `baq` prints is defined here.

Scores of different tasks must be in one unit before they meet here: normalised scores, or raw
returns of a single task. Definitions follow Agarwal et al. 2021, "Deep RL at the edge of the
statistical precipice" (arXiv 2108.13264), section 4, unless said otherwise. A task without a run,
or a NaN among the scores, makes an aggregate NaN: nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from baq_cli.bootstrap import (
    LEVEL,
    RESAMPLES,
    Aggregate,
    Band,
    Interval,
    Strata,
    bounds,
    can_resample,
    multiplicities,
    resample,
    scored_runs,
)
from baq_cli.errors import DataError
from baq_cli.report.curves import Array, Curve

TRIMMED = 0.25
"""Share of the runs that the IQM leaves out at either end."""
TARGET = 100.0
"""The score that the optimality gap is measured against: the reference of normalised scores."""
MOST_POINTS = 101
"""Profiles and efficiency curves have no more points than these."""
SHARE = "share of the online budget"


# -- one number a method: one array `[..., n]` a task to `[...]`


def mean(strata: Strata) -> Array:
    """Return the mean over tasks of each task's mean score: every task counts the same."""
    return _task_means(strata).mean(axis=-1)


def median(strata: Strata) -> Array:
    """Return the median over tasks of each task's mean score.

    It says nothing of the tasks above and below the middle; it is given because papers give it.
    """
    middle: Array = np.median(_task_means(strata), axis=-1)
    return middle


def iqm(strata: Strata) -> Array:
    """Return the interquartile mean: the mean of the middle half of all runs pooled.

    Of n runs, int(n / 4) are left out at either end, as SciPy's `trim_mean` does. Every run counts
    the same, so a task with more runs weighs more.
    """
    pooled = np.sort(_pooled(strata), axis=-1)  # NaN goes last
    runs = pooled.shape[-1]
    cut = int(TRIMMED * runs)
    middle = pooled[..., cut : runs - cut].mean(axis=-1)
    return np.where(np.isnan(pooled[..., -1]), np.nan, middle)


def middle_run(strata: Strata) -> Array:
    """Return the median of all runs pooled; every run counts the same."""
    middle: Array = np.median(_pooled(strata), axis=-1)
    return middle


def optimality_gap(strata: Strata, target: float = TARGET) -> Array:
    """Return by how much runs fall short of a target: target − mean of min(score, target).

    In units of score, at least zero, lower is better; what lies above the target earns nothing.
    All runs are pooled, as for the IQM.
    """
    return target - np.minimum(_pooled(strata), target).mean(axis=-1)


AGGREGATES: dict[str, Aggregate] = {
    "mean": mean,
    "median": median,
    "iqm": iqm,
    "optimality_gap": optimality_gap,
}


def _task_means(strata: Strata) -> Array:
    """Return each task's mean, `[..., tasks]`; NaN for a task without a run."""
    means = [scores.mean(axis=-1) if scores.shape[-1] else _unknown(scores) for scores in strata]
    return np.stack(means, axis=-1) if means else np.array([np.nan])


def _pooled(strata: Strata) -> Array:
    """Return the runs of all tasks, `[..., runs]`; NaN when a task has none."""
    if not strata:
        return np.array([np.nan])
    if not all(scores.shape[-1] for scores in strata):
        return _unknown(strata[0])[..., None]
    return np.concatenate(strata, axis=-1)


def _unknown(scores: Array) -> Array:
    return np.full(scores.shape[:-1], np.nan)


# -- one method against another


def probability_of_improvement(
    x: Strata, y: Strata, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Return how probably a run of x beats one of y on the same task, and its interval.

    The mean over tasks of P(X > Y) + P(X = Y) / 2 over all pairs of their runs, that is the
    Mann-Whitney U over n·m. Tasks are paired by their order; runs of x and y are drawn again
    independently. Bounds and NaN as in `interval`. Raises DataError when x and y differ in tasks.
    """
    if len(x) != len(y):
        raise DataError(
            f"the probability of improvement is paired by task, but one method has {len(x)} tasks "
            f"and the other {len(y)}: give the same tasks of both, in the same order"
        )
    runs_x, runs_y = scored_runs(x), scored_runs(y)
    wins = [_wins(one, other) for one, other in zip(runs_x, runs_y, strict=True)]
    if not wins or not all(won.size for won in wins):
        return Interval(np.nan, np.nan, np.nan)
    value = float(np.mean([won.mean() for won in wins]))
    if not (can_resample(runs_x) and can_resample(runs_y)):
        return Interval(value, np.nan, np.nan)
    drawn_x, drawn_y = (
        resample(runs_x, resamples, [seed, 0]),
        resample(runs_y, resamples, [seed, 1]),
    )
    samples = [
        ((multiplicities(i) @ won) * multiplicities(j)).sum(axis=1) / won.size
        for won, i, j in zip(wins, drawn_x, drawn_y, strict=True)
    ]
    low, high = bounds(np.mean(samples, axis=0), level)
    return Interval(value, float(low), float(high))


def _wins(x: Array, y: Array) -> Array:
    """Return 1 where the run of x is better, ½ where both are the same: `[n]`, `[m]` to `[n, m]`"""
    return (x[:, None] > y) + 0.5 * (x[:, None] == y)


def improvements(scores: Mapping[str, Strata], seed: int = 0) -> dict[tuple[str, str], Interval]:
    """Return the probability of improvement of every ordered pair of methods, `(x, y)`.

    P(y over x) is given as 1 − P(x over y), bounds too, so the two never disagree. The order of
    methods changes no number.
    """
    names = list(scores)
    found: dict[tuple[str, str], Interval] = {}
    for i, x in enumerate(names):
        for y in names[i + 1 :]:
            first, second = sorted((x, y))
            won = probability_of_improvement(scores[first], scores[second], seed=seed)
            lost = Interval(1 - won.value, 1 - won.high, 1 - won.low)
            found[x, y], found[y, x] = (won, lost) if x == first else (lost, won)
    return found


# -- many numbers a method


def performance_profile(
    strata: Strata,
    thresholds: Array,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Band:
    """Return the share of all runs whose score lies above each threshold, `[K]`, between 0 and 1.

    Runs of all tasks are pooled. The intervals are pointwise: each holds at its threshold, they
    don't hold together. NaN as in `interval`.
    """
    runs = scored_runs(strata)
    unknown = np.full(len(thresholds), np.nan)
    if not runs or not all(map(len, runs)):
        return Band(unknown, unknown, unknown)
    above = (np.concatenate(runs)[:, None] > thresholds).astype(np.float64)
    value = above.mean(axis=0)
    if not can_resample(runs):
        return Band(value, unknown, unknown)
    drawn = [multiplicities(index) for index in resample(runs, resamples, seed)]
    low, high = bounds(np.concatenate(drawn, axis=1) @ above / len(above), level)
    return Band(value, low, high)


def profile_thresholds(methods: Iterable[Strata], count: int = MOST_POINTS) -> Array:
    """Return evenly spaced thresholds from the lowest to the highest score of all methods.

    Half a unit to either side when all scores are the same; none when there is no score.
    """
    runs = [scores for strata in methods for scores in scored_runs(strata)]
    scores = np.concatenate(runs) if runs else np.empty(0)
    if not scores.size:
        return np.empty(0)
    low, high = scores.min(), scores.max()
    return np.linspace(low, high, count) if high > low else np.linspace(low - 0.5, low + 0.5, count)


def efficiency(
    strata: Strata, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Band:
    """Return the IQM over tasks and runs at each of T evaluations, with pointwise intervals.

    Strata are curves on a common grid, `[n, T]` a task (see `common_grid`). Whole curves are drawn
    again: a run is the same run at every evaluation. A curve with a NaN is dropped; NaN as in
    `interval`.
    """
    runs = scored_runs(strata)
    points = runs[0].shape[1] if runs else 0
    value = np.array([iqm([curves[:, t] for curves in runs]) for t in range(points)])
    if not can_resample(runs):
        return Band(value, np.full(points, np.nan), np.full(points, np.nan))
    starts = np.cumsum([0, *map(len, runs[:-1])])
    drawn = zip(resample(runs, resamples, seed), starts, strict=True)
    index = np.concatenate([of_task + start for of_task, start in drawn], axis=1)
    pooled, low, high = np.concatenate(runs), np.empty(points), np.empty(points)
    for t in range(points):  # one at a time: all at once take T times the memory
        low[t], high[t] = bounds(iqm([pooled[:, t][index]]), level)
    return Band(value, low, high)


# -- a common grid


@dataclass(frozen=True, eq=False)
class Grid:
    """Points `x [T]` that curves of several methods and tasks share, and what they count.

    `label` is the curves' unit, or that x are shares of the online budget.
    """

    x: Array
    label: str

    def scores(self, curve: Curve) -> Array:
        """Return a curve's scores at the grid's points, `[S, T]`: the last evaluation so far.

        Between two evaluations nothing was measured. A straight line would take part of its value
        from an evaluation that is still to come, so a method would seem to rise before it did,
        and a drop would seem gentle. Carried forward, every value is one that was measured.
        NaN before the first evaluation.
        """
        at = np.searchsorted(_positions(curve, self.label), self.x, side="right") - 1
        return np.where(at < 0, np.nan, curve.returns[:, at])


def common_grid(curves: Sequence[Curve]) -> Grid:
    """Return the points at which one or more curves of different tasks and methods are compared.

    In the curves' own counters when all have the same unit and end at the same one; else in
    shares of each curve's last counter. The points are those of any curve's evaluations from where
    all have begun, thinned evenly to 101.
    """
    same = len({(curve.unit, int(curve.counters[-1])) for curve in curves}) == 1
    label = curves[0].unit if same else SHARE
    positions = [_positions(curve, label) for curve in curves]
    x = np.unique(np.concatenate(positions))
    x = x[x >= max(float(places[0]) for places in positions)]
    if len(x) > MOST_POINTS:
        x = x[np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(np.int64)]
    return Grid(x, label)


def _positions(curve: Curve, label: str) -> Array:
    whole = max(int(curve.counters[-1]), 1) if label == SHARE else 1
    return curve.counters / whole

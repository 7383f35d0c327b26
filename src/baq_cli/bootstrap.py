"""Intervals by the stratified bootstrap: runs are drawn again within their task.

A method's scores are strata, one array a task. A resample draws as many runs of each task as the
task has, with replacement; the interval is what the middle `level` of a statistic's values over
resamples spans. Source: Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice"
(arXiv 2108.13264), section 4.1; Efron 1979 for the bootstrap itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baq_cli.errors import DataError

RESAMPLES = 2000
LEVEL = 0.95
BLOCK_NUMBERS = 2**22
"""Numbers that a mean's resamples hold at a time."""
FEWEST_RUNS = 2
"""An interval needs this many runs of every task: one run, drawn again, is always itself."""

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Strata = Sequence[Array]
"""A method's scores: one array a task, `[n]` with one score a run. Tasks may differ in n."""
Aggregate = Callable[[Strata], Array]
"""A number of a method: one array `[..., n]` a task to `[...]`; leading axes are resamples."""


@dataclass(frozen=True)
class Interval:
    """A number, and the bounds of its interval; NaN where it isn't known."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Band:
    """Numbers `value [T]`, and the bounds of each one's interval; NaN where it isn't known."""

    value: Array
    low: Array
    high: Array


def interval(
    strata: Strata,
    statistic: Aggregate,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Return a statistic of strata with its stratified percentile bootstrap interval.

    NaN runs are dropped before. The bounds are NaN when a task has fewer than two runs, the value
    too when it has none. The same scores, seed and order of tasks give the same interval; the
    order of runs doesn't matter. Raises DataError for an infinite score.
    """
    runs = scored_runs(strata)
    value = float(statistic(runs))
    if not can_resample(runs):
        return Interval(value, np.nan, np.nan)
    drawn = zip(runs, resample(runs, resamples, seed), strict=True)
    low, high = bounds(statistic([scores[index] for scores, index in drawn]), level)
    return Interval(value, float(low), float(high))


def mean_interval(values: Array, level: float = LEVEL, seed: int = 0) -> Interval:
    """Return the mean of values `[n]` with what `interval` gives for it, in little memory.

    A dataset may have many thousands of episodes.
    """
    (scores,) = scored_runs([values])
    if not can_resample([scores]):
        return Interval(float(scores.mean()) if len(scores) else np.nan, np.nan, np.nan)
    low, high = bounds(resampled_means(scores, np.random.default_rng(seed)), level)
    return Interval(float(scores.mean()), float(low), float(high))


# -- parts of a bootstrap


def resampled_means(scores: Array, rng: np.random.Generator) -> Array:
    """Return the means of resamples of values `[n]`, `[RESAMPLES]`, a block of them at a time."""
    n = len(scores)
    rows = max(1, BLOCK_NUMBERS // n)
    return np.concatenate(
        [
            scores[rng.integers(n, size=(min(rows, RESAMPLES - start), n))].mean(-1)
            for start in range(0, RESAMPLES, rows)
        ]
    )


def scored_runs(strata: Strata) -> list[Array]:
    """Return each task's runs that have a score: `[n]`, or `[n, T]` with a score at every point.

    They are put in order of their scores, so that a resample doesn't depend on the order in which
    runs are listed. Raises DataError for an infinite score.
    """
    return [_scored(np.asarray(scores, dtype=np.float64)) for scores in strata]


def _scored(scores: Array) -> Array:
    rows = scores[:, None] if scores.ndim == 1 else scores
    if np.isinf(rows).any():
        raise DataError(
            "an infinite score can't be aggregated: scores must be finite numbers, or NaN for a "
            "run without one; correct the file or the run that it comes from"
        )
    kept = ~np.isnan(rows).any(axis=1)
    order = np.lexsort(rows[kept].T[::-1])
    return scores[kept][order]


def can_resample(runs: Strata) -> bool:
    """Tell whether there is a task, and each has the runs that an interval needs."""
    return bool(runs) and min(map(len, runs)) >= FEWEST_RUNS


def resample(runs: Strata, resamples: int, seed: int | Sequence[int]) -> list[Index]:
    """Return which runs each resample has, `[resamples, n]` a task, drawn with replacement."""
    rng = np.random.default_rng(seed)
    return [rng.integers(len(scores), size=(resamples, len(scores))) for scores in runs]


def multiplicities(index: Index) -> Array:
    """Return how often each run is in each resample: indices `[R, n]` to counts `[R, n]`.

    What is linear in the runs is a matrix product with these.
    """
    resamples, n = index.shape
    slots = index + n * np.arange(resamples)[:, None]
    counts = np.bincount(slots.ravel(), minlength=resamples * n)
    return counts.reshape(resamples, n).astype(np.float64)


def bounds(values: Array, level: float) -> tuple[Array, Array]:
    """Return the quantiles with (1 − level) / 2 beyond each: `[R, ...]` to two of `[...]`."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return low, high

"""Which regime of fine-tuning a policy and its data are in, and how sure that is.

After "The Three Regimes of Offline-to-Online Reinforcement Learning" (Li, Ni, Sun, Bacon 2025,
arXiv 2510.01460): J(π), the return of the pre-trained policy, is compared with J(D), the mean return
of the dataset's episodes. What is better of the two is what a fine-tuning should not lose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from baq_cli.report.bootstrap import FEWEST_RUNS, LEVEL, RESAMPLES, Interval, bounds

Array = npt.NDArray[Any]
Regime = Literal["superior", "comparable", "inferior"]
"""Whether the policy is better than its data by more than the margin, as good within it, or worse
by more than it."""
REGIMES: tuple[Regime, ...] = get_args(Regime)
MARGIN = 0.05
"""The share of a scale of returns below which a difference counts as none, as the authors have it.
"""
MANY, AT_ONCE = 5_000, 2_000_000
"""Episodes whose mean is as good as normal; numbers that are drawn at once."""
ONE_SIDED, TWO_SIDED = 1.645, 1.960
"""Normal quantiles that leave 5 % beyond them, on one side and on both."""
MOST_EPISODES = 1_000_000
"""More than so many episodes are no plan."""


@dataclass(frozen=True)
class Comparison:
    """A policy against its data, in the units of their returns.

    policy, data, difference: means with 95 % bootstrap intervals; bounds are NaN where one episode
    says nothing of its spread.
    policy_std, data_std: over episodes, within a seed. policy_episodes: of all seeds.
    above: the probability that the policy's mean return is above the data's. chances: that of each
    regime. Both are None where an interval isn't known.
    regime: the one that has 95 % of the chances or more; None: too close to tell.
    more_episodes: about how many more of the policy's episodes would tell, a seed (of the data's
    where both are paired); None where none would, or none are needed.
    """

    policy: Interval
    data: Interval
    difference: Interval
    policy_std: float
    data_std: float
    policy_episodes: int
    data_episodes: int
    margin: float
    above: float | None
    chances: dict[Regime, float] | None
    regime: Regime | None
    more_episodes: int | None

    @property
    def possible(self) -> list[Regime]:
        """The regimes that are left when the least likely are taken away, up to 5 % together."""
        chances = self.chances
        if chances is None:
            return list(REGIMES)
        left, gone = sorted(REGIMES, key=chances.__getitem__), 0.0
        while gone + chances[left[0]] <= 1 - LEVEL:
            gone += chances[left.pop(0)]
        return [regime for regime in REGIMES if regime in left]


def compare(policy: Array, data: Array, margin: float, paired: bool = False) -> Comparison:
    """Compare the returns of a policy's episodes, `[S, n]` by seed, with those of the data, `[K]`.

    The S policies are what they are, so that chance is in episodes alone: these are drawn again
    within each seed, and from the data. Where `paired`, episode k of the policy began as the data's
    k-th did, and pairs are drawn.
    """
    rng = np.random.default_rng(0)
    mean_policy, mean_data = float(policy.mean()), float(data.mean())
    value = mean_policy - mean_data
    drawn_data = _means(data, rng)
    if paired:
        drawn_policy = _means(policy.mean(0), rng)
        drawn = _means(policy.mean(0) - data, rng)
        variances = 0.0, float((policy.mean(0) - data).var(ddof=1)) if len(data) > 1 else math.nan
    else:
        drawn_policy = np.mean([_means(of_seed, rng) for of_seed in policy], axis=0)
        drawn = drawn_policy - drawn_data
        variances = _variance(policy) / len(policy), _variance(data[None])
    chances = None if np.isnan(drawn).any() else _chances(drawn, margin)
    regime = next((r for r in REGIMES if chances and chances[r] >= LEVEL), None)
    counts = policy.shape[1], len(data)
    return Comparison(
        policy=_interval(mean_policy, drawn_policy),
        data=_interval(mean_data, drawn_data),
        difference=_interval(value, drawn),
        policy_std=math.sqrt(_variance(policy)),
        data_std=math.sqrt(_variance(data[None])),
        policy_episodes=policy.size,
        data_episodes=len(data),
        margin=margin,
        above=None if chances is None else float((drawn > 0).mean() + (drawn == 0).mean() / 2),
        chances=chances,
        regime=regime,
        more_episodes=None if regime or chances is None
        else _more(value, margin, variances, counts, paired),
    )  # fmt: skip


def _variance(returns: Array) -> float:
    """Return the variance over episodes `[S, n]`, averaged over seeds; NaN of one episode."""
    return float(returns.var(axis=1, ddof=1).mean()) if returns.shape[1] > 1 else math.nan


def _means(values: Array, rng: np.random.Generator) -> Array:
    """Return the means of resamples of `[n]`, `[RESAMPLES]`; NaN where n is one.

    Those of many values are drawn from the normal distribution that they have then.
    """
    count = len(values)
    if count < FEWEST_RUNS:
        return np.full(RESAMPLES, np.nan)
    if count > MANY:
        return rng.normal(values.mean(), values.std() / math.sqrt(count), RESAMPLES)
    rows = max(1, AT_ONCE // count)
    blocks = (min(rows, RESAMPLES - begun) for begun in range(0, RESAMPLES, rows))
    return np.concatenate([values[rng.integers(count, size=(b, count))].mean(1) for b in blocks])


def _interval(value: float, drawn: Array) -> Interval:
    low, high = bounds(drawn, LEVEL)
    return Interval(value, float(low), float(high))


def _chances(drawn: Array, margin: float) -> dict[Regime, float]:
    superior, inferior = float((drawn > margin).mean()), float((drawn < -margin).mean())
    return {
        "superior": superior,
        "comparable": max(0.0, 1.0 - superior - inferior),
        "inferior": inferior,
    }


def _more(
    value: float,
    margin: float,
    variances: Sequence[float],
    counts: Sequence[int],
    paired: bool,
) -> int | None:
    """Return how many more episodes would tell if means and spreads stayed what they are.

    A mean of so many episodes is taken for normal. `variances` of one episode of the policies' mean
    and of the data; `counts` of episodes so far.
    """
    beyond = abs(value) - margin
    error = beyond / ONE_SIDED if beyond > 0 else -beyond / TWO_SIDED
    own, of_data = variances
    if paired:
        needed, before = of_data / error**2 if error else math.inf, counts[1]
    else:
        left = error**2 - of_data / counts[1]
        needed, before = own / left if left > 0 else math.inf, counts[0]
    if not needed < MOST_EPISODES:
        return None
    return max(1, math.ceil(needed) - before)

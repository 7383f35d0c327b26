"""Which regime of fine-tuning a policy and its data are in, and how sure that is.

After "The Three Regimes of Offline-to-Online Reinforcement Learning" (Li, Ni, Sun, Bacon 2025,
arXiv 2510.01460): J(π), the return of the pre-trained policy, is compared with J(D), the mean
return of the dataset's episodes. What is better of the two is what a fine-tuning should not lose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from baq_cli.bootstrap import (
    FEWEST_RUNS,
    LEVEL,
    RESAMPLES,
    Interval,
    bounds,
    resampled_means,
)

Array = npt.NDArray[Any]
Regime = Literal["superior", "comparable", "inferior"]
"""Whether the policy is better than its data by more than the margin, as good within it, or worse
by more than it."""
REGIMES: tuple[Regime, ...] = get_args(Regime)
MARGIN = 0.05
"""The share of a scale of returns below which a difference counts as none, as the authors have it.
"""
FEWEST = 5
"""Episodes, of the policy's a seed and of the data's, below which no regime is named: an interval
from fewer holds the truth in less than 84 of 100 cases (docs/statistics.md)."""
ONE_SIDED, TWO_SIDED = 1.645, 1.960
"""Normal quantiles that leave 5 % beyond them, on one side and on both."""
MOST_EPISODES = 1_000_000
"""More than so many episodes are no plan."""


@dataclass(frozen=True)
class Comparison:
    """A policy against its data, in the units of their returns.

    policy, data, difference: means with 95 % bootstrap intervals; bounds are NaN with one episode.
    policy_std, data_std: over episodes, within a seed. policy_episodes: of all seeds.
    above: the probability that the policy's mean return is above the data's. chances: that of each
    regime. Both are None where either has fewer than five episodes (the policy: a seed).
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
    value, spreads = float(policy.mean() - data.mean()), _Spreads.of(policy, data, paired)
    drawn_policy, drawn_data, drawn = _drawn(policy, data, paired)
    known = min(policy.shape[1], len(data)) >= FEWEST
    chances = _chances(drawn, margin) if known else None
    regime = next((r for r in REGIMES if chances and chances[r] >= LEVEL), None)
    return Comparison(
        policy=_interval(float(policy.mean()), drawn_policy),
        data=_interval(float(data.mean()), drawn_data),
        difference=_interval(value, drawn),
        policy_std=_std(policy),
        data_std=_std(data[None]),
        policy_episodes=policy.size,
        data_episodes=len(data),
        margin=margin,
        above=float((drawn > 0).mean() + (drawn == 0).mean() / 2) if known else None,
        chances=chances,
        regime=regime,
        more_episodes=None if regime else spreads.more(value, margin),
    )


def _drawn(policy: Array, data: Array, paired: bool) -> tuple[Array, Array, Array]:
    """Return resampled means of the policy, of the data and of their difference."""
    rng = np.random.default_rng(0)
    of_data = _means(data, rng)
    if paired:
        return _means(policy.mean(0), rng), of_data, _means(policy.mean(0) - data, rng)
    of_policy = np.mean([_means(of_seed, rng) for of_seed in policy], axis=0)
    return of_policy, of_data, of_policy - of_data


def _means(values: Array, rng: np.random.Generator) -> Array:
    """Return the means of resamples of `[n]`, `[RESAMPLES]`; NaN where n is one."""
    if len(values) < FEWEST_RUNS:
        return np.full(RESAMPLES, np.nan)
    return resampled_means(values, rng)


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


def _std(returns: Array) -> float:
    """Return the std over episodes `[S, n]`, pooled over seeds; NaN of one episode."""
    if returns.shape[1] < FEWEST_RUNS:
        return math.nan
    return math.sqrt(float(returns.var(axis=1, ddof=1).mean()))


@dataclass(frozen=True)
class _Spreads:
    """What the difference's standard error is made of, for n episodes a seed: √(own / n + rest)."""

    own: float
    rest: float
    episodes: int
    enough_data: bool

    @classmethod
    def of(cls, policy: Array, data: Array, paired: bool) -> _Spreads:
        if paired:  # more episodes are the data's too
            pairs = policy.mean(0) - data
            return cls(_std(pairs[None]) ** 2, 0.0, len(data), True)
        own, rest = _std(policy) ** 2 / len(policy), _std(data[None]) ** 2 / len(data)
        return cls(own, rest, policy.shape[1], len(data) >= FEWEST)

    def more(self, value: float, margin: float) -> int | None:
        """Return how many more episodes would tell, if means and spreads stayed what they are.

        A mean of so many is taken for normal.
        """
        beyond = abs(value) - margin
        error = beyond / ONE_SIDED if beyond > 0 else -beyond / TWO_SIDED
        left = error**2 - self.rest
        if not self.enough_data or not left > 0:
            return None
        needed = max(FEWEST, self.own / left)
        return max(1, math.ceil(needed) - self.episodes) if needed < MOST_EPISODES else None

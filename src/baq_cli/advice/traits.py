"""What a dataset is like, in the numbers that decide what to train on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.card import card
from baq_cli.data.episodes import Episodes
from baq_cli.envs.scores import Reference

Array = npt.NDArray[Any]
QUERIES, CANDIDATES, AT_ONCE = 1_000, 50_000, 100
"""Rows whose nearest neighbours are looked for, rows among which, and queries at once."""

SPARSE = 0.05
"""Rewards are sparse where at most this share of them differs from the most common one."""
DETERMINISTIC = 0.1
"""The behaviour is nearly deterministic where at most this share of the actions' variance is left
between neighbouring observations."""
BROAD, NARROW = 0.8, 0.4
"""Shares of an action's range that are much and little."""
ALIKE = 0.15
"""Returns are alike where their std is at most this share of the scale of returns."""


@dataclass(frozen=True)
class Traits:
    """A dataset in numbers; returns are raw and undiscounted, lengths in env_steps.

    scale: what returns are measured by, and scale_of says what that is. spread: their std as a
    share of it. terminated: the share of episodes that ended themselves; the others were cut.
    reward_changes: the share of rewards that differ from the most common one.
    action_coverage: as a dataset's card has it. action_noise: the share of the actions' variance
    that is left between an observation and its nearest neighbour, an upper bound of how much the
    behaviour draws; None where there are too few rows or actions don't vary.
    """

    episodes: int
    env_steps: int
    return_mean: float
    return_std: float
    return_quantiles: dict[str, float]
    scale: float
    scale_of: str
    spread: float
    terminated: float
    cut_after: int | None
    reward_range: tuple[float, float]
    reward_changes: float
    action_coverage: float
    actions_on_bounds: float
    action_noise: float | None

    @property
    def rewarded(self) -> bool:
        """Whether some transition is better than another."""
        return self.reward_range[0] != self.reward_range[1]

    @property
    def sparse(self) -> bool:
        """Whether nearly all rewards are the same."""
        return self.rewarded and self.reward_changes <= SPARSE

    @property
    def deterministic(self) -> bool:
        """Whether the behaviour does nearly the same in the same place."""
        return self.action_noise is not None and self.action_noise <= DETERMINISTIC

    @property
    def alike(self) -> bool:
        """Whether the episodes are of one quality."""
        return self.spread <= ALIKE


def traits_of(episodes: Episodes, metadata: dict[str, Any], reference: Reference | None) -> Traits:
    """Measure a dataset; `reference` is what its returns are normalised by, where one is known."""
    facts, reward = card(episodes, metadata), episodes.reward
    counts = np.unique(reward, return_counts=True)[1]
    scale, scale_of = scale_of_returns(episodes.returns, reference)
    ends, std = facts["ends"], facts["return_std"]
    over = ends["terminated"] + ends["both"]
    return Traits(
        episodes=facts["episodes"],
        env_steps=facts["env_steps"],
        return_mean=facts["return_mean"],
        return_std=std,
        return_quantiles=facts["return_quantiles"],
        scale=scale,
        scale_of=scale_of,
        spread=std / scale if scale else 0.0,
        terminated=over / facts["episodes"],
        cut_after=episodes.cut_after,
        reward_range=(facts["reward_range"][0], facts["reward_range"][1]),
        reward_changes=float(1 - counts.max() / len(reward)),
        action_coverage=facts["action_coverage"],
        actions_on_bounds=facts["actions_on_bounds"],
        action_noise=action_noise(episodes.obs, episodes.action),
    )


def scale_of_returns(returns: Array, reference: Reference | None) -> tuple[float, str]:
    """Return what returns are measured by, in their units, and what that is in words."""
    if reference is not None:
        words = f"between random and expert, by {reference.label}"
        return abs(reference.expert - reference.random), words
    return float(returns.max() - returns.min()), "between the data's worst and best episode"


def action_noise(obs: Array, action: Array) -> float | None:
    """Return the share of the actions' variance that is left between neighbours, 0 to about 1.

    For obs `[M, obs_dim]`, action `[M, action_dim]`: mean |a − a'|² / 2 over the total variance,
    a' being the action in the nearest other observation, of standardised dimensions. With actions
    that are a smooth function of what is observed it goes to 0 as rows grow dense. None for fewer
    than three rows, or actions that are all the same.
    """
    total = float(action.var(0).sum())
    if len(obs) < 3 or total == 0:
        return None
    among = np.unique(np.linspace(0, len(obs) - 1, CANDIDATES).astype(np.int64))
    deviation = obs.std(0)
    varied = deviation > 0
    if not varied.any():
        return 1.0
    rows = ((obs[among] - obs.mean(0)) / np.where(varied, deviation, 1))[:, varied]
    done = action[among].astype(np.float64)
    asked = np.unique(np.linspace(0, len(rows) - 1, QUERIES).astype(np.int64))
    sizes, left = (rows**2).sum(1), 0.0
    for begun in range(0, len(asked), AT_ONCE):
        now = asked[begun : begun + AT_ONCE]
        distance = sizes - 2 * rows[now] @ rows.T
        distance[np.arange(len(now)), now] = np.inf
        left += float(((done[now] - done[distance.argmin(1)]) ** 2).sum())
    return left / 2 / len(asked) / total

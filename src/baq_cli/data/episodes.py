"""Logged episodes, checked, and the flat transitions made of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError

Array = npt.NDArray[Any]
HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class Episodes:
    """Episodes laid end to end.

    Shapes: M transitions in K episodes; obs, next_obs `[M, obs_dim]`; action `[M, action_dim]`
    scaled to [−1, 1]; reward, terminated, truncated, episode `[M]` (episode numbers rise from 0).
    `env_id` names the environment the data were made in, when known, and `env_settings` how it was
    made: `max_episode_steps`, and its keyword arguments as text.
    """

    dataset_id: str
    env_id: str | None
    spaces: Spaces
    obs: Array
    action: Array
    reward: Array
    next_obs: Array
    terminated: Array
    truncated: Array
    episode: Array
    env_settings: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reward)

    @cached_property
    def starts(self) -> Array:
        """The row at which each episode begins, `[K]`."""
        return np.flatnonzero(np.diff(self.episode, prepend=-1))

    @cached_property
    def returns(self) -> Array:
        """The undiscounted return of each episode in raw reward units, `[K]` float64."""
        return np.add.reduceat(self.reward.astype(np.float64), self.starts)

    @cached_property
    def lengths(self) -> Array:
        """The environment steps of each episode, `[K]`."""
        return np.diff(self.starts, append=len(self))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over every array: the same data have the same hash wherever they lie."""
        digest = hashlib.sha256()
        for name in ("obs", "action", "reward", "next_obs", "terminated", "truncated", "episode"):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()

    def check(self) -> None:
        """Raise DataError for experience that can't be trained on."""
        if len(self) == 0:
            raise DataError(f"dataset '{self.dataset_id}' holds no transitions")
        for name in ("obs", "action", "reward", "next_obs"):
            bad = ~np.isfinite(getattr(self, name).reshape(len(self), -1)).all(1)
            if bad.any():
                raise DataError(
                    f"dataset '{self.dataset_id}': {name} is NaN or infinite in {int(bad.sum())} "
                    f"of {len(self)} transitions, first in transition {int(bad.argmax())}. "
                    "Remove those episodes and save the dataset again."
                )
        far = np.abs(self.action).max(1) > 1 + 1e-4
        if far.any():
            raise DataError(
                f"dataset '{self.dataset_id}': {int(far.sum())} of {len(self)} actions lie outside "
                "the action space recorded with it. Clip them, or record the right bounds."
            )

    def held_out(self) -> Array:
        """Mark the transitions of about 5 % of the episodes, `[M]` bool: the same for every run.

        At least one episode is held out when there are two or more.
        """
        count = len(self.starts)
        rank = np.random.default_rng(0).permutation(count)
        chosen = rank < max(1, round(HELD_OUT_SHARE * count))
        if count < 2:
            chosen[:] = False
        return np.asarray(chosen[self.episode])


def monte_carlo_returns(episodes: Episodes, reward: Array, discount: float) -> Array:
    """Return the discounted return-to-go of each transition, `[M]` float32.

    `reward [M]` is in the units that updates use. A terminated episode is summed to its end. A
    truncated one goes on beyond the log: its tail is taken as the mean reward of its last
    1/(1−γ) steps, received for ever, because summing it as if it had ended would understate the
    value near every time limit (and overstate it where rewards are negative).
    """
    out = np.empty(len(reward), dtype=np.float64)
    stops = np.append(episodes.starts[1:], len(reward))
    for start, stop in zip(episodes.starts, stops, strict=True):
        out[start:stop] = returns_to_go(
            reward[start:stop], bool(episodes.terminated[stop - 1]), discount
        )
    return out.astype(np.float32)


def returns_to_go(reward: Array, terminated: bool, discount: float) -> Array:
    """Return the discounted returns-to-go of one episode's rewards `[T]`; see above."""
    horizon = max(1, round(1.0 / (1.0 - discount)))
    running = 0.0 if terminated else float(reward[-horizon:].mean()) / (1.0 - discount)
    out = np.empty(len(reward), dtype=np.float64)
    for t in range(len(reward) - 1, -1, -1):
        running = float(reward[t]) + discount * running
        out[t] = running
    return out

"""Logged episodes, checked, and the flat transitions made of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import Spaces

Array = npt.NDArray[Any]
HELD_OUT_SHARE = 0.05
ARRAYS = ("observations", "action", "reward", "terminated", "truncated", "lengths")
INTERVENTION = "intervention"
"""What tells, of each step, whether somebody acted in the policy's place: infos, and a column."""


@dataclass(frozen=True)
class Finding:
    """What a check of a dataset found: an `error` stops training, a `warning` is reported."""

    level: Literal["error", "warning"]
    check: str
    text: str


@dataclass(frozen=True)
class DataOrigin:
    """Where a dataset was made, as far as it says.

    `env_id` and the settings it was made with: `max_episode_steps`, and keyword arguments as JSON
    has them. `eval_env` is another environment that the dataset names for evaluation, where it does
    (`eval_env_spec`). `requirements` names the packages (as pip does) that the environment ran on.
    `seeds` holds the start seed of each episode, where recorded, else None.
    """

    env_id: str | None = None
    max_episode_steps: int | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    eval_env: EnvRef | None = None
    requirements: tuple[str, ...] = ()
    seeds: tuple[int | None, ...] = ()

    @property
    def env(self) -> EnvRef | None:
        """The environment of the recording, with its settings."""
        if self.env_id is None:
            return None
        return EnvRef.of(self.env_id, self.kwargs, self.max_episode_steps)


@dataclass(frozen=True)
class Episodes:
    """Episodes laid end to end, in the units that training uses.

    Shapes: M transitions in K episodes of T_k; observations `[M + K, obs_dim]`, T_k + 1 of each
    episode, so that no observation is stored twice; action `[M, action_dim]` scaled to [−1, 1];
    reward, terminated, truncated `[M]`; lengths `[K]` (T_k, in env_steps).
    intervention `[M]` says where somebody acted in the policy's place; None where nobody knows.
    `origin` says where they were made, `findings` what the checks warned of, `rounding` what was
    found while their numbers were brought to float32.
    """

    dataset_id: str
    spaces: Spaces
    observations: Array
    action: Array
    reward: Array
    terminated: Array
    truncated: Array
    lengths: Array
    intervention: Array | None = None
    origin: DataOrigin = field(default_factory=DataOrigin)
    findings: tuple[Finding, ...] = ()
    rounding: tuple[Finding, ...] = ()

    @property
    def arrays(self) -> dict[str, Array]:
        """Everything that training reads, by name."""
        found = {name: getattr(self, name) for name in ARRAYS}
        return found if self.intervention is None else found | {INTERVENTION: self.intervention}

    def __len__(self) -> int:
        return len(self.reward)

    @cached_property
    def starts(self) -> Array:
        """The row at which each episode begins, `[K]`."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def episode(self) -> Array:
        """The number of each transition's episode, rising from 0, `[M]`."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def obs(self) -> Array:
        """The observation before each transition, `[M, obs_dim]`: a copy."""
        return self.observations[np.arange(len(self)) + self.episode]

    @property
    def next_obs(self) -> Array:
        """The observation after each transition, `[M, obs_dim]`: a copy."""
        return self.observations[np.arange(len(self)) + self.episode + 1]

    @cached_property
    def returns(self) -> Array:
        """The undiscounted return of each episode in raw reward units, `[K]` float64."""
        return np.add.reduceat(self.reward.astype(np.float64), self.starts)

    @property
    def cut_after(self) -> int | None:
        """The length of the longest episode (env_steps), where it didn't terminate; else None.

        A recording that was cut there says when episodes end; one that terminated doesn't.
        """
        longest = self.lengths == self.lengths.max()
        last = (self.starts + self.lengths - 1)[longest]
        return None if self.terminated[last].all() else int(self.lengths.max())

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over every array: the same data have the same hash wherever they lie."""
        digest = hashlib.sha256()
        for name, given in self.arrays.items():
            array = np.ascontiguousarray(given)
            digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()

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


def where_somebody_acted(said: Array, lengths: Array) -> Array | None:
    """Return where an info says that somebody acted in the policy's place, `[M]` bool.

    It has a number a step of episodes of `lengths [K]`, or one more for each reset, `[M + K]`, as
    Minari's collector writes them; NaN says nothing. None where it says it of no step, or has
    another shape.
    """
    steps, firsts = int(lengths.sum()), np.cumsum(lengths + 1) - (lengths + 1)
    if said.shape == (steps + len(lengths),):
        said = np.delete(said, firsts)
    taken = (said != 0) & (said == said)
    return taken if taken.shape == (steps,) and taken.any() else None


def monte_carlo_returns(episodes: Episodes, reward: Array, discount: float) -> Array:
    """Return the discounted return-to-go of each transition, `[M]` float32.

    `reward [M]` is in the units that updates use. A terminated episode is summed to its end. A
    truncated one goes on beyond the log: its tail is taken as the mean reward of its last
    1/(1−γ) steps, received for ever, because summing it as if it had ended would understate the
    value near every time limit (and overstate it where rewards are negative).
    """
    out = np.empty(len(reward), dtype=np.float64)
    stops = episodes.starts + episodes.lengths
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

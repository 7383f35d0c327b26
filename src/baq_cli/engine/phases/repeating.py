"""What one seed has done in the episode that it is in, and doing it again at a resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.envs.pool import EnvPool
from baq_cli.envs.spaces import Spaces

Array = npt.NDArray[Any]


@dataclass
class RunningEpisode:
    """The episode that one seed is in: where it started, what was done, where it is stored."""

    start_seed: int
    actions: list[Array] = field(default_factory=list)
    """What was done, in [−1, 1]."""
    executed: dict[int, Array] = field(default_factory=dict)
    """The steps that did something else than they were asked to, and what: see `EnvPool`."""
    rewards: list[float] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)

    def append(self, action: Array, executed: Array | None, reward: float, slot: int) -> None:
        """Note a step, and where it is stored; `executed` where it did other than it was asked."""
        if executed is not None:
            self.executed[len(self.actions)] = executed
        self.actions.append(action)
        self.rewards.append(reward)
        self.slots.append(slot)

    def last_done(self, spaces: Spaces) -> Array:
        """Return what was done last, `[action_dim]` float64 in the environment's units, or NaN."""
        if not self.actions:
            return np.full(spaces.action_dim, np.nan)
        told = self.executed.get(len(self.actions) - 1)
        return spaces.to_env(self.actions[-1]).astype(np.float64) if told is None else told

    def state(self) -> dict[str, Any]:
        """Return where the episode started and is stored, for a checkpoint."""
        return {"start_seed": self.start_seed, "rewards": self.rewards, "slots": self.slots}

    def tensors(self) -> dict[str, Tensor]:
        """Return what was done, `[T, action_dim]` each; in `executed` NaN is as it was asked."""
        if not self.actions:
            return {}
        tensors = {"actions": torch.from_numpy(np.stack(self.actions))}
        if self.executed:
            unsaid = np.full(self.actions[0].shape, np.nan)
            each = [self.executed.get(k, unsaid) for k in range(len(self.actions))]
            tensors["executed"] = torch.from_numpy(np.stack(each))
        return tensors

    @classmethod
    def restored(cls, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> RunningEpisode:
        """Return the episode of what `state()` and `tensors()` returned."""
        actions = list(tensors["actions"].numpy()) if "actions" in tensors else []
        rows: list[Array] = list(tensors["executed"].numpy()) if "executed" in tensors else []
        executed = {k: row for k, row in enumerate(rows) if not np.isnan(row[0])}
        rewards, slots = list(state["rewards"]), list(state["slots"])
        return cls(state["start_seed"], actions, executed, rewards, slots)


def repeat_actions(pool: EnvPool, running: Sequence[RunningEpisode]) -> tuple[Array, Array]:
    """Step all environments until the longest running episode is where it was.

    Shorter episodes start later, so that every environment ends at its own last step. Returns
    the observations there, `[S, obs_dim]`, and which episodes were over before that, `[S]`: their
    environments don't repeat themselves.
    """
    lengths = np.array([len(episode.actions) for episode in running])
    longest = int(lengths.max())
    seeds = [episode.start_seed for episode in running]
    idle = np.zeros(pool.spaces.action_dim, dtype=np.float32)
    unsaid = np.full(pool.spaces.action_dim, np.nan)
    obs = pool.reset(seeds)
    stray = np.zeros(len(running), dtype=np.bool_)
    for t in range(longest):
        begin = lengths == longest - t
        if begin.any():
            obs = pool.reset(seeds, begin)
        at = t - (longest - lengths)
        each = list(zip(running, at.tolist(), strict=True))
        action = np.stack([e.actions[k] if k >= 0 else idle for e, k in each])
        pool.begin_step(action, np.stack([e.executed.get(k, unsaid) for e, k in each]))
        obs, _, terminated, truncated = pool.end_step()
        over = terminated | truncated
        stray |= over & (at >= 0)  # the others were idle, and fell over
        if over.any():
            obs = pool.reset(seeds, over)
    if longest and (lengths == 0).any():
        obs = pool.reset(seeds, lengths == 0)
    return obs, stray

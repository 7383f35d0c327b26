"""Environments stepped together in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv

Array = npt.NDArray[Any]


class Here(SyncVectorEnv):
    """Gymnasium's environments in this process, of which a step may leave some as they are."""

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], count: int):
        super().__init__([make] * count, autoreset_mode=AutoresetMode.DISABLED)

    def step_some(
        self, actions: Array, which: npt.NDArray[np.bool_]
    ) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Return what stepping all of them does, but step those of `which` alone, `[K]` bool.

        The others show their last observation, a reward of 0 and no end.
        """
        infos: dict[str, Any] = {}
        known: list[Any] = [*self._env_obs]
        rewards = [0.0] * len(known)  # lists while they fill: an array's entry takes longer to set
        terminated, truncated = [False] * len(known), [False] * len(known)
        for number in np.flatnonzero(which).tolist():
            found = self.envs[number].step(actions[number])
            known[number], rewards[number], terminated[number], truncated[number] = found[:4]
            if found[4]:
                infos = self._add_info(infos, found[4], number)
        self._env_obs = known
        seen: Array = np.empty_like(self._observations)
        np.stack(known, out=seen)
        self._rewards[:] = rewards
        self._terminations[:] = terminated
        self._truncations[:] = truncated
        return seen, np.array(rewards), np.array(terminated), np.array(truncated), infos

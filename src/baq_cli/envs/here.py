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
        self._rewards[:] = 0.0
        self._terminations[:] = self._truncations[:] = False
        for number in np.flatnonzero(which).tolist():
            (
                self._env_obs[number],
                self._rewards[number],
                self._terminations[number],
                self._truncations[number],
                info,
            ) = self.envs[number].step(actions[number])
            infos = self._add_info(infos, info, number)
        seen: Array = np.empty_like(self._observations)
        known: list[Any] = [*self._env_obs]
        np.stack(known, out=seen)
        flags = self._terminations.copy(), self._truncations.copy()
        return seen, self._rewards.copy(), *flags, infos

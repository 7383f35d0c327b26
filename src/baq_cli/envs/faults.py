"""An environment that raises, or returns what it did not promise."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from baq_cli.errors import EnvironmentMismatch


class EnvironmentFault(EnvironmentMismatch):
    """An environment failed while it was reset or stepped."""


class Checked(gym.Wrapper[Any, Any, Any, Any]):
    """Passes on what an environment does, and says in words what it did wrong.

    Raises EnvironmentFault when it raises, or returns another shape than its space has, a reward
    that is no number, or flags that are no truth values.
    """

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        try:
            obs, info = self.env.reset(**options)
        except Exception as error:
            raise EnvironmentFault(f"reset raised {type(error).__name__}: {error}") from error
        self._check_obs(obs, "reset")
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise EnvironmentFault(f"step raised {type(error).__name__}: {error}") from error
        self._check_obs(obs, "step")
        if not isinstance(reward, SupportsFloat) or np.asarray(reward).ndim:
            raise EnvironmentFault(f"step returned the reward {reward!r}, expected a number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, bool | np.bool_):
                raise EnvironmentFault(f"step returned {name} = {flag!r}, expected True or False")
        return obs, float(reward), bool(terminated), bool(truncated), info

    def _check_obs(self, obs: Any, when: str) -> None:
        expected = self.observation_space.shape
        if np.shape(obs) != expected:
            raise EnvironmentFault(
                f"{when} returned an observation of shape {np.shape(obs)}, expected {expected}"
            )

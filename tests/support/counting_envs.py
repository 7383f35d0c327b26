"""Environments whose returns can be counted: every step's reward is their speed.

`Counting-v0` never ends by itself and says no limit, unless it is made with `ends_at`. Observations
are the step of the episode and the speed. It draws itself as an image of the step's brightness.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.envs.spaces import Spaces


class Counting(gym.Env[Any, Any]):
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, speed: float = 1.0, ends_at: int | None = None, render_mode: str | None = None
    ):
        self.speed, self.ends_at, self.render_mode = speed, ends_at, render_mode
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.time += 1
        return self._obs(), self.speed, self.time == self.ends_at, False, {}

    def render(self) -> npt.NDArray[np.uint8]:
        return np.full((16, 24, 3), 40 * self.time, dtype=np.uint8)

    def _obs(self) -> Any:
        return np.array([self.time, self.speed], dtype=np.float32)


class Needy(Counting):
    """Can't be made without being told its size."""

    def __init__(self, size: int, speed: float = 1.0):
        super().__init__(speed)
        self.size = size


class Undrawn(Counting):
    """Draws what is no image."""

    def render(self) -> Any:
        return "a picture"


def wrapped() -> gym.Env[Any, Any]:
    """Return an environment with a limit that its registration doesn't know."""
    return gym.wrappers.TimeLimit(Counting(), 4)


gym.register("Counting-v0", "support.counting_envs:Counting", disable_env_checker=True)
gym.register(
    "Fast-v0",
    "support.counting_envs:Counting",
    max_episode_steps=6,
    kwargs={"speed": 2.0},
    disable_env_checker=True,
)
gym.register("Needy-v0", "support.counting_envs:Needy", disable_env_checker=True)
gym.register("Undrawn-v0", "support.counting_envs:Undrawn", disable_env_checker=True)
gym.register("Wrapped-v0", "support.counting_envs:wrapped", disable_env_checker=True)
COUNTING = Spaces(2, (-1.0,), (1.0,))
"""The spaces of `Counting-v0`."""

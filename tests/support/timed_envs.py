"""An environment on the wall clock, in a process of its own: `support.timed_envs:Timed-v0`.

Every step adds a line with its observation to the file `$TIMED_LOG` before it returns, where that
is set. Of its steps every `slow_every`-th takes `slow_ms` longer; it dies where `odd_envs` is told.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import gymnasium as gym
import numpy as np

from support.odd_envs import told

TIMED, LOG = "support.timed_envs:Timed-v0", "TIMED_LOG"


class Timed(gym.Env[Any, Any]):
    """A point that actions push, in float64; an episode ends by itself, or after 7 steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, slow_every: int = 0, slow_ms: int = 0):
        self._every, self._ms, self._steps = slow_every, slow_ms, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._place, self._time = self.np_random.normal(size=2), 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._steps, self._time = self._steps + 1, self._time + 1
        if self._every and self._steps % self._every == 0:
            time.sleep(self._ms / 1e3)
        if told("step", self._steps) == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        push = np.array([0.15, -0.1]) * float(action[0])
        self._place = 0.8 * self._place + push + 0.1 * self.np_random.normal(size=2)
        obs, over = self._obs(), bool(self._place[0] > 0.6)
        if LOG in os.environ:
            with open(os.environ[LOG], "a") as file:
                file.write(f"{obs.tolist()}\n")
        return obs, -float(np.abs(self._place).sum()), over, self._time >= 7, {}

    def _obs(self) -> Any:
        return np.array([*self._place, self._time])


made: Any = Timed  # whose arguments are known
gym.register("Timed-v0", made, disable_env_checker=True)

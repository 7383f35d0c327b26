"""Environments that hold their caller to Gymnasium's contract, and use every freedom it gives.

A `Strict` one raises when it is called otherwise than the API says. It has the numbers of
`support.odd_envs.Steady`, and nothing else of it: observations are one array, shared by all
environments of a process; infos are of other kinds each time and can't be sent anywhere; it
writes into the actions that it gets; closing it raises.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from support.odd_envs import Steady

TYPES = ("float16", "float32", "float64")
BOUNDS = (-0.3, 0.1)
"""No numbers of any of these types; float32 has none as near to 0.1 that is not above it."""


class Strict(Steady):
    shared: ClassVar[Any] = np.zeros(3, np.float32)
    made = closings = 0

    def __init__(self, dtype: str = "float32", low: float = -1.0, high: float = 1.0) -> None:
        Strict.made += 1
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gym.spaces.Box(low, high, (1,), np.dtype(dtype).type)
        self.over = True
        self.open = True

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        assert self.open
        assert options is None, f"there are no options, and it got {options!r}"
        assert type(seed) is int, f"the seed {seed!r} is no Python int"
        self.over = False
        obs, _ = super().reset(seed=seed)
        return self._given(obs), self._info()

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert self.open
        assert not self.over, "stepped before a reset, or after the end"
        assert action.dtype == self.action_space.dtype
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        obs, reward, terminated, truncated, _ = super().step(action)
        action[:] = np.nan
        self.over = terminated or truncated
        return self._given(obs), reward, terminated, truncated, self._info()

    def close(self) -> None:
        Strict.closings += 1
        assert self.open, "closed twice"
        self.open = False
        raise RuntimeError("no window to close")

    def _given(self, obs: Any) -> Any:
        Strict.shared[:] = obs
        return Strict.shared

    def _info(self) -> dict[str, Any]:
        odd = [1, "two", [self.time] * self.time, None][self.time % 4]
        return {"odd": odd, "call": lambda: None, f"at{self.time}": np.zeros(self.time)}


class Own(Steady):
    """Observations and actions of a type of their own, the actions as the API promises them."""

    def __init__(self, obs: str, action: str) -> None:
        kind = np.dtype(obs).type
        self.observation_space: Any = gym.spaces.Box(-np.inf, np.inf, (3,), kind)
        if action != "float32":
            self.observation_space = gym.spaces.Dict(
                {
                    "place": gym.spaces.Box(-np.inf, np.inf, (2,), kind),
                    "time": gym.spaces.Box(0, 99, (), np.int64),
                }
            )
        self.action_space = gym.spaces.Box(*BOUNDS, (1,), np.dtype(action).type)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        return super().step(action)

    def _obs(self) -> Any:
        if isinstance(self.observation_space, gym.spaces.Dict):
            place = self.place.astype(self.observation_space["place"].dtype)
            return {"place": place, "time": np.array(self.time, np.int64)}
        return np.array([*self.place, self.time], self.observation_space.dtype)


gym.register("Strict-v0", "support.strict_envs:Strict")
for name in TYPES:
    words = {"dtype": name, "low": BOUNDS[0], "high": BOUNDS[1]}
    gym.register(f"Strict-{name}-v0", "support.strict_envs:Strict", kwargs=words)
    for other in TYPES:
        gym.register(
            f"Own-{name}-{other}-v0",
            "support.strict_envs:Own",
            kwargs={"obs": name, "action": other},
        )

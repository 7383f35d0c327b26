"""An environment that tells a journal what was done to it, for tests of what a run keeps.

Its observations have digits that float32 loses, its actions bounds about no round number. Where a
limit of its own is passed it does something else than it was asked to, and says so.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from baq_cli.envs.faults import EXECUTED

JOURNAL: list[dict[str, Any]] = []
"""Every episode that was played in this process, oldest first."""
LOW, HIGH = np.array([-2.3, -0.1]), np.array([0.7, 1.9])
SAFE = 1.0 / 3


class Witness(gym.Env[Any, Any]):
    """Terminates where it wanders off, else truncates at its seventh step."""

    observation_space: gym.Space[Any] = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Box(LOW, HIGH, dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.time = self.np_random.normal(size=2), 0
        lists: dict[str, list[Any]] = {name: [] for name in ("done", "reward", "over", "cut")}
        self.episode: dict[str, Any] = {"seed": seed, "obs": [self._obs()], **lists}
        JOURNAL.append(self.episode)
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert action in self.action_space
        done = np.where(action[1] > 1, [SAFE, SAFE * 2], action).astype(self.action_space.dtype)
        self.time += 1
        self.place = 0.7 * self.place + done / 3 + 0.1 * self.np_random.normal(size=2)
        reward = -float(np.square(self.place).sum()) / 3
        over, cut = bool(self.place[0] > 0.6), self.time == 7
        found = {"obs": self._obs(), "done": done, "reward": reward, "over": over, "cut": cut}
        for name, value in found.items():
            self.episode[name].append(value)
        said = {EXECUTED: done} if (done != action).any() else {}
        return self._obs(), reward, over, cut, said

    def _obs(self) -> Any:
        return np.array([*self.place, 5_412_345 + self.time / 3])


class InParts(Witness):
    """The same, its observation a `Dict` of two types, its actions of another."""

    observation_space = gym.spaces.Dict(
        {
            "time": gym.spaces.Box(-np.inf, np.inf, (1,), np.float64),
            "place": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
        }
    )
    action_space = gym.spaces.Box(LOW.astype(np.float32), HIGH.astype(np.float32))

    def _obs(self) -> Any:
        whole = super()._obs()
        return {"time": whole[2:], "place": whole[:2].astype(np.float32)}


for name in ("Witness", "InParts"):
    gym.register(
        f"{name}-v0", f"support.witness:{name}", max_episode_steps=50, disable_env_checker=True
    )

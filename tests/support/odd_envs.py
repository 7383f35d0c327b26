"""Environments that behave, and that fail as they are told to, here or in a worker's process.

`Odd-v0` (in a worker `support.odd_envs:Odd-v0`) reads what to do wrong from `ODD_PLAN`, which is
`KIND AT MARKER`.
From its process's AT-th step on it does that, until the file MARKER is there, which it makes; with
`-` for MARKER it always does. Kinds that begin with `reset-` and `make-` happen there; the last
only in a worker.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

STEADY, PLAN = "Steady-v0", "ODD_PLAN"
LIMIT = 5
"""Steps until an episode is truncated."""


class Steady(gym.Env[Any, Any]):
    """Observations are two numbers and the episode's step; it terminates now and then."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.time = self.np_random.normal(size=2), 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.time += 1
        push = float(np.clip(action[0], -1, 1))
        self.place = 0.8 * self.place + push * np.array([0.3, -0.2])
        self.place += 0.1 * self.np_random.normal(size=2)
        over = bool(self.place[0] > 1.0)
        return self._obs(), -float(np.abs(self.place).sum()), over, self.time >= LIMIT, {}

    def _obs(self) -> Any:
        return np.array([*self.place, self.time], dtype=np.float32)


class Odd(Steady):
    """Fails as it is told to; see the module's words."""

    steps = 0
    resets = 0

    def __init__(self) -> None:
        kind = told("make", 1) if multiprocessing.parent_process() else ""
        if kind == "make-hangs":
            time.sleep(60)
        if kind == "make-dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "make-raises":
            raise RuntimeError("no motor there")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        Odd.resets += 1
        obs, info = super().reset(seed=seed)
        kind = told("reset", Odd.resets)
        if kind == "reset-raises":
            raise RuntimeError("nothing to start with")
        return (obs * np.nan if kind == "reset-nan" else obs), info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        Odd.steps += 1
        obs, reward, terminated, truncated, info = super().step(action)
        return self._wrong(told("step", Odd.steps), obs, reward, terminated, truncated, info)

    def _wrong(self, kind: str, obs: Any, reward: Any, *rest: Any) -> Any:
        if kind == "raises":
            raise RuntimeError("the motor is on fire")
        if kind == "hangs":
            time.sleep(1000)
        if kind == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return {
            "shape": (obs[:2], reward, *rest),
            "reward": (obs, "much", *rest),
            "flag": (obs, reward, 2, *rest[1:]),
            "nan": (obs * np.array([1, np.nan, 1], dtype=np.float32), reward, *rest),
            "inf-reward": (obs, np.inf, *rest),
            "huge-reward": (obs, 1e39, *rest),
        }.get(kind, (obs, reward, *rest))


def told(call: str, count: int) -> str:
    """Return what to do wrong at a call of `step` or another, nothing most of the time."""
    plan = os.environ.get(PLAN)
    if not plan:
        return ""
    kind, at, marker = plan.split()
    where, dash, _ = kind.partition("-")
    if (where if dash and where in ("reset", "make") else "step") != call or count < int(at):
        return ""
    if marker != "-":
        if Path(marker).exists():
            return ""
        Path(marker).touch()
    return kind


class Forgetful(Steady):
    """Goes elsewhere with the same seed and actions once `elsewhere` is set; so it may be over."""

    elsewhere = 0.0
    over_at: int | None = None

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.place = self.place + Forgetful.elsewhere
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or self.time == Forgetful.over_at, truncated, info


class Endless(Steady):
    """While `endless` is set no episode ends; `at_step` is called at every step then."""

    endless = False
    at_step: Any = staticmethod(lambda: None)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        found = super().step(action)
        if not Endless.endless:
            return found
        Endless.at_step()
        return *found[:2], False, False, {}


class Simulated(Steady):
    """Starts a program of its own at a reset, and tells it to end."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        program = subprocess.Popen(["sleep", "60"])
        program.terminate()
        program.wait(timeout=20)
        return super().reset(seed=seed)


for made in (Steady, Odd, Forgetful, Endless, Simulated):
    gym.register(
        f"{made.__name__}-v0", f"support.odd_envs:{made.__name__}", disable_env_checker=True
    )

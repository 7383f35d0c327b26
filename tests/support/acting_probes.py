"""A method whose actions tell where in a chunk they are, and environments that do as they please.

The method learns to repeat what was done. Of a decision's actions the first lies about −0.8, the
last about 0.8 and the others between, evenly; `spread` is of the noise that it acts with. Where an
evaluation's process reads its configuration, the method is registered there.
"""

from __future__ import annotations

import multiprocessing
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import Agent, policy_net
from baq_cli.agents.interface import Batch, Group, Losses, Spec
from baq_cli.agents.plans import Draw, Plan
from baq_cli.agents.registry import METHODS
from baq_cli.envs.faults import EXECUTED
from baq_cli.nets.policies import DeterministicPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig
from support.odd_envs import Steady

PROBE = "probe"
LOW, HIGH = np.float32(-2.3), np.float32(0.7)
SAFE_LOW, SAFE_HIGH = np.float32(-1.234567), np.float32(0.1234567)


class Probe(Agent):
    name = PROBE
    title = "Probe"
    learns_offline: ClassVar[bool] = False

    class Config(AgentConfig):
        chunk: int = Field(1, ge=1)
        spread: float = Field(0.0, ge=0)

    config: Config
    policy: DeterministicPolicy

    def build(self, init: SeedStream) -> None:
        self.chunk = self.config.chunk
        width = self.chunk * self.spec.action_dim
        self.policy = DeterministicPolicy(init, self.spec.obs_dim, width, **policy_net(self.config))

    def groups(self) -> dict[str, Group]:
        return {"policy": Group((self.policy,), self.config.policy_learning_rate)}

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        first = self.policy.mode(batch.obs)[..., : self.spec.action_dim]
        return Losses(policy=(first - batch.action).square().sum(-1))

    def online_plan(self) -> Plan:
        return Plan((Draw(("online",)),), warmup_env_steps=self.config.warmup_env_steps)

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        return self._decided(obs, noise)

    def act(self, obs: Tensor, noise: SeedStream) -> Tensor:
        return self._decided(obs, noise) if self.config.spread else self._at(self.policy.mode(obs))

    def _decided(self, obs: Tensor, noise: SeedStream) -> Tensor:
        mode = self.policy.mode(obs)
        return self._at(torch.tanh(mode + self.config.spread * noise.normal(*mode.shape[1:])))

    def _at(self, mode: Tensor) -> Tensor:
        """Move actions in [−1, 1] to where they tell which they are."""
        if self.chunk == 1:
            return mode
        places = torch.linspace(-0.8, 0.8, self.chunk).repeat_interleave(self.spec.action_dim)
        return places + mode * 0.7 / self.chunk


def place_of(action: Any, chunk: int) -> Any:
    """Return which of a decision's actions each is, 0 to `chunk` − 1."""
    return np.rint((action + 0.8) / 1.6 * (chunk - 1)).astype(int)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the method, which is registered as long as the test runs."""
    monkeypatch.setitem(METHODS, PROBE, Probe)
    return PROBE


if multiprocessing.current_process().name != "MainProcess":
    METHODS[PROBE] = Probe


class Bounded(Steady):
    """`Steady-v0` with bounds about no round number, and a place that shows every digit."""

    action_space = gym.spaces.Box(LOW, HIGH, (1,), np.float32)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        _, reward, over, cut, info = super().step(action / 3)
        self.place[1] += 1e4 * (np.float64(action[0]) - np.rint(action[0] * 64) / 64)
        return np.array([*self.place, self.time], dtype=np.float32), reward, over, cut, info


class Filtered(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps actions within the safe ones, and says what was done instead of others."""

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        safe = np.clip(action, SAFE_LOW, SAFE_HIGH)
        obs, reward, terminated, truncated, info = self.env.step(safe)
        if (safe != action).any():
            info = info | {EXECUTED: safe}
        return obs, reward, terminated, truncated, info


def probe_of(seeds: tuple[int, ...], chunk: int, spread: float) -> Probe:
    """Return a small probe that fine-tunes."""
    config = Probe.Config(hidden=(8, 8), chunk=chunk, spread=spread)
    return Probe(config, Spec(seeds, 3, 1), "online")


class Saying(gym.Wrapper[Any, Any, Any, Any]):
    """Says that something was executed at every second step, whatever it is told to say."""

    def __init__(self, env: gym.Env[Any, Any], said: Any):
        super().__init__(env)
        self.said, self.time = said, 0

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.time += 1
        obs, reward, terminated, truncated, _ = self.env.step(action)
        says = {"other": object(), EXECUTED: self.said if self.time % 2 == 0 else None}
        return obs, reward, terminated, truncated, says


def filtered() -> gym.Env[Any, Any]:
    return Filtered(Bounded())


gym.register("Filtered-v0", "support.acting_probes:filtered", disable_env_checker=True)
gym.register("Bounded-v0", "support.acting_probes:Bounded", disable_env_checker=True)

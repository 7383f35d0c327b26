"""Small datasets of environments of the tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from baq_cli.data.episodes import Episodes
from baq_cli.data.minari.read import load_episodes
from baq_cli.data.minari.write import write_minari
from baq_cli.data.suite import Uniform
from baq_cli.engine.collection.datasets import collect_dataset
from baq_cli.envs.ref import EnvChoice
from support.counting_envs import Counting
from support.odd_envs import Steady
from support.recordings import plain_recording


def write_steady(dataset_id: str, episodes: int = 8, env: Steady | None = None) -> None:
    """Save episodes of actions at random in `Steady-v0`, or in one like it."""
    env, rng = env or Steady(), np.random.default_rng(0)
    low, high = float(env.action_space.low[0]), float(env.action_space.high[0])
    parts: dict[str, list[Any]] = {"obs": [], "action": [], "reward": [], "over": [], "cut": []}
    lengths = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        parts["obs"].append(obs)
        lengths.append(0)
        over = cut = False
        while not (over or cut):
            action = rng.uniform(low, high, size=1).astype(np.float32)
            obs, reward, over, cut, _ = env.step(action)
            cut = cut and not over
            lengths[-1] += 1
            found = {"obs": obs, "action": action, "reward": reward, "over": over, "cut": cut}
            for name, value in found.items():
                parts[name].append(value)
    recording = plain_recording(
        tuple(lengths),
        observation_space=env.observation_space,
        action_space=env.action_space,
        observations={"": np.stack(parts["obs"])},
        actions=np.stack(parts["action"]),
        rewards=np.array(parts["reward"]),
        terminated=np.array(parts["over"]),
        truncated=np.array(parts["cut"]),
    )
    write_minari(dataset_id, recording)


def write_pendulum(dataset_id: str) -> None:
    """Save four episodes in the spaces of `Pendulum-v1`, with actions at random."""
    env = gym.make("Pendulum-v1")
    lengths, rng = (30, 30, 30, 30), np.random.default_rng(0)
    recording = plain_recording(
        lengths,
        observation_space=env.observation_space,
        action_space=env.action_space,
        actions=rng.uniform(-1.5, 1.5, size=(sum(lengths), 1)).astype(np.float32),
    )
    write_minari(dataset_id, recording)


def collect_pendulum(dataset_id: str, env_steps: int = 400) -> None:
    """Collect steps at random in `Pendulum-v1`, as the command does."""
    choice = EnvChoice("Pendulum-v1")
    collect_dataset(dataset_id, [Uniform()], choice, env_steps, 0, False, lambda event: None)


def write_counting(dataset_id: str, cut: bool = True, **changes: Any) -> Episodes:
    """Save episodes of three and four steps in `Counting-v0`, cut or terminated."""
    steps = np.array([*range(4), *range(5)], dtype=np.float32)
    recording = plain_recording(
        (3, 4),
        observation_space=Counting.observation_space,
        action_space=Counting.action_space,
        observations={"": np.stack([steps, np.ones(9, np.float32)], axis=1)},
        actions=np.linspace(-0.5, 0.5, 7, dtype=np.float32)[:, None],
        **changes,
    )
    if cut:
        recording = replace(
            recording, terminated=recording.truncated, truncated=recording.terminated
        )
    write_minari(dataset_id, recording)
    return load_episodes(dataset_id)

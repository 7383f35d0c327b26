"""A small dataset of an environment of the tests."""

from __future__ import annotations

import numpy as np
from odd_envs import Steady
from recordings import plain_recording

from baq_cli.data.minari.write import write_minari


def write_steady(dataset_id: str, episodes: int = 8, env: Steady | None = None) -> None:
    """Save episodes of actions at random in `Steady-v0`, or in one like it."""
    env, rng = env or Steady(), np.random.default_rng(0)
    low, high = float(env.action_space.low[0]), float(env.action_space.high[0])
    parts: dict[str, list[object]] = {"obs": [], "action": [], "reward": [], "over": [], "cut": []}
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

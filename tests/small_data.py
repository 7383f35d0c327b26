"""A small dataset of an environment of the tests."""

from __future__ import annotations

import numpy as np
from odd_envs import Steady
from recordings import plain_recording

from baq_cli.data.minari.write import write_minari


def write_steady(dataset_id: str, episodes: int = 8) -> None:
    """Save episodes of actions at random in `Steady-v0`."""
    env, rng = Steady(), np.random.default_rng(0)
    parts: dict[str, list[object]] = {"obs": [], "action": [], "reward": [], "over": [], "cut": []}
    lengths = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        parts["obs"].append(obs)
        lengths.append(0)
        over = cut = False
        while not (over or cut):
            action = rng.uniform(-1, 1, size=1).astype(np.float32)
            obs, reward, over, cut, _ = env.step(action)
            cut = cut and not over
            lengths[-1] += 1
            found = {"obs": obs, "action": action, "reward": reward, "over": over, "cut": cut}
            for name, value in found.items():
                parts[name].append(value)
    recording = plain_recording(
        tuple(lengths),
        observation_space=Steady.observation_space,
        action_space=Steady.action_space,
        observations={"": np.stack(parts["obs"])},
        actions=np.stack(parts["action"]),
        rewards=np.array(parts["reward"]),
        terminated=np.array(parts["over"]),
        truncated=np.array(parts["cut"]),
    )
    write_minari(dataset_id, recording)

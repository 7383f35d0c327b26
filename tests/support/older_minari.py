"""Datasets as Minari before 0.5 left them, for the tests of what brings them over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np

from baq_cli.data.minari.folder import dataset_path
from baq_cli.data.recording import Recording
from baq_cli.envs.spaces import flatten_parts
from support.recordings import nested, plain_recording

OLD = "pen-human-v1"
SPEC: dict[str, Any] = {
    "id": "Pendulum-v1",
    "entry_point": "gymnasium.envs.classic_control.pendulum:PendulumEnv",
    "reward_threshold": None,
    "nondeterministic": False,
    "max_episode_steps": 200,
    "order_enforce": True,
    "autoreset": False,
    "disable_env_checker": False,
    "apply_api_compatibility": False,
    "kwargs": {},
    "additional_wrappers": [],
    "vector_entry_point": None,
}


def pendulum() -> Recording:
    env = gym.make("Pendulum-v1")
    space, actions = env.observation_space, env.action_space
    torques = np.random.default_rng(0).uniform(-1, 1, (8, 1)).astype(np.float32)
    return plain_recording(
        (4, 1, 3),
        observation_space=space,
        action_space=actions,
        actions=torques,
        seeds=(7, None, 2**40),
        infos={"height": np.arange(11.0), "deep/x": np.arange(8.0)},
    )


def older(made: Recording, version: str = "~=0.4", name: str = OLD, **attributes: Any) -> Path:
    """Leave a recording as Minari 0.3 and 0.4 did; return its file."""
    from minari.serialization import serialize_space

    path = dataset_path(name) / "data" / "main_data.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {
        "dataset_id": name,
        "total_episodes": len(made.lengths),
        "total_steps": len(made.rewards),
        "env_spec": json.dumps(SPEC),
        "algorithm_name": "by hand",
        "author": "Ada",
        "author_email": "ada@example.org",
        "code_permalink": "x",
        "minari_version": version,
        "observation_space": serialize_space(made.observation_space),
        "action_space": serialize_space(made.action_space),
    } | attributes
    with h5py.File(path, "w") as file:
        file.attrs.update({k: v for k, v in said.items() if v is not None})
        start = first = 0
        for number, length in enumerate(made.lengths.tolist()):
            steps, rows = slice(start, start + length), slice(first, first + length + 1)
            seed = made.seeds[number]
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "total_steps": length})
            group.attrs["seed"] = "None" if seed is None else seed
            parts = {n: a[rows] for n, a in made.observations.items()}
            flat = attributes.get("flatten_observation", False)
            put(group, "observations", flatten_parts(parts) if flat else nested(parts))
            group["actions"], group["rewards"] = made.actions[steps], made.rewards[steps]
            group["terminations"] = made.terminated[steps]
            group["truncations"] = made.truncated[steps]
            infos = {
                n: a[steps if len(a) == len(made.rewards) else rows] for n, a in made.infos.items()
            }
            put(group, "infos", nested(infos))
            start, first = steps.stop, rows.stop
    return path


def put(group: h5py.Group, name: str, content: Any) -> None:
    if isinstance(content, dict):
        for key, inner in content.items():
            put(group, f"{name}/{key}", inner)
    else:
        group[name] = content

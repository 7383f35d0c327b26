"""Small sets of the names, the spaces and the environments of public ones, made of noise.

What Minari publishes is written down here by hand, from its documentation (minari.farama.org) and
the scripts that made the sets (Farama-Foundation/minari-dataset-generation-scripts): ids with their
versions, environments with their arguments and limits, spaces.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict

from baq_cli.data.minari.write import write_minari
from baq_cli.data.ogbench import save_single_task
from baq_cli.envs.registered import register_more
from support.recordings import plain_recording

LENGTHS = (6, 6, 7)
KITCHEN = ("microwave", "kettle", "light switch", "slide cabinet")
ELEMENTS = {
    **{"bottom burner": 2, "hinge cabinet": 2, "kettle": 7, "light switch": 2, "microwave": 1},
    **{"slide cabinet": 1, "top burner": 2},
}
UMAZE = [[1, 1, 1, 1, 1], [1, 0, 0, "r", 1], [1, 0, 1, 1, 1], [1, 0, 0, "g", 1], [1, 1, 1, 1, 1]]


def goal(obs: int) -> Dict:
    """The observations of a maze: where one is, where to go, and the rest."""
    parts = {"achieved_goal": 2, "desired_goal": 2, "observation": obs}
    return Dict({name: reals(size) for name, size in parts.items()})


def reals(size: int) -> Box:
    return Box(-np.inf, np.inf, (size,), np.float64)


def unit(size: int, dtype: Any = np.float32) -> Box:
    return Box(-1.0, 1.0, (size,), dtype)


@dataclass(frozen=True)
class Public:
    """A public set: where it was recorded, where policies are evaluated, and its spaces."""

    env_id: str
    observation: gym.Space[Any]
    action: Box
    kwargs: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    eval_kwargs: dict[str, Any] | None = None
    eval_limit: int | None = None


def kitchen(kind: str) -> Public:
    tasks = [*KITCHEN[:2], "bottom burner", KITCHEN[2]] if kind == "mixed" else [*KITCHEN]
    goals = Dict({name: reals(ELEMENTS[name]) for name in sorted(tasks)})
    observation = Dict({"achieved_goal": goals, "desired_goal": goals, "observation": reals(59)})
    kwargs = {
        "tasks_to_complete": tasks,
        "remove_task_when_completed": False,
        "terminate_on_tasks_completed": False,
    }
    limit = 280 if kind == "complete" else 450
    return Public("FrankaKitchen-v1", observation, unit(9, np.float64), kwargs, limit)


def antmaze(env: str) -> Public:
    on = {"continuing_task": True, "reset_target": False}
    evaluated = on | {"maze_map": UMAZE}  # of the others the goal matters, not where it is
    limit = 700 if "UMaze" in env else 1000
    return Public(f"AntMaze_{env}-v4", goal(27), unit(8), on, limit, evaluated, limit)


def pointmaze(env: str, limit: int) -> Public:
    evaluated = {"maze_map": UMAZE, "continuing_task": True, "reset_target": False}
    on = {"continuing_task": True, "reset_target": True}
    return Public(f"PointMaze_{env}-v3", goal(4), unit(2), on, 1_000_000, evaluated, limit)


ADROIT = {"pen": (45, 24), "door": (39, 28), "hammer": (46, 26), "relocate": (39, 30)}
MUJOCO = {"hopper": ("Hopper", 11, 3), "halfcheetah": ("HalfCheetah", 17, 6)} | {
    "walker2d": ("Walker2d", 17, 6),
    "ant": ("Ant", 105, 8),
}
MAZES = {"umaze": ("UMaze", 300), "medium": ("Medium", 600), "large": ("Large", 800)}
MINARI: dict[str, Public] = {
    **{
        f"D4RL/antmaze/{name}-v1": antmaze(env)
        for name, env in {
            **{"umaze": "UMaze", "umaze-diverse": "UMaze"},
            **{"medium-play": "Medium", "medium-diverse": "Medium_Diverse_GR"},
            **{"large-play": "Large", "large-diverse": "Large_Diverse_GR"},
        }.items()
    },
    **{
        f"D4RL/{hand}/{kind}-v2": Public(
            f"AdroitHand{hand.title()}-v1", reals(obs), unit(action), limit=200
        )
        for hand, (obs, action) in ADROIT.items()
        for kind in ("human", "cloned", "expert")
    },
    **{f"D4RL/kitchen/{kind}-v2": kitchen(kind) for kind in ("complete", "partial", "mixed")},
    **{
        f"D4RL/pointmaze/{name}{dense.lower().replace('dense', '-dense')}-v2": pointmaze(
            f"{env}{dense}", limit
        )
        for name, (env, limit) in (MAZES | {"open": ("Open", 300)}).items()
        for dense in ("", "Dense")
    },
    **{
        f"mujoco/{task}/{kind}-v0": Public(f"{env}-v5", reals(obs), unit(action), limit=1000)
        for task, (env, obs, action) in MUJOCO.items()
        for kind in ("simple", "medium", "expert")
    },
}
OGBENCH = {
    **{"antmaze-large-navigate": (29, 8, 1), "antmaze-giant-navigate": (29, 8, 1)},
    **{"humanoidmaze-medium-navigate": (69, 21, 1), "humanoidmaze-large-navigate": (69, 21, 1)},
    **{"antsoccer-arena-navigate": (42, 8, 4), "cube-single-play": (28, 5, 2)},
    **{"cube-double-play": (37, 5, 2), "cube-triple-play": (46, 5, 2), "scene-play": (40, 5, 2)},
    **{"puzzle-3x3-play": (55, 5, 4), "puzzle-4x4-play": (83, 5, 4)},
}
"""Numbers of an observation and of an action, and the default task, by the file's name."""
QPOS, BUTTONS = 60, {"scene-play": 2, "puzzle-3x3-play": 9, "puzzle-4x4-play": 16}
PUBLIC = (
    *MINARI,
    *(f"ogbench/{name}/task{task}-v0" for name in OGBENCH for task in range(1, 6)),
)


def make(dataset_id: str, folder: Path) -> None:
    """Save a small set of a public one's format and name."""
    if dataset_id in MINARI:
        _make_minari(dataset_id, MINARI[dataset_id])
        return
    _, name, task = dataset_id.split("/")
    path = write_ogbench(name, folder)
    save_single_task(path, int(task.removeprefix("task").removesuffix("-v0")))


def _make_minari(dataset_id: str, of: Public) -> None:
    rng, steps = np.random.default_rng(0), sum(LENGTHS)
    register_more(of.env_id)
    actions = rng.uniform(-0.9, 0.9, (steps, *of.action.shape)).astype(of.action.dtype)
    spec = gym.spec(of.env_id)
    rewards = rng.normal(size=steps)
    if "antmaze" in dataset_id:  # the second episode reaches the goal in its third step, and stays
        rewards = np.zeros(steps)
        rewards[8:12] = 1.0
    recording = plain_recording(
        LENGTHS,
        observation_space=of.observation,
        action_space=of.action,
        actions=actions,
        rewards=rewards,
        terminated=np.zeros(steps, dtype=bool),
        truncated=np.isin(np.arange(steps), np.cumsum(LENGTHS) - 1),
        env_spec=replace(spec, kwargs=spec.kwargs | of.kwargs, max_episode_steps=of.limit),
        eval_env_spec=None
        if of.eval_kwargs is None
        else replace(spec, kwargs=spec.kwargs | of.eval_kwargs, max_episode_steps=of.eval_limit),
    )
    write_minari(dataset_id, recording)


def write_ogbench(name: str, folder: Path) -> Path:
    """Write a file as OGBench's: rows of trajectories, the last of each an observation only."""
    obs, action, _ = OGBENCH[name]
    rng, rows = np.random.default_rng(0), sum(LENGTHS)
    path = folder / f"{name}-v0.npz"
    arrays: Any = {
        "observations": rng.normal(size=(rows, obs)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, action)).astype(np.float32),
        "terminals": np.isin(np.arange(rows), np.cumsum(LENGTHS) - 1),
        "qpos": rng.normal(size=(rows, QPOS)).astype(np.float32),
        "qvel": rng.normal(size=(rows, QPOS)).astype(np.float32),
    }
    if name in BUTTONS:
        arrays["button_states"] = rng.integers(0, 2, (rows, BUTTONS[name]))
    np.savez(path, **arrays)
    return path

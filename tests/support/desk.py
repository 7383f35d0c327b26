"""What the reader of the pages has of their own, in small: logs, datasets, an environment, runs.

A page's commands name things that nobody can give but its reader. `GIVEN` has each by the name that
pages have for it: the function that makes it, or the command. It is made when a command first names
it, if nothing of the page has made it before.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.logs import d4rl_arrays, write_d4rl
from support.older_minari import older, pendulum
from support.pages import blocks
from support.public_sets import make, write_ogbench
from support.robot_logs import write_lerobot, write_robomimic

Array = np.ndarray[Any, Any]
ROWS, EPISODES = 30, 6
HOME = "home"
ARM = """
import gymnasium
import numpy as np


class Arm(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,))
    action_space = gymnasium.spaces.Box(-np.ones(3), np.array([1, 1, 0.5]), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=4).astype(np.float32)
        return self.place, {}

    def step(self, action):
        self.place = (0.9 * self.place + [*action, action.sum()]).astype(np.float32)
        return self.place, -float(np.abs(self.place).sum()), False, False, {}


gymnasium.register("Arm-v0", Arm, max_episode_steps=20)
"""
"""The module `my_package`: its arm has the spaces of the log that docs/data.md maps."""


PENDULUM = """
import gymnasium

gymnasium.register("Arm-v0", "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=20)
"""
"""The module `my_arm`: that of docs/robots.md, which has Pendulum in a robot's place."""


def settle_at_home(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have the user's folders lie in a home of their own, as no variable moves them."""
    for name in (HOME, "tmp"):
        (folder / name).mkdir()
    patch.setenv("HOME", str(folder / HOME))
    patch.setenv("MINARI_DATASETS_PATH", str(folder / HOME / ".minari" / "datasets"))
    patch.setenv("BAQ_CACHE", str(folder / HOME / ".cache" / "baq"))
    patch.setenv("TMPDIR", str(folder / "tmp"))
    patch.chdir(folder)


# -- logs


def logged(columns: dict[str, int]) -> dict[str, Array]:
    """Return columns of numbers in [−0.5, 0.5], so many of each name, and where episodes end."""
    rng, count = np.random.default_rng(0), ROWS * EPISODES
    found = {
        f"{name}_{i}" if width > 1 else name: rng.uniform(-0.5, 0.5, count)
        for name, width in columns.items()
        for i in range(width)
    }
    last = np.arange(count) % ROWS == ROWS - 1
    return found | {"episode": np.repeat(np.arange(EPISODES), ROWS), "last": last * 1}


def write_csv(path: Path, columns: dict[str, Any]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def robot_log(path: Path) -> None:
    """Write a log with the columns that the mapping of docs/robots.md names."""
    found = logged({"obs": 3, "reward": 1, "action_0": 1})
    write_csv(path, {**found, "terminated": 0 * found.pop("last")})


def mapped_log(path: Path) -> None:
    """Write a log with the columns that the mapping of docs/data.md names."""
    found = logged({"joint": 2, "torque": 3, "x": 1, "y": 1, "r": 1})
    names = {"x": "x2", "y": "y2", "joint_0": "next_joint_0", "joint_1": "next_joint_1"}
    found |= {later: np.roll(found[name], -1) for name, later in names.items()}
    last, run = found.pop("last"), found.pop("episode")
    ends = {"fell": 0 * last, "stopped": last, "over": last, "run": run, "success": last}
    write_csv(path, found | ends)


def page_block(page: str, start: str, path: Path) -> None:
    """Write the block of a page that begins so into a file."""
    (text,) = (block.text for block in blocks(page) if block.text.startswith(start))
    path.write_text(text)


def d4rl(obs: int, actions: int, reach: float, path: Path) -> None:
    """Write a D4RL file of these sizes, whose actions reach so far."""
    rng, rows = np.random.default_rng(0), 60
    found = d4rl_arrays([0] * rows, [i % 20 == 19 for i in range(rows)], None, False)
    found["observations"] = rng.normal(size=(rows, obs))
    found["actions"] = rng.uniform(-reach, reach, size=(rows, actions))
    write_d4rl(path, found)


def maze_log(path: Path) -> None:
    """Write a file of OGBench's that has no rewards."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "observations": rng.normal(size=(20, 4)),
        "actions": rng.uniform(-1, 1, (20, 2)),
        "terminals": np.arange(20) % 10 == 9,
    }
    np.savez(path, **arrays)


def ogbench_file(path: Path) -> None:
    write_ogbench(path.stem.removesuffix("-v0"), path.parent)


def published_curves(path: Path) -> None:
    """Write curves of a method on the tasks of docs/comparing.md."""
    head = "dataset,algo,seed_index,phase,eval_index,normalized_score"
    rows = [
        f"{task},REDQ,{seed},{phase},{i},{20 * i + seed}"
        for task in ("baq/pendulum/replay-v0", "baq/hopper/medium-v0")
        for seed in range(3)
        for phase in ("offline", "online")
        for i in range(3)
    ]
    path.write_text("\n".join([head, *rows]))


def public_set(dataset_id: str, _: Path) -> None:
    make(dataset_id, Path.cwd())


Maker = Callable[[Path], Any]
IQL, TD3 = "baq pretrain --recipe pendulum/iql", "baq pretrain --recipe pendulum/td3_bc"
GIVEN: dict[str, Maker | str] = {
    # logs, by the page that names them
    "monday.csv": robot_log,
    "monday.yaml": partial(page_block, "docs/robots.md", "# arm.yaml"),
    "hopper_medium.hdf5": partial(d4rl, 11, 3, 0.9),
    "so101-cups": partial(write_lerobot, version="3.0"),
    "log.csv": mapped_log,
    "log.yaml": partial(page_block, "docs/data.md", "observation: "),
    "~/.cache/huggingface/lerobot/me/so101-cups": partial(write_lerobot, version="3.0"),
    "lift/ph/low_dim.hdf5": write_robomimic,
    "pointmaze-medium-navigate-v0.npz": maze_log,
    "SafetyHopper-v0.hdf5": partial(d4rl, 11, 3, 1.5),
    "~/.minari/datasets/pen-human-v1/data/main_data.hdf5": lambda _: older(pendulum()),
    "~/.ogbench/data/cube-double-play-v0.npz": ogbench_file,
    "published.csv": published_curves,
    "my_package": lambda _: Path("my_package.py").write_text(ARM),
    "my_arm": lambda _: Path("my_arm.py").write_text(PENDULUM),
    # datasets
    "me/arm/monday-v0": "baq data collect me/arm/monday-v0 --env Pendulum-v1 --behavior random",
    "me/hopper/logs-v0": "baq data collect me/hopper/logs-v0 --env Hopper-v5 --behavior random",
    "d4rl/antmaze-large-play": partial(public_set, "D4RL/antmaze/large-play-v1"),
    # runs
    "runs/a": f"{IQL} --out runs/a",
    "runs/b": "baq finetune --checkpoint runs/a --out runs/b",
    "runs/offline": f"{IQL} --out runs/offline",
    "runs/arm": "baq finetune --checkpoint runs/offline --out runs/arm",
    "runs/arm-online": "baq finetune --checkpoint runs/arm --env Pendulum-v1 --seeds 0, "
    "--control-hz 100 --out runs/arm-online",
    "runs/hopper-hi_ors": "baq pretrain --recipe hopper/hi_ors --out runs/hopper-hi_ors",
    "runs/expert": "baq pretrain --recipe hopper/td3_bc --seeds 0, --out runs/expert",
    "runs/new": f"{IQL} --out runs/new",
    "runs/trusted": f"{TD3} --out runs/trusted",
    "runs/mine/offline": f"{TD3} --out runs/mine/offline",
    "runs/mine/online": "baq finetune --checkpoint runs/mine/offline --out runs/mine/online",
    **{
        name: command
        for run, words in {
            "runs/s0": "--seeds 0,",
            "runs/s1": "--seeds 1,",
            "runs/s2": "--seeds 2,",
            "runs/k": "--seeds 0, iql.expectile=0.9",
        }.items()
        for name, command in {
            f"{run}-offline": f"{IQL} --out {run}-offline {words}",
            run: f"baq finetune --checkpoint {run}-offline --out {run}",
        }.items()
    },
    "runs/antmaze": "baq compare --recipe d4rl/antmaze-large-play --algos iql --seeds 0, "
    "--out runs/antmaze",
}
"""What makes each thing, given its path, or the command that does."""

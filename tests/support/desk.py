"""What the reader of the pages has on the desk: logs, datasets and runs of their own, in small.

A page's commands name files that nobody can give but its reader. `GIVEN` has each by the name that
pages give it: what writes it, or the command that makes it. It is made when a command first names
it and no command of the page has left it there.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from support.logs import d4rl_arrays, write_d4rl
from support.pages import blocks

Array = np.ndarray[Any, Any]
ROWS, EPISODES = 30, 6
HOME = Path("home")
PACKAGE = """
import gymnasium
import numpy as np


class Arm(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    action_space = gymnasium.spaces.Box(np.full(3, -1.0), np.array([1, 1, 0.5]), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=4)
        return self.place, {}

    def step(self, action):
        self.place = 0.9 * self.place + np.array([*action, action.sum()])
        return self.place, -float(np.abs(self.place).sum()), False, False, {}


gymnasium.register("Arm-v0", Arm, max_episode_steps=20)
"""
"""The module `my_package`, whose arm has the spaces of the log that docs/data.md maps."""


def logged(columns: dict[str, int]) -> dict[str, Array]:
    """Return columns of numbers in [−0.5, 0.5], so many of each name, of a few episodes."""
    rng, count = np.random.default_rng(0), ROWS * EPISODES
    wide = {
        f"{name}_{i}" if width > 1 else name: rng.uniform(-0.5, 0.5, count)
        for name, width in columns.items()
        for i in range(width)
    }
    last = np.arange(count) % ROWS == ROWS - 1
    return {**wide, "episode": np.repeat(np.arange(EPISODES), ROWS), "last": last}


def write_csv(path: str, columns: dict[str, Array]) -> None:
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def monday() -> None:
    """A robot's log as docs/robots.md maps it: three observations and one action."""
    found = logged({"obs": 3, "reward": 1, "action_0": 1})
    write_csv("monday.csv", {**found, "terminated": found.pop("last") & False})


def mapped() -> None:
    """A log with every column that the mapping of docs/data.md names."""
    found = logged({"joint": 2, "torque": 3, "x": 1, "y": 1, "r": 1, "x2": 1, "y2": 1})
    found |= {f"next_{name}": np.roll(found[name], -1) for name in ("joint_0", "joint_1")}
    last, episode = found.pop("last"), found.pop("episode")
    ends = {"fell": last & False, "stopped": last, "over": last, "run": episode, "success": last}
    write_csv("log.csv", found | ends)


def mapping(page: str, name: str, begins: str) -> Callable[[], None]:
    """Return what writes a page's block of YAML into a file of its own."""

    def write() -> None:
        (text,) = (of.text for of in blocks(page) if of.text.startswith(begins))
        Path(name).write_text(text)

    return write


def hdf5(path: str, obs: int, actions: int, bound: float = 0.9) -> Callable[[], None]:
    """Return what writes a D4RL file of these sizes, with actions up to a bound."""

    def write() -> None:
        found, rng = d4rl_arrays([0] * 60, [i % 20 == 19 for i in range(60)], None, True), rng_()
        found["observations"] = rng.normal(size=(60, obs))
        found["next_observations"] = np.roll(found["observations"], -1, axis=0)
        found["actions"] = bound * np.tanh(rng.normal(size=(60, actions)) * 3)
        write_d4rl(Path(path), found)

    return write


def rng_() -> np.random.Generator:
    return np.random.default_rng(0)

"""A waypoint controller for mazes: the shortest way from cell to cell, followed by a PD law.

As the public PointMaze datasets have it (Fu et al. 2020, arXiv 2004.07219, section 4; Minari's
pointmaze sets): a planner over the maze's cells, a PD controller towards the next cell's centre,
noise on its actions. The planner there is value iteration; breadth-first search gives the same way.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.envs.faults import let_go
from baq_cli.envs.making import make_env
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import EnvironmentMismatch

Array = npt.NDArray[Any]
Cell = tuple[int, int]
PROPORTIONAL = 10.0
DERIVATIVE = 1.0
"""Gains of the public datasets' controller."""
GOAL_LAYOUT = {"achieved_goal": 2, "desired_goal": 2, "observation": 4}


class WaypointController:
    """Steers a point through the maze of a PointMaze environment.

    Raises EnvironmentMismatch for an environment without a maze and goal observations.
    """

    def __init__(self, ref: EnvRef | str):
        env = make_env(ref)
        self.maze: Any = getattr(env.unwrapped, "maze", None)
        layout = Spaces.of(env.observation_space, env.action_space).obs_layout
        let_go(env)
        if self.maze is None or dict(layout) != GOAL_LAYOUT:
            raise EnvironmentMismatch(
                f"'{ref}' has no maze to find a way in: the waypoint controller is for PointMaze"
            )
        free = np.argwhere(np.asarray(self.maze.maze_map, dtype=object) != 1)
        self._free = {(int(row), int(column)) for row, column in free}
        self._ways: dict[Cell, dict[Cell, Cell]] = {}

    def __call__(self, obs: Array, noise: Array) -> Array:
        """Return actions `[K, 2]` in [−1, 1] for `obs [K, 8]`; `noise [K, 2]` is added.

        `obs` is flattened: achieved_goal, desired_goal, position and velocity, two numbers each.
        """
        position, goal, velocity = obs[:, 0:2], obs[:, 2:4], obs[:, 6:8]
        ahead = np.stack([self._ahead(*pair) for pair in zip(position, goal, strict=True)])
        action = PROPORTIONAL * (ahead - position) - DERIVATIVE * velocity
        return np.clip(action + noise, -1.0, 1.0).astype(np.float32)

    def _ahead(self, position: Array, goal: Array) -> Array:
        """Return the point to steer for: the next cell's centre, or the goal in its own cell."""
        here, there = (self._cell(point) for point in (position, goal))
        if here == there:
            return goal
        if there not in self._ways:
            self._ways[there] = self._search(there)
        following = self._ways[there].get(here, there)
        return np.asarray(self.maze.cell_rowcol_to_xy(np.asarray(following)))

    def _cell(self, point: Array) -> Cell:
        row, column = self.maze.cell_xy_to_rowcol(point)
        return int(row), int(column)

    def _search(self, goal: Cell) -> dict[Cell, Cell]:
        """Return, for each cell, the neighbour on a shortest way to the goal's cell."""
        way: dict[Cell, Cell] = {}
        queue = deque([goal])
        while queue:
            row, column = queue.popleft()
            for cell in (
                (row + 1, column),
                (row - 1, column),
                (row, column + 1),
                (row, column - 1),
            ):
                if cell in self._free and cell not in way and cell != goal:
                    way[cell] = (row, column)
                    queue.append(cell)
        return way

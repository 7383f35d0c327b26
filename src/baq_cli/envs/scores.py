"""What a return is measured against: the returns of a random and of an expert policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from baq_cli.envs.ref import EnvRef, named
from baq_cli.errors import UsageError

Array = npt.NDArray[Any]


D4RL, OWN = "d4rl", "baq"
"""References that belong to no dataset, as a command names them."""


@dataclass(frozen=True)
class Reference:
    """Raw returns of a random and an expert policy, and where they come from.

    `label` goes beside every score that is normalised by it.
    """

    label: str
    random: float
    expert: float
    source: str

    def normalize(self, returns: Array | float) -> Any:
        """Return 100·(R − random) / (expert − random): 0 is random, 100 is the expert."""
        return 100.0 * (returns - self.random) / (self.expert - self.random)

    def scale(self, spread: float) -> float:
        """Return a standard deviation in normalised units: spreads know no offset."""
        return 100.0 * spread / abs(self.expert - self.random)


KEPT = ("ref_min_score", "ref_max_score")
"""Where Minari keeps the returns of a random and of an expert policy, in a dataset's metadata."""
MOST = 1e30
"""What a run's files take for a score at most."""
D4RL_SOURCE = (
    "D4RL's published constants, measured on the environments of 2020 (mujoco-py); applied to "
    "today's environments they are a convention"
)
_D4RL = {
    "HalfCheetah": (-280.178953, 12135.0),
    "Hopper": (-20.272305, 3234.3),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
    "AntMaze": (0.0, 1.0),
    "AdroitHandPen": (96.262799, 3076.8331017826877),
    "AdroitHandDoor": (-56.512833, 2880.5693087298737),
    "AdroitHandHammer": (-274.856578, 12794.134825156867),
    "AdroitHandRelocate": (-6.425911, 4233.877797728884),
}
"""By the environment's name without its version; AntMaze stands for all mazes and goals."""


def published(env_id: str) -> Reference | None:
    """Return D4RL's reference for an environment of today with the same task, or None."""
    name, _, version = env_id.rpartition("-v")  # with a namespace or a module it is one's own
    if not version.isdigit():
        return None
    family = "AntMaze" if name.startswith("AntMaze_") else name
    if family not in _D4RL:
        return None
    random, expert = _D4RL[family]
    return Reference(f"D4RL {family}", random, expert, D4RL_SOURCE)


MEASURED_SOURCE = (
    "measured by this tool: uniformly random actions and the suite's best behaviour, 100 "
    "episodes each"
)
_MEASURED = {
    "Pendulum-v1": (-1302.79, -154.39),
    "InvertedDoublePendulum-v5": (48.04, 9356.64),
    "InvertedPendulum-v5": (5.23, 1000.0),
    "Reacher-v5": (-42.41, -6.29),
    "Swimmer-v5": (-0.04, 332.83),
    "LunarLanderContinuous-v3": (-244.97, 123.11),
    "BipedalWalker-v3": (-99.62, 287.87),
    "PointMaze_UMaze-v3": (14.02, 247.25),
    "PointMaze_Medium-v3": (8.1, 496.27),
}


_TASKS = {
    "PointMaze_UMaze": ("maze2d-umaze-v1", 23.85, 161.86),
    "PointMaze_Medium": ("maze2d-medium-v1", 13.13, 277.39),
    "PointMaze_Large": ("maze2d-large-v1", 6.7, 273.99),
    "PointMaze_UMazeDense": ("maze2d-umaze-dense-v1", 68.537689, 193.66285),
    "PointMaze_MediumDense": ("maze2d-medium-dense-v1", 44.264742, 297.4552),
    "PointMaze_LargeDense": ("maze2d-large-dense-v1", 30.569041, 303.4857),
}
"""D4RL's sets whose task an environment has where its maze has one goal that stays, by its name."""
KITCHEN_TASKS = 4
"""Tasks of each of D4RL's kitchen sets."""


def known_reference(env: EnvRef | str) -> Reference | None:
    """Return D4RL's reference for an environment, else this tool's own for its suite, or None.

    One that is made with arguments or a limit of its own is another task, and has none, unless
    these make it D4RL's task: see `_as_d4rl_has_it`.
    """
    env = named(env)
    found = _as_d4rl_has_it(env)
    if found is not None or env.id.startswith("AntMaze_") or env != EnvRef(env.id):
        return found
    return measured(env) or published(env.id)


def measured(env: EnvRef) -> Reference | None:
    """Return this tool's own reference for an environment of its suite as registered, or None."""
    if env != EnvRef(env.id) or env.id not in _MEASURED:
        return None
    return Reference(f"baq {env.id}", *_MEASURED[env.id], MEASURED_SOURCE)


def measuring(env: EnvRef) -> str:
    """Return the command that measures an environment's references, but for where they go."""
    named_by = env.flags().removeprefix("--env ")
    return f"baq data score-reference {named_by} --checkpoint PATH"


def own_beside(env: EnvRef) -> str:
    """Return what a message says of this tool's own reference where it has one, else nothing."""
    return "" if measured(env) is None else f"; '--reference {OWN}' is this tool's own"


def _as_d4rl_has_it(env: EnvRef) -> Reference | None:
    """Return D4RL's reference for an environment whose arguments decide what a return is.

    AntMaze: an episode ends at the goal, so its return is 1 or 0; as it is registered it goes on,
    and returns count steps at the goal. PointMaze: it goes on, at one goal, in as many steps as it
    is registered with. Kitchen: each of four tasks counts once.
    """
    name, args = env.id.rpartition("-v")[0], env.kwargs
    if name.startswith("AntMaze_") and args.get("continuing_task", True) is False:
        return published(env.id)
    goes_on = args.get("continuing_task", True) and not args.get("reset_target", False)
    if name in _TASKS and goes_on and _goals(args) == 1 and env.max_episode_steps is None:
        label, random, expert = _TASKS[name]
        return Reference(f"D4RL {label}", random, expert, D4RL_SOURCE)
    tasks, once = args.get("tasks_to_complete"), args.get("remove_task_when_completed", True)
    if name == "FrankaKitchen" and once and tasks is not None and len(tasks) == KITCHEN_TASKS:
        return Reference("D4RL kitchen", 0.0, float(KITCHEN_TASKS), D4RL_SOURCE)
    return None


def _goals(args: dict[str, Any]) -> int:
    """Return how many cells of a maze are named as its goal; as registered, none is."""
    maze = args.get("maze_map")
    rows = maze if isinstance(maze, list) else []
    return sum(cell == "g" for row in rows if isinstance(row, list) for cell in row)


def stored(metadata: dict[str, Any], dataset_id: str) -> Reference | None:
    """Return the reference kept with a Minari dataset, or None.

    What makes no scale is none: other tools may keep anything there, NaN and equal returns too.
    """
    low, high = map(metadata.get, KEPT)
    if isinstance(low, bool) or isinstance(high, bool):
        return None
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        return None
    if not -MOST <= low < high <= MOST:
        return None
    told = metadata.get("baq_reference")
    source = told.get("source") if isinstance(told, dict) else None
    source = source or "recorded with the dataset"
    return Reference(dataset_id, float(low), float(high), str(source))


def named_or_refuse(name: str, env: EnvRef) -> Reference:
    """Return D4RL's reference (`d4rl`) or this tool's own (`baq`) for an environment.

    D4RL's holds for one with other arguments too.

    Raises UsageError when there is none, with the command that measures one.
    """
    if name == OWN:
        found, whose = measured(env), "this tool has"
    else:
        found, whose = _as_d4rl_has_it(env) or published(env.id), "D4RL published"
    if found is None:
        raise UsageError(
            f"{whose} no reference scores for {env}: measure them with '{measuring(env)} "
            f"--dataset ID', then name that dataset as the reference{own_beside(env)}"
        )
    return found

"""OGBench's files as datasets of single tasks, with the rewards that its own relabelling gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.exchange import Imported, save_arrays
from baq_cli.data.logs.ends.marks import flags
from baq_cli.data.logs.tables import read_arrays
from baq_cli.data.minari.folder import check_new_id
from baq_cli.envs.faults import let_go
from baq_cli.envs.making import make_env
from baq_cli.errors import DataError, EnvironmentMismatch, UsageError, clipped

Array = npt.NDArray[Any]
NEEDED = ("observations", "actions", "terminals", "qpos")
BUTTONS = "button_states"
ABOUT = (
    "OGBench's {file} (Park et al. 2025, arXiv 2410.20092) with the rewards of {env}, of the state "
    "that a step begins in, by OGBench's own relabelling; a step that begins where the task is "
    "done is the last of its episode, terminated, and the trajectory goes on as another episode."
)


def save_single_task(path: Path, task: int | None, dataset_id: str | None = None) -> Imported:
    """Save an OGBench file as the dataset of one of its environment's tasks.

    `task` counts from 1; None is the environment's default task. The file has OGBench's name,
    such as cube-double-play-v0.npz, which says the environment.
    Raises UsageError for another name or task, or an id that is taken; EnvironmentMismatch where
    OGBench isn't installed; DataError for a file that isn't OGBench's.
    """
    world, kind = _named(path)
    env_id = f"{world}-singletask-v0" if task is None else f"{world}-singletask-task{task}-v0"
    if dataset_id is not None:
        check_new_id(dataset_id)
    steps, number = _relabelled(_steps(path), env_id)
    return save_arrays(
        dataset_id or f"ogbench/{world}-{kind}/task{number}-v0",
        observations=steps["observations"],
        next_observations=steps["next_observations"],
        actions=steps["actions"],
        rewards=steps["rewards"],
        terminated=steps["terminated"],
        truncated=steps["truncated"],
        env=f"{world}-singletask-task{number}-v0",
        description=ABOUT.format(file=path.name, env=f"{world}-singletask-task{number}-v0"),
    )


def _named(path: Path) -> tuple[str, str]:
    """Return the environment that a file's name says, and the kind of its data."""
    world, _, kind = path.stem.removesuffix("-v0").rpartition("-")
    if path.suffix != ".npz" or not path.stem.endswith("-v0") or not world:
        raise UsageError(
            f"{clipped(path.name)} is no name of OGBench's: expected the file as it was "
            "downloaded, such as cube-double-play-v0.npz"
        )
    return world, kind


def _steps(path: Path) -> dict[str, Array]:
    """Return a file's steps; each trajectory's last row is what its last step led to."""
    rows = read_arrays(path, [*NEEDED, BUTTONS])
    missing = [name for name in NEEDED if name not in rows]
    count = 0 if missing else rows["terminals"].size
    odd = [name for name, array in rows.items() if array.dtype.kind not in "fiub"]
    lengths = {array.shape[:1] for array in rows.values()}
    if missing or odd or not count or lengths != {(count,)}:
        lacks = "its arrays have different lengths"
        lacks = f"its '{odd[0]}' holds no numbers" if odd else lacks
        lacks = f"it has no '{missing[0]}'" if missing else lacks
        raise DataError(f"{path} is no file of OGBench's: {lacks}")
    last = flags("terminals", rows["terminals"].reshape(-1), count)
    if last.all():
        raise DataError(f"{path} is no file of OGBench's: every row ends a trajectory")
    if not last[-1]:
        raise DataError(f"{path} is cut: its last row ends no trajectory")
    steps = {name: array[~last] for name, array in rows.items() if name != "terminals"}
    follows = np.flatnonzero(~last) + 1
    return steps | {
        "next_observations": rows["observations"][follows],
        "truncated": last[follows],
    }


def _relabelled(steps: dict[str, Array], env_id: str) -> tuple[dict[str, Array], int]:
    """Return steps with a task's rewards and terminations, and the task's number."""
    env = make_env(env_id)
    try:
        from ogbench.relabel_utils import relabel_dataset

        relabel_dataset(env_id, env, steps)
        number = int(env.unwrapped.cur_task_id)  # type: ignore[attr-defined]
    except (ImportError, AttributeError, IndexError, KeyError) as error:
        raise EnvironmentMismatch(
            f"{env_id} gives no rewards to a log: {type(error).__name__}: {error}. Expected an "
            "environment of ogbench 1.1 or later (pip install 'baq-cli[ogbench]')."
        ) from error
    finally:
        let_go(env)
    done = steps.pop("masks") == 0
    steps["truncated"] = steps["truncated"] & ~done
    return steps | {"terminated": done}, number

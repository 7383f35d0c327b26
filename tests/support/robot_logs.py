"""Logs as LeRobot and robomimic write them, for the tests of their imports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow
from pyarrow import parquet

Array = npt.NDArray[Any]
FPS = 20
LENGTHS = (4, 3)
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
"""Of version 3, where each episode's length is."""


def lerobot_columns(lengths: tuple[int, ...] = LENGTHS) -> dict[str, Array]:
    """Return the columns of a LeRobot dataset, every number in them another one."""
    rows = sum(lengths)
    index = np.arange(float(rows))
    frame = np.concatenate([np.arange(length) for length in lengths])
    return {
        "observation.state": np.stack([index, 0.5 - index], 1).astype("f4"),
        "observation.environment_state": np.stack([100 + index] * 3, 1).astype("f4"),
        "action": np.stack([(index - 3) / 8, (3 - index) / 16], 1).astype("f4"),
        "timestamp": (frame / FPS).astype("f4"),
        "frame_index": frame,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "index": np.arange(rows),
        "task_index": np.repeat(np.arange(len(lengths)), lengths),
        "next.reward": (1000 + index).astype("f4"),
    }


def last_rows(lengths: tuple[int, ...] = LENGTHS) -> Array:
    return np.isin(np.arange(sum(lengths)), np.cumsum(lengths) - 1)


def write_lerobot(
    folder: Path,
    version: str,
    columns: dict[str, Array] | None = None,
    info: dict[str, Any] | None = None,
) -> Path:
    """Write a LeRobot dataset: of version 2 a table an episode, of version 3 one for them all."""
    columns = lerobot_columns() if columns is None else columns
    episode = columns["episode_index"]
    numbers, lengths = np.unique(episode, return_counts=True)
    features: dict[str, Any] = {
        name: {"dtype": str(array.dtype), "shape": list(array.shape[1:]) or [1], "names": None}
        for name, array in columns.items()
    }
    features["observation.state"]["names"] = {"motors": ["elbow", "wrist"]}
    features["observation.images.top"] = {"dtype": "video", "shape": [480, 640, 3], "names": None}
    content = {
        "codebase_version": f"v{version}",
        "robot_type": "so100",
        "total_episodes": len(numbers),
        "fps": FPS,
        "features": features,
        **(info or {}),
    }
    put(folder / "meta/info.json", json.dumps(content))
    if version.startswith("3"):
        put_table(folder / "data/chunk-000/file-000.parquet", columns)
        put_table(folder / EPISODES, {"episode_index": numbers, "length": lengths})
        return folder
    entries = zip(numbers.tolist(), lengths.tolist(), strict=True)
    lines = [json.dumps({"episode_index": n, "tasks": ["x"], "length": k}) for n, k in entries]
    put(folder / "meta/episodes.jsonl", "\n".join(lines) + "\n")
    for number in numbers:
        rows = {name: array[episode == number] for name, array in columns.items()}
        put_table(folder / f"data/chunk-000/episode_{number:06d}.parquet", rows)
    return folder


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def put_table(path: Path, columns: dict[str, Array]) -> Path:
    """Write columns as LeRobot does: lists of one length where a row has several numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        name: array if array.ndim == 1 else pyarrow.array(array.tolist(), _lists(array))
        for name, array in columns.items()
    }
    parquet.write_table(pyarrow.table(table), path)
    return path


def _lists(array: Array) -> Any:
    return pyarrow.list_(pyarrow.from_numpy_dtype(array.dtype), array.shape[1])


def damaged(path: Path, times: int) -> Iterator[None]:
    """Flip bytes of a file, or cut its end off, over and over; it is whole again at the end."""
    rng, content = np.random.default_rng(0), path.read_bytes()
    for k in range(times):
        changed = bytearray(content)
        for at in rng.integers(len(content), size=1 + k % 4):
            changed[at] = int(rng.integers(256))
        path.write_bytes(bytes(changed[: rng.integers(len(content))] if k % 5 == 4 else changed))
        yield
    path.write_bytes(content)


# -- robomimic

DEMOS = ((2, 1), (1, 0), (3, 2))
"""Rows of each demonstration before its task was done, and from then on."""
ENV_ARGS = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}})


def write_robomimic(path: Path, demos: tuple[tuple[int, int], ...] = DEMOS, **more: Any) -> Path:
    """Write demonstrations in which the last rows are done, each number another one.

    `more` are arrays by path that stand in the place of others; None takes one out.
    """
    with h5py.File(path, "w") as file:
        first = 0
        for number, (before, done) in enumerate(demos):
            rows = before + done
            index = np.arange(first, first + rows + 1.0)
            seen = {"object": np.stack([index, 100 + index], 1), "eef": -index[:, None]}
            group = file.create_group(f"data/demo_{number}")
            for name, array in seen.items():
                group[f"obs/{name}"], group[f"next_obs/{name}"] = array[:-1], array[1:]
            group["obs/cam_image"] = np.zeros((rows, 4, 4, 3), np.uint8)
            group["actions"] = np.stack([index[:-1], -index[:-1]], 1) / 16
            group["rewards"] = (np.arange(rows) >= before) * 1.0
            group["dones"] = (np.arange(rows) >= before).astype(np.int64)
            group["states"] = np.stack([index[:-1]] * 5, 1)
            group.attrs["num_samples"] = rows
            first += rows
        file["data"].attrs["total"] = first
        file["data"].attrs["env_args"] = ENV_ARGS
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
        file["mask/valid"] = np.array(["demo_1"], dtype=h5py.string_dtype())
        for name, array in more.items():
            del file[name]
            if array is not None:
                file[name] = array
    return path


def ended(demos: tuple[tuple[int, int], ...], path: Path) -> Path:
    """Mark each demonstration's last row as done, as `--done_mode 2` does."""
    with h5py.File(path, "r+") as file:
        for number in range(len(demos)):
            file[f"data/demo_{number}/dones"][-1] = 1
    return path

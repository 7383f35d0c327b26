"""Logs of other tools, whole and damaged, for the tests of imports, and what becomes of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import yaml
from pyarrow import parquet

from baq_cli.data.episodes import Episodes
from baq_cli.data.exchange import Imported, import_file
from baq_cli.data.logs.cutting import CutRules
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.logs.mapping import read_mapping

Columns = dict[str, Any]
NEW = "me/new-v0"
BOUNDS = ("--action-low=-1", "--action-high=1")


def bounded(rules: CutRules | None = None, width: float = 1.0) -> Setting:
    return Setting(None, [-width], [width], rules or CutRules())


def ends(episodes: Episodes) -> list[tuple[int, bool, bool]]:
    """Return each episode's length and the flags of its last step."""
    last = episodes.starts + episodes.lengths - 1
    flags = (episodes.terminated[last].tolist(), episodes.truncated[last].tolist())
    return list(zip(episodes.lengths.tolist(), *flags, strict=True))


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# -- D4RL files

GROUP = object()


class Claim:
    """An array that a header claims, without data."""

    def __init__(self, *shape: int, chunk: int = 2):
        self.shape, self.chunks = shape, (*(1 for _ in shape[1:]), min(chunk, shape[-1]))


def put(file: h5py.Group, name: str, value: Any) -> None:
    """Put a value in the place of what a file has under a name; None takes it out."""
    if name in file:
        del file[name]
    if isinstance(value, Claim):
        file.create_dataset(name, value.shape, "f8", chunks=value.chunks)
    elif value is GROUP:
        file.create_group(name)
    elif value is not None:
        file[name] = value


def write_d4rl(path: Path, arrays: Columns) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            put(file, name, array)
    return path


def import_d4rl(
    folder: Path, arrays: Columns, rules: CutRules | None = None, dataset_id: str = NEW
) -> Imported:
    """Write a D4RL file and import it, its actions in [−1, 1]."""
    return import_file(write_d4rl(folder / "a.hdf5", arrays), dataset_id, bounded(rules), None)


def d4rl_arrays(
    terminals: list[int], timeouts: list[int] | None, limit: int | None, recorded: bool
) -> Columns:
    """Return a D4RL file's arrays, every number in them another one.

    `limit` decides the ends of a file without timeouts; `recorded`: with next observations.
    """
    rows = len(terminals)
    index = np.arange(rows)
    observations = np.stack([index, 0.5 - index], axis=1)
    arrays: Columns = {
        "observations": observations,
        "actions": (index[:, None] - 8) / 16,
        "rewards": 100.0 + index,
        "terminals": np.asarray(terminals, dtype=bool),
    }
    if timeouts is not None:
        arrays["timeouts"] = np.asarray(timeouts, dtype=bool)
    if recorded:
        following = np.roll(observations, -1, axis=0)
        for row in end_rows(arrays, limit):
            following[row] = [1000 + row, -row]
        arrays["next_observations"] = following
    return arrays


def end_rows(arrays: Columns, limit: int | None) -> list[int]:
    """Return the rows at which an episode ends: a flag, the limit, or the last row."""
    found, step = [], 0
    for i, done in enumerate(arrays["terminals"]):
        step += 1
        final = arrays["timeouts"][i] if "timeouts" in arrays else step == limit
        if done or final or i == len(arrays["terminals"]) - 1:
            found.append(i)
            step = 0
    return found


def short_arrays(recorded: bool = True) -> Columns:
    """Return eight rows for the short environment, with one termination and no timeouts."""
    index = np.arange(8.0)
    arrays = {
        "observations": np.stack([index, index + 0.5, -index], axis=1),
        "actions": np.linspace(-2, 2, 8)[:, None],
        "rewards": index,
        "terminals": np.arange(8) == 3,
    }
    if recorded:
        arrays["next_observations"] = np.roll(arrays["observations"], -1, axis=0)
    return arrays


# -- tables

FORMS = ("csv", "npz", "parquet")
ROBOT: Columns = {
    "note": ["start", "", "fell, badly", "x"],
    "q_2": [1.0, 2, 3, 4],
    "u_b": [0.5, 0.25, -0.5, 0],
    "q_10": [10.0, 20, 30, 40],
    "r": [1.0, 2, 4, 8],
    "u_a": [0, -0.25, 0.75, 1.0],
    "q_1": [-1.0, -2, -3, -4],
    "fell": [False, True, False, False],
    "stopped": [False, False, False, True],
}
ROBOT_ENDS = {"reward": "r", "terminated": "fell", "truncated": "stopped"}


def write_table(form: str, folder: Path, columns: Columns) -> Path:
    """Write columns of equal length; in a .csv None is an empty cell."""
    path = folder / f"log.{form}"
    if form == "csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    elif form == "npz":
        arrays: Any = {n: [np.nan if v is None else v for v in c] for n, c in columns.items()}
        np.savez(path, **arrays)
    else:
        parquet.write_table(pyarrow.table(columns), path)
    return path


def import_table(
    path: Path,
    mapping: dict[str, Any] | None = None,
    rules: CutRules | None = None,
    dataset_id: str = NEW,
) -> Imported:
    """Import a table by a mapping that is written beside it, its actions in [−1, 1]."""
    read = None
    if mapping is not None:
        read = read_mapping(written(path.with_suffix(".yaml"), yaml.safe_dump(mapping)))
    return import_file(path, dataset_id, bounded(rules), read)


# -- files to damage

ARRAYS: Columns = {
    "observations": np.arange(16.0).reshape(8, 2),
    "actions": np.linspace(-0.5, 0.5, 8)[:, None],
    "rewards": np.arange(8.0),
    "terminals": np.arange(8) == 2,
    "timeouts": np.arange(8) == 5,
}
COLUMNS: Columns = {
    "obs": [[1.0, 2], [3, 4], [5, 6]],
    "action": [0.5, 0, -0.5],
    "reward": [1.0, 2, 4],
    "terminated": [False, False, True],
    "truncated": [False] * 3,
}


SPEC = {"id": "A-v0", "entry_point": "a:B", "kwargs": {}, "additional_wrappers": []}
"""An environment as JSON has it."""


def d4rl_file(path: Path, **changes: Any) -> Path:
    return write_d4rl(path, {**ARRAYS, **changes})


def npz_file(path: Path, **changes: Any) -> Path:
    arrays = {**ARRAYS, **changes}
    np.savez_compressed(path, **{n: a for n, a in arrays.items() if a is not None})
    return path


def parquet_file(path: Path, card: str | None = None, **changes: Any) -> Path:
    table = pyarrow.table({n: c for n, c in {**COLUMNS, **changes}.items() if c is not None})
    parquet.write_table(table.replace_schema_metadata(card and {"baq": card}), path)
    return path


def cut_short(path: Path, share: float) -> None:
    """Leave only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return every path below a folder with its size and time of change."""
    found = [(path, path.stat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), state.st_size, state.st_mtime_ns) for path, state in found]

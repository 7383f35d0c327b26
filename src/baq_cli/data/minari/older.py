"""Datasets of Minari before 0.5: what they are lies in the attributes of their HDF5 file.

From 0.5 on it lies in a `metadata.json` beside that file, without which Minari finds no dataset.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from baq_cli.plain_files import check_plain

FILE = "main_data.hdf5"
TEXTS = (
    *("observation_space", "action_space", "env_spec", "dataset_id", "minari_version"),
    *("algorithm_name", "author", "author_email", "code_permalink", "description"),
)
NUMBERS = ("total_episodes", "total_steps", "ref_min_score", "ref_max_score")
FLAT = "flatten_observation"
"""True where a `Dict` observation was flattened before it was written."""


def older_metadata(file: Path) -> dict[str, Any] | None:
    """Return what a file of Minari before 0.5 says of its dataset, None for any other file.

    `flatten_observation` is there where it says so; `minari_version` is the number alone.
    """
    try:
        check_plain(file)
        with h5py.File(file, "r") as opened:
            if "episode_0" not in opened or "total_episodes" not in opened.attrs:
                return None
            said: dict[str, Any] = {name: _text(opened.attrs.get(name)) for name in TEXTS}
            said |= {name: _number(opened.attrs.get(name)) for name in NUMBERS}
            said["requirements"] = _texts(opened.attrs.get("requirements"))
            said[FLAT] = bool(_number(opened.attrs.get(FLAT)))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None
    version = str(said["minari_version"] or "").lstrip("~=<>! ")
    kept = {name: entry for name, entry in said.items() if entry not in (None, False, [])}
    return {**kept, "minari_version": version or "before 0.5"}


def older_dataset(data: Path) -> dict[str, Any] | None:
    """Return what a `data` folder that Minari before 0.5 wrote says, None for any other."""
    if (data / "metadata.json").exists() or not (data / FILE).is_file():
        return None
    return older_metadata(data / FILE)


def way_over(dataset_id: str, data: Path) -> str:
    """Return the command that makes a dataset of today of an older one."""
    return (
        f"baq data import {shlex.quote(str(data / FILE))} --id me/{dataset_id.rpartition('/')[2]}"
    )


def _text(value: Any) -> str | None:
    words = _texts(value)
    return ", ".join(words) if words else None


def _texts(value: Any) -> list[str]:
    """Return an attribute's words, one or several."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return [value]
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        return [word for entry in value.reshape(-1).tolist() for word in _texts(entry)]
    return []


def _number(value: Any) -> Any:
    one = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub"
    return value.reshape(-1)[0].item() if one and value.size == 1 else None

"""D4RL's HDF5 files: flat arrays of rows, ends marked by terminals and timeouts.

Format: Fu et al. 2020 (arXiv 2004.07219) and d4rl/offline_env.py. Where a file is silent, `cut`
decides; one difference from `qlearning_dataset` is on purpose: the last transition of a truncated
episode is kept when its next observation is recorded.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from baq_cli.data.cutting import FlatLog
from baq_cli.data.logfile import LogFile, parse_card
from baq_cli.data.minari_read import check_size
from baq_cli.envs.spaces import flatten_parts
from baq_cli.errors import DataError

Array = npt.NDArray[Any]
NEEDED = ("observations", "actions", "rewards", "terminals")
LONGEST_NOTE = 10_000
"""Metadata longer than this (in bytes) are weights of a policy, not a note, and are left out."""


def read_d4rl(path: Path) -> LogFile:
    """Read a D4RL file.

    Raises DataError when it is damaged, or lacks one of the arrays every such file has.
    """
    try:
        with h5py.File(path, "r") as file:
            return _read(file)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise DataError(
            f"cannot read {path} as a D4RL file: {str(error).strip(chr(39))}"
        ) from error


def _read(file: h5py.File) -> LogFile:
    missing = [name for name in NEEDED if name not in file]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}; found {', '.join(file) or 'nothing'}")
    rewards = file["rewards"]
    rows = int(rewards.shape[0]) if rewards.shape else 0
    check_size(rows, file.id.get_filesize())

    def column(name: str) -> Array:
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"'{name}' is a group, not an array")
        if not dataset.shape or dataset.shape[0] != rows:
            raise ValueError(f"{name} has the shape {dataset.shape} beside {rows} rewards")
        if dataset.dtype.kind not in "fiub":
            raise ValueError(f"{name} is of type {dataset.dtype}, not numbers")
        return np.asarray(dataset[()])

    def scalars(name: str) -> Array:
        return column(name).reshape(rows)

    following = (
        {"": _two_axes(column("next_observations"))} if "next_observations" in file else None
    )
    infos = _below(file, "infos")
    log = FlatLog(
        observations={"": _two_axes(column("observations"))},
        actions=column("actions"),
        rewards=scalars("rewards"),
        terminated=scalars("terminals"),
        truncated=scalars("timeouts") if "timeouts" in file else None,
        episode=scalars("episode_ids") if "episode_ids" in file else None,
        next_observations=following,
        infos={
            name: column(f"infos/{name}")
            for name, info in infos.items()
            if info.shape[:1] == (rows,) and info.dtype.kind in "fiub"
        },
    )
    resets = {name: info[()] for name, info in _below(file, "reset_infos").items()}
    notes = {name: note for name, item in _below(file, "metadata").items() if (note := _note(item))}
    card = parse_card(str(notes.pop("baq"))) if "baq" in notes else {}
    return LogFile(log, resets, card, {"d4rl_metadata": notes} if notes else {})


def _two_axes(part: Array) -> Array:
    return part.reshape(len(part), -1)


def _below(file: h5py.File, name: str) -> dict[str, h5py.Dataset]:
    """Return the arrays below a group, by path."""
    found: dict[str, h5py.Dataset] = {}
    if isinstance(file.get(name), h5py.Group):
        file[name].visititems(
            lambda path, item: (
                found.update({path: item}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def _note(item: h5py.Dataset) -> Any:
    """Return a metadata entry as JSON can hold it; None for arrays and anything long."""
    if item.shape != () or item.nbytes > LONGEST_NOTE:
        return None
    value = item[()]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value.item() if isinstance(value, np.generic) else None


def write_d4rl(file: LogFile, path: Path) -> None:
    """Write rows as a D4RL file; `Dict` observations are flattened in Gymnasium's order.

    What the format has no place for lies beside it, where its readers pass over it: episode
    numbers, infos of resets, and the card.
    """
    log = file.log
    assert log.next_observations is not None
    arrays = {
        "observations": flatten_parts(log.observations),
        "actions": log.actions,
        "rewards": log.rewards,
        "terminals": log.terminated,
        "timeouts": log.truncated,
        "next_observations": flatten_parts(log.next_observations),
        "episode_ids": log.episode,
        **{f"infos/{name}": info for name, info in log.infos.items()},
        **{f"reset_infos/{name}": info for name, info in file.reset_infos.items()},
    }
    # HDF5 crashes the process when a disk fills up below it: it writes to memory here.
    image = io.BytesIO()
    with h5py.File(image, "w") as out:
        for name, array in arrays.items():
            out.create_dataset(name, data=array, compression="gzip", compression_opts=4)
        notes = {
            **file.card.get("about", {}).get("d4rl_metadata", {}),
            "baq": json.dumps(file.card),
        }
        for name, note in notes.items():
            out.create_dataset(f"metadata/{name}", data=note)
    path.write_bytes(image.getbuffer())

"""D4RL's HDF5 files: flat arrays of rows, ends marked by terminals and timeouts.

Format: Fu et al. 2020 (arXiv 2004.07219) and d4rl/offline_env.py. Where a file is silent, `cut`
decides; one difference from `qlearning_dataset` is on purpose: the last transition of a truncated
episode is kept when its next observation is recorded.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import numpy.typing as npt

from baq_cli.data.hdf5 import check_links, check_stored
from baq_cli.data.logs.by_name import Columns, check_names
from baq_cli.data.logs.columns import ALIASES, beside, episode_column, is_info, to_log_file, wanted
from baq_cli.data.logs.cutting import FlatLog
from baq_cli.data.logs.ends.clues import as_number, clue_names, clues_of, said_columns
from baq_cli.data.logs.ends.names import FLAGS, Kind, counted, looks
from baq_cli.data.logs.filecard import parse_card
from baq_cli.data.logs.layouts import check_layout, constant_rewards, reward_notes, with_own_rewards
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import Mapping
from baq_cli.data.logs.success import asked_marks, no_reward
from baq_cli.data.sizes import Claims
from baq_cli.envs.spaces import flatten_parts
from baq_cli.errors import DataError

Array = npt.NDArray[Any]
NEEDED = ("observations", "actions", "rewards", "terminals")
DATA = ("observations", "next_observations", "actions", "rewards")
NAMED = {"terminated": "terminals", "truncated": "timeouts", "episode": "episode_ids"}
"""The arrays that say where episodes end."""
GROUPS = ("infos", "reset_infos", "metadata")
KNOWN = (*NEEDED, "timeouts", "next_observations", "episode_ids", *GROUPS)
LONGEST_NOTE = 10_000
"""Metadata longer than this (in bytes) are weights of a policy, not a note, and are left out."""


def read_d4rl(path: Path, mapping: Mapping | None = None) -> LogFile:
    """Read a D4RL file, or another HDF5 file of arrays whose columns a mapping names.

    What isn't needed isn't read, and may hold anything.
    Raises DataError when it is damaged, or lacks one of the arrays every such file has.
    """
    try:
        with h5py.File(path, "r") as file:
            _check_links(file)
            claims = Claims(file.id.get_filesize())
            if _is_table(file, mapping):
                return _read_table(file, claims, mapping)
            check_layout(_own(file), mapping)
            return _read(file, claims, mapping)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise DataError(f"can't be read as a D4RL file: {reason}") from error


def _check_links(file: h5py.File) -> None:
    """Raise ValueError where anything that may be read lies behind a link, which isn't followed."""
    for name in set(KNOWN) - set(_own(file)):
        if file.get(name, getlink=True) is not None:
            raise ValueError(f"'{name}' is a link: only what lies in the file is read")
    for name in set(GROUPS) & set(_own(file)):
        if isinstance(file[name], h5py.Group):
            check_links(file[name].id)


def _own(file: h5py.File) -> list[str]:
    """Return the names at a file's top that are no links."""
    return [n for n in file if isinstance(file.get(n, getlink=True), h5py.HardLink)]


def _is_table(file: h5py.File, mapping: Mapping | None) -> bool:
    """Return whether a file's arrays are read as a table's columns are, and not as D4RL's."""
    if mapping is not None and (mapping.names_columns or mapping.last_row is not None):
        return True
    own, names = set(_own(file)), ("observations", "actions")
    return not own.issuperset(names) and all(own & {n, *ALIASES[n]} for n in names)


def _read_table(file: h5py.File, claims: Claims, mapping: Mapping | None) -> LogFile:
    """Read arrays as the other formats' tables are read, `group/array` for a name."""
    names = list(_below(file, "/"))
    check_names(names)
    mapping = with_own_rewards(mapping, names)
    number = episode_column(names, mapping)
    arrays = {}
    for name in wanted(names, mapping):
        if not is_info(name) or file[name].dtype.kind in "fiub":
            arrays[name] = _array(file, name, claims, may_be_words=name == number)
    for name in beside(names, mapping, None):
        if name not in arrays:
            arrays[name] = _clue(file[name], claims)
    every = dict.fromkeys(names) | arrays
    return to_log_file(Columns(every), mapping, None, _counts(file))


def _read(file: h5py.File, claims: Claims, mapping: Mapping | None) -> LogFile:
    arrays, ends = _below(file, "/"), {} if mapping is None else mapping.said
    _check_needed(file, arrays, mapping)
    log = _rows(file, claims, None if mapping is None else mapping.constant_reward)
    resets = {
        name: _array(file, f"reset_infos/{name}", claims)
        for name, info in _below(file, "reset_infos").items()
        if info.shape and info.dtype.kind in "fiub"
    }
    notes = {name: _note(item, claims) for name, item in _below(file, "metadata").items()}
    text = notes.pop("baq", None)
    notes = {name: note for name, note in notes.items() if note is not None}
    card = None if text is None else parse_card(str(text))
    span = None if log.episode is None else (str(log.episode[0]), str(log.episode[-1]))
    said = reward_notes(mapping)
    about = {"d4rl_metadata": notes} if notes else {}
    columns = tuple(name for name in KNOWN if name in file and name not in GROUPS)
    asked = {*said_columns(ends), *clue_names(arrays, _data(arrays, card is not None))}
    asked |= asked_marks(mapping, arrays)
    held = {name: _clue(item, claims) for name, item in arrays.items() if name in asked}
    named = {role: name for role, name in NAMED.items() if name in file}
    clues = clues_of(held, named, ends, len(log.rewards), _counts(file), list(arrays))
    return LogFile(log, resets, card, about, said, columns, span, clues)


def _check_needed(file: h5py.File, arrays: Iterable[str], mapping: Mapping | None) -> None:
    """Raise ValueError where an array is missing that nothing else says."""
    ends = {} if mapping is None else mapping.said
    told = ends.keys() - {"unused"} or any(_tells(n) for n in set(arrays) - {*NAMED.values()})
    rewarded = mapping is not None and mapping.constant_reward is not None
    given = {"rewards": rewarded, "terminals": told}
    missing = [name for name in NEEDED if name not in file and not given.get(name)]
    if missing:
        none = f" ({no_reward(arrays)})" if missing == ["rewards"] else ""
        found = ", ".join(file) or "nothing"
        raise ValueError(f"it has no {', '.join(missing)}; found {found}{none}")


def _rows(file: h5py.File, claims: Claims, reward: float | None) -> FlatLog:
    """Return a file's rows, each with the same `reward` where there is one."""
    count = len(_array(file, "rewards" if reward is None else "actions", claims))

    def column(name: str) -> Array:
        values = _array(file, name, claims)
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} rows beside {count} rewards")
        return values

    def scalars(name: str) -> Array | None:
        return column(name).reshape(count) if name in file else None

    following = None
    if "next_observations" in file:
        following = {"": _two_axes(column("next_observations"))}
    actions = column("actions")
    observations = {"": _two_axes(column("observations"))}
    rewards = scalars("rewards") if reward is None else constant_rewards(reward, actions)
    terminated = scalars("terminals")
    assert rewards is not None
    return FlatLog(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=np.zeros(count, np.bool_) if terminated is None else terminated,
        truncated=scalars("timeouts"),
        episode=scalars("episode_ids"),
        next_observations=following,
        infos={
            name: column(f"infos/{name}")
            for name, info in _below(file, "infos").items()
            if (info.shape or ())[:1] == (count,) and info.dtype.kind in "fiub"
        },
    )


def _tells(name: str) -> bool:
    """Tell whether an array's name may say where episodes end."""
    look = looks(name)
    return look is not None and look.kind in (*FLAGS, Kind.EPISODE, Kind.LENGTHS)


def _data(names: Iterable[str], exported: bool) -> set[str]:
    """Return the arrays that are no clues; of an export the infos, too."""
    heads = ("reset_infos/", *(("infos/",) if exported else ()))
    return {n for n in names if n in DATA or n.startswith(heads) or n == "metadata/baq"}


def _clue(item: h5py.Dataset, claims: Claims) -> Any:
    """Return an array that nothing asks for; None for one that can't be read as numbers."""
    if item.dtype.kind not in "fiubS" or item.shape is None or len(item.shape) > 2:
        return None
    try:
        check_stored(item.id, str(item.name))
        claims.add(item.nbytes)
        return item[()]
    except (ValueError, OSError):
        return None


def _counts(file: h5py.File) -> dict[str, int]:
    """Return the numbers among a file's attributes that count episodes or steps."""
    found: dict[str, int] = {}
    for name in file.attrs:
        if counted(name) is None:
            continue
        stored = file.attrs.get_id(name)
        if stored.dtype.kind in "iuf" and stored.shape in ((), (1,)):
            number = as_number(name, file.attrs[name])
            found |= {} if number is None else {name: number}
    return found


def _array(file: h5py.File, name: str, claims: Claims, may_be_words: bool = False) -> Array:
    """Return an array of numbers with at least one axis, its size checked before it is read."""
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"'{name}' is a group, not an array")
    if not dataset.shape:
        raise ValueError(f"{name} is a single value, not an array")
    if dataset.dtype.kind not in ("fiubS" if may_be_words else "fiub"):
        raise ValueError(f"{name} is of type {dataset.dtype}, not numbers")
    check_stored(dataset.id, name)
    claims.add(dataset.nbytes)
    return np.asarray(dataset[()])


def _two_axes(part: Array) -> Array:
    return part.reshape(len(part), -1)


def _below(file: h5py.File, name: str) -> dict[str, h5py.Dataset]:
    """Return the arrays below a group, by path."""
    found: dict[str, h5py.Dataset] = {}

    def keep(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[path] = item

    if isinstance(file.get(name), h5py.Group):
        file[name].visititems(keep)
    return found


def _note(item: h5py.Dataset, claims: Claims) -> Any:
    """Return a metadata entry as JSON can hold it; None for arrays and anything long."""
    if item.shape != () or (item.nbytes > LONGEST_NOTE and item.name != "/metadata/baq"):
        return None
    check_stored(item.id, str(item.name))
    claims.add(item.nbytes)
    value = item[()]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    plain = isinstance(value, np.generic) and value.dtype.kind in "fiub"
    return value.item() if plain else None


def write_d4rl(file: LogFile, card: dict[str, Any], out: IO[bytes]) -> None:
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
    with h5py.File(image, "w") as made:
        for name, array in arrays.items():
            made.create_dataset(name, data=array, compression="gzip", compression_opts=4)
        notes = {**(card["about"].get("d4rl_metadata") or {}), "baq": json.dumps(card)}
        for name, note in notes.items():
            made.create_dataset(f"metadata/{name}", data=note)
    out.write(image.getbuffer())

"""robomimic's HDF5 files to rows; pictures are left out, `env_args` is text and nothing more."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.checked import checked_log
from baq_cli.data.logs.cutting import FlatLog, reordered
from baq_cli.data.logs.ends.clues import clues_of
from baq_cli.data.logs.ends.roles import Said
from baq_cli.data.logs.layouts import constant_rewards, reward_notes
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import Mapping
from baq_cli.data.logs.robots import observed as of_robots
from baq_cli.data.logs.robots.robomimic_ends import DONES, REWARDS, terminations, until_done
from baq_cli.data.logs.robots.robomimic_file import STATES, RobomimicFile, env_facts, is_robomimic
from baq_cli.data.logs.success import asked_marks, no_reward
from baq_cli.errors import DataError, UsageError, clipped, listed
from baq_cli.units import amount

Array = npt.NDArray[Any]
BOUNDS = (-1.0, 1.0)
"""Of every action, as robomimic's format has them (docs/datasets/overview.md)."""
UNREADABLE = (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError)
"""What h5py raises for files that are damaged."""
MOST_MASKS = 50
DEMONSTRATION = "demonstration"
"""What tells episodes apart: the group that a row lies in."""
READ = ("actions", REWARDS, DONES, "obs", "next_obs")


def holds_robomimic(path: Path, mapping: Mapping | None) -> bool:
    """Tell whether an HDF5 file is to be read as robomimic's: by its content or by `--format`.

    A mapping that names columns reads it as any other file's arrays.
    """
    if mapping is not None and mapping.format is not None:
        return mapping.format == "robomimic"
    if mapping is not None and mapping.names_columns:
        return False
    with suppress(*UNREADABLE), h5py.File(path, "r") as file:
        return is_robomimic(file)
    return False


def read_robomimic(path: Path, mapping: Mapping | None) -> LogFile:
    """Read the demonstrations of a robomimic file, or those of a filter key.

    Raises DataError when it is damaged or contradicts itself, UsageError for names that aren't
    there.
    """
    if mapping is not None and mapping.names_columns:
        raise UsageError(
            "--format robomimic names the columns, and so does the mapping: leave one of them out; "
            "--obs-keys chooses observations"
        )
    try:
        with h5py.File(path, "r") as file:
            return _read(RobomimicFile(file), mapping)
    except UNREADABLE as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise DataError(f"can't be read as a robomimic file: {reason}") from error


@dataclass(frozen=True)
class _Demos:
    """Demonstrations laid end to end; `lengths` are their rows `[K]`."""

    names: list[str]
    lengths: Array
    columns: dict[str, Array]

    @property
    def starts(self) -> Array:
        starts = np.zeros(int(self.lengths.sum()), dtype=np.bool_)
        starts[np.cumsum(self.lengths) - self.lengths] = True
        return starts


def _read(file: RobomimicFile, mapping: Mapping | None) -> LogFile:
    said = {} if mapping is None else mapping.said
    constant = None if mapping is None else mapping.constant_reward
    mask = None if mapping is None else mapping.mask
    names = file.demos if mask is None else file.chosen(mask)
    keys = _keys(file, names[0], mapping)
    demos = _joined(file, names, keys, constant is None)
    log, widths = _log(demos, keys, constant)
    done, source = _done(demos, log, said)
    masks, unread = _masks(file, demos)
    keep = np.arange(len(log.rewards))
    if done is not None:
        log, keep = replace(log, terminated=done), np.flatnonzero(until_done(done, demos.starts))
    every = [*demos.columns, DEMONSTRATION]
    asked = {DONES, source, *asked_marks(mapping, demos.columns)}
    clues = {name: column[keep] for name, column in demos.columns.items() if name in asked}
    named = {"episode": DEMONSTRATION} | ({} if source != DONES else {"terminated": DONES})
    notes = [*reward_notes(mapping), *_notes(file, names, widths, mask)]
    notes += [f"filter keys that can't be read: {listed(unread)}"] if unread else []
    rows = len(demos.starts) - len(keep)
    if rows:
        notes.append(
            f"left out: {amount(rows, 'row')}, where the task had been done before ('{source}')"
        )
    return LogFile(
        reordered(replace(log, infos=masks), keep),
        notes=tuple(notes),
        about=_about(file, widths, log.actions.shape[1], constant is None),
        columns=(*keys, *every),
        clues=clues_of(clues, named, said, len(keep), {}, every),
        action_bounds=BOUNDS,
    )


def _done(demos: _Demos, log: FlatLog, said: Said) -> tuple[Array | None, str | None]:
    """Return the rows in which the task was done, and the column that says so."""
    dones = demos.columns.get(DONES)
    marked = None if dones is None else np.nan_to_num(dones.astype(np.float64)) != 0
    rewards = np.nan_to_num(log.rewards.astype(np.float64))
    return terminations(marked, rewards, demos.starts, said)


def _about(
    file: RobomimicFile, widths: dict[str, int], action_dim: int, rewarded: bool
) -> dict[str, Any]:
    """Return what is kept of a file in a dataset's metadata."""
    text = file.env_args()
    rate = of_robots.control_hz(env_facts(text)[1])
    observation = [
        name for key, width in widths.items() for name in of_robots.numbered_names(key, width)
    ]
    return {
        "description": "Imported from robomimic's demonstrations.",
        **({} if text is None else {"robomimic": {"env_args": text}}),
        **({} if rate is None else {of_robots.CONTROL_HZ: rate}),
        **of_robots.names_of(
            observation,
            of_robots.numbered_names("action", action_dim),
            REWARDS if rewarded else None,
        ),
    }


def _keys(file: RobomimicFile, demo: str, mapping: Mapping | None) -> list[str]:
    """Return the keys of the observations to take; without being asked, all but pictures."""
    found = file.keys(demo)
    numbers = [k for k, (shape, kind) in found.items() if kind in "fiub" and len(shape) >= 1]
    usual = [key for key in numbers if len(found[key][0]) <= 2]
    every = [*numbers, *([STATES] if file.has(demo, STATES) else [])]
    asked = None if mapping is None else mapping.obs_keys
    if not found and asked is None and every:
        raise DataError(
            "it has no observations, only the simulator's states: extract observations with "
            "robomimic's dataset_states_to_obs.py, or take the states (--obs-keys states)"
        )
    return of_robots.chosen(mapping, usual, every)


def _joined(file: RobomimicFile, names: list[str], keys: list[str], rewarded: bool) -> _Demos:
    """Read the demonstrations' arrays and lay them end to end.

    Raises DataError where one has other arrays than the first, or of other lengths.
    """
    paths = {f"obs/{key}" if key != STATES else STATES: key for key in keys}
    following = [f"next_obs/{key}" for key in keys]
    recorded = all(file.has(demo, path) for demo in names for path in following)
    wanted = ["actions", *paths, *(following if recorded else [])]
    wanted += [REWARDS] if rewarded else []
    wanted += [DONES] if all(file.has(demo, DONES) for demo in names) else []
    parts: dict[str, list[Array]] = {path: [] for path in wanted}
    for demo in names:
        for path in wanted:
            if path == REWARDS and not file.has(demo, REWARDS):
                raise DataError(f"{demo} has no rewards: {no_reward(file.others(demo))}")
            parts[path].append(_checked(file.array(demo, path), parts, path, demo))
        _check_count(demo, "num_samples", file.count(demo, "num_samples"), parts["actions"][-1])
    lengths = np.array([len(part) for part in parts["actions"]])
    if len(names) == len(file.demos):
        total = file.count(None, "total")
        if total is not None and total != lengths.sum():
            raise DataError(
                f"its demonstrations have {lengths.sum():,} rows, 'total' says {total:,}"
            )
    return _Demos(names, lengths, {path: np.concatenate(part) for path, part in parts.items()})


def _checked(array: Array, parts: dict[str, list[Array]], path: str, demo: str) -> Array:
    rows = len(array) if path == "actions" else len(parts["actions"][-1])
    if len(array) != rows or not rows:
        raise DataError(f"'{path}' of {demo} has {len(array):,} rows beside {rows:,} actions")
    first = parts[path][0] if parts[path] else array
    if first.shape[1:] != array.shape[1:]:
        raise DataError(
            f"'{path}' of {demo} has rows of the shape {list(array.shape[1:])}, others of "
            f"{list(first.shape[1:])}"
        )
    return array


def _check_count(demo: str, name: str, count: int | None, actions: Array) -> None:
    if count is not None and count != len(actions):
        raise DataError(f"{demo} has {len(actions):,} rows, and '{name}' says {count:,}")


def _log(demos: _Demos, keys: list[str], constant: float | None) -> tuple[FlatLog, dict[str, int]]:
    """Return the rows as a log, and how many numbers each key of the observation has."""
    columns, lengths = demos.columns, demos.lengths
    observed = [columns[STATES if key == STATES else f"obs/{key}"] for key in keys]
    following = None
    if all(f"next_obs/{key}" in columns for key in keys):
        following = {"": of_robots.side_by_side([columns[f"next_obs/{key}"] for key in keys])}
    actions = columns["actions"].reshape(int(lengths.sum()), -1)
    rewards = columns[REWARDS] if constant is None else constant_rewards(constant, actions)
    log = checked_log(
        {"": of_robots.side_by_side(observed)},
        following,
        actions=actions,
        rewards=rewards,
        episode=np.repeat(np.arange(len(lengths)), lengths),
    )
    widths = [part.reshape(len(part), -1).shape[1] for part in observed]
    return log, dict(zip(keys, widths, strict=True))


def _masks(file: RobomimicFile, demos: _Demos) -> tuple[dict[str, Array], list[str]]:
    """Return each filter key as a column `[N]`, and those that can't be read."""
    found: dict[str, Array] = {}
    unread = []
    for name in file.masks():
        try:
            inside = set(file.chosen(name))
        except (ValueError, OSError, RuntimeError):
            unread.append(name)
            continue
        if len(found) < MOST_MASKS:
            flags = np.array([demo in inside for demo in demos.names])
            found[f"mask/{name}"] = np.repeat(flags, demos.lengths)
    return found, unread


def _notes(
    file: RobomimicFile, names: list[str], widths: dict[str, int], mask: str | None
) -> list[str]:
    notes = [of_robots.observed_note(widths)]
    left = [f"obs/{key}" for key in file.keys(names[0]) if key not in widths]
    left += [name for name in file.others(names[0]) if name not in (*READ, *widths)]
    if left:
        notes.append(f"left out: {listed(left)}")
    if mask is not None:
        notes.append(f"{len(names):,} of {len(file.demos):,} demonstrations: those of mask/{mask}")
    elif file.masks():
        notes.append(f"filter keys, kept as infos and taken by --mask: {listed(file.masks())}")
    name = env_facts(file.env_args())[0]
    return notes if name is None else [*notes, f"recorded in {clipped(name)} (env_args, as text)"]

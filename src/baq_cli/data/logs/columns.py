"""Columns of a log by name, and the log that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import FlatLog
from baq_cli.data.logs.filecard import Card
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import Mapping, Names, expand, expand_one
from baq_cli.errors import DataError, listed

Array = npt.NDArray[Any]
Parts = dict[str, Array]
ALIASES = {
    "observations": ("observation", "obs"),
    "actions": ("action",),
    "rewards": ("reward",),
    "terminated": ("terminals", "terminations"),
    "truncated": ("timeouts", "truncations"),
    "episode": ("episode_ids", "episode_id"),
    "next_observations": ("next_observation", "next_obs"),
}
"""The names by which a column is known without a mapping; exports use the first."""
SINGLE = ("actions", "rewards", "terminated", "truncated", "episode")
MOST_COLUMNS, MOST_LETTERS = 100_000, 1_000
_PARTED = {
    alias for name in ("observations", "next_observations") for alias in (name, *ALIASES[name])
}
_SINGLE_FIELDS = ("reward", "terminated", "truncated", "episode")


Convert = Callable[[str, Any], Array]


class Columns(dict[str, Any]):
    """Columns by name, turned into numbers when they are asked for: others may hold words.

    `convert` does that, and `number` gives each different value a number of its own; without them
    columns are arrays already. What `wanted` doesn't name needn't have a value.
    Raises DataError for more columns, or longer names, than any log has.
    """

    def __init__(
        self,
        values: dict[str, Any],
        convert: Convert | None = None,
        number: Convert | None = None,
    ):
        super().__init__(values)
        check_names(list(values))
        self._convert, self._number = convert, number or _number_array

    def __getitem__(self, name: str) -> Array:
        value = super().__getitem__(name)
        return value if self._convert is None else self._convert(name, value)

    def numbered(self, name: str) -> Array:
        """Return a column's values as numbers, the same for the same value: words will do."""
        return self._number(name, super().__getitem__(name))


def check_names(names: Sequence[str]) -> None:
    """Raise DataError for more columns, or longer names, than any log has."""
    if len(names) > MOST_COLUMNS:
        raise DataError(f"it has {len(names):,} columns; expected {MOST_COLUMNS:,} at most")
    longest = max(map(len, names), default=0)
    if longest > MOST_LETTERS:
        raise DataError(f"a column's name has {longest:,} letters; expected {MOST_LETTERS} at most")


def wanted(names: list[str], mapping: Mapping | None) -> list[str]:
    """Return which of a log's columns are read, by a mapping or by custom.

    Raises UsageError for names that aren't there.
    """
    if mapping is None:
        known = {alias for name, others in ALIASES.items() for alias in (name, *others)}
        return [name for name in names if name in known or _is_part(name)]
    fields = (*_SINGLE_FIELDS, "observation", "action", "next_observation")
    found: dict[str, None] = {}
    for field in fields:
        asked = getattr(mapping, field)
        for part in asked.values() if isinstance(asked, dict) else (asked,):
            found |= dict.fromkeys([] if part is None else expand(part, names))
    return list(found)


def _is_part(name: str) -> bool:
    head, _, rest = name.partition("/")
    return bool(rest) and (head in ("infos", "reset_infos") or head in _PARTED)


def episode_column(names: list[str], mapping: Mapping | None) -> str | None:
    """Return which column tells episodes apart by number or name, if any does."""
    if mapping is not None:
        return None if mapping.episode is None else expand_one(mapping.episode, names)
    return next((alias for alias in ("episode", *ALIASES["episode"]) if alias in names), None)


def _number_array(name: str, column: Any) -> Array:
    column = np.asarray(column)
    if column.dtype.kind in "iu":
        return column
    if column.dtype.kind not in "fbUSM" or not column.dtype.itemsize:
        raise DataError(f"column '{name}' is of type {column.dtype}; expected numbers or words")
    return np.unique(column.reshape(-1), return_inverse=True)[1].reshape(-1)


def to_log_file(columns: Columns, mapping: Mapping | None, card: Card | None) -> LogFile:
    """Return the log that columns make, by a mapping or by custom.

    Raises DataError for columns that don't fit each other, UsageError for names that aren't there.
    """
    log = _by_custom(columns) if mapping is None else _by_mapping(columns, mapping)
    infos = {} if mapping is not None else _prefixed(columns, "infos")
    rows = len(log.rewards)
    for name, info in infos.items():
        _check(f"infos/{name}", info, rows)
    resets = {} if mapping is not None else _prefixed(columns, "reset_infos")
    if resets:
        number = np.zeros(rows) if log.episode is None else log.episode
        firsts = np.flatnonzero(np.diff(number, prepend=number[0] - 1))
        resets = {n: a[firsts] if a.shape[:1] == (rows,) else a for n, a in resets.items()}
        resets = {n: a for n, a in resets.items() if a.dtype.kind in "fiub"}
    return LogFile(replace(log, infos=infos), resets, card)


def _by_custom(columns: Columns) -> FlatLog:
    known = {name: _custom(columns, name) for name in ALIASES if name != "episode"}
    missing = [n for n in ("observations", "actions", "rewards") if known[n] is None]
    if missing:
        raise DataError(
            f"no column is called {' or '.join(missing)}; found {listed(list(columns))}. Say "
            "which columns mean what with --mapping FILE.yaml."
        )
    number = episode_column(list(columns), None)
    if number is not None:
        known["episode"] = columns.numbered(number)
    observations = known["observations"]
    assert observations is not None
    return checked_log(
        observations, known["next_observations"], **{n: known[n] for n in SINGLE if n in known}
    )


def _custom(columns: Columns, name: str) -> Any:
    """Return a column, or parts by name for observations, under any of its names."""
    for alias in (name, *ALIASES[name]):
        parts = _prefixed(columns, alias)
        if alias in columns:
            return {"": columns[alias]} if "observation" in name else columns[alias]
        if parts and "observation" in name:
            return parts
    return None


def _prefixed(columns: Columns, prefix: str) -> Parts:
    mark = f"{prefix}/"
    return {name[len(mark) :]: columns[name] for name in columns if name.startswith(mark)}


def _by_mapping(columns: Columns, mapping: Mapping) -> FlatLog:
    names = list(columns)

    def side_by_side(wanted: Names) -> Array:
        parts = [np.asarray(columns[name]) for name in expand(wanted, names)]
        rows = {len(part) for part in parts}
        if len(rows) != 1:
            raise DataError(f"the columns of {wanted} have {sorted(rows)} rows: expected the same")
        flat = [part.reshape(len(part), -1) for part in parts]
        return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)

    def parts(wanted: Names | dict[str, Names] | None) -> Parts | None:
        if wanted is None:
            return None
        if isinstance(wanted, dict):
            return {name: side_by_side(part) for name, part in wanted.items()}
        return {"": side_by_side(wanted)}

    def single(name: str | None) -> Array | None:
        return None if name is None else np.asarray(columns[expand_one(name, names)])

    observations = parts(mapping.observation)
    assert observations is not None
    number = episode_column(names, mapping)
    return checked_log(
        observations,
        parts(mapping.next_observation),
        actions=side_by_side(mapping.action),
        rewards=single(mapping.reward),
        terminated=single(mapping.terminated),
        truncated=single(mapping.truncated),
        episode=None if number is None else columns.numbered(number),
    )


def checked_log(observations: Parts, following: Parts | None, **single: Any) -> FlatLog:
    """Check that every column has numbers, and as many rows as there are rewards."""
    rewards = np.asarray(single["rewards"])
    rows = len(rewards) if rewards.ndim else 0
    if rows == 0:
        raise DataError("the log holds no rows")
    for name, array in [
        *((f"observations {n}".strip(), a) for n, a in observations.items()),
        *((f"next observations {n}".strip(), a) for n, a in (following or {}).items()),
        *((n, a) for n, a in single.items() if a is not None),
    ]:
        _check(name, array, rows)
    column = {n: _column(n, a, rows) for n, a in single.items() if n != "actions" and a is not None}
    if not column.keys() & {"terminated", "truncated", "episode"}:
        raise DataError("no column says where an episode ends: terminated, truncated, episode")
    return FlatLog(
        observations=_two_axes(observations),
        actions=single["actions"].reshape(rows, -1),
        rewards=column["rewards"],
        terminated=column.get("terminated", np.zeros(rows, dtype=np.bool_)),
        truncated=column.get("truncated"),
        episode=column.get("episode"),
        next_observations=None if following is None else _two_axes(following),
    )


def _two_axes(parts: Parts) -> Parts:
    return {name: a.reshape(len(a), -1) if a.ndim == 1 else a for name, a in parts.items()}


def _check(name: str, array: Any, rows: int) -> None:
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name} are of type {array.dtype}; expected numbers")
    if array.ndim == 0 or len(array) != rows:
        raise DataError(f"{name} have the shape {list(array.shape)} beside {rows} rewards")


def _column(name: str, array: Array, rows: int) -> Array:
    if array.size != rows:
        raise DataError(f"{name} have the shape {list(array.shape)}; expected one number a row")
    column = array.reshape(rows)
    if name in ("terminated", "truncated") and column.dtype.kind == "f":
        return np.asarray(np.nan_to_num(column) != 0)
    return column


def to_columns(file: LogFile) -> Parts:
    log = file.log
    assert log.next_observations is not None
    parts = {"observations": log.observations, "next_observations": log.next_observations}
    return {
        **{
            f"{kind}/{name}" if name else kind: part
            for kind, by_name in parts.items()
            for name, part in by_name.items()
        },
        **{name: getattr(log, name) for name in SINGLE},
        **{f"infos/{name}": info for name, info in log.infos.items()},
    }

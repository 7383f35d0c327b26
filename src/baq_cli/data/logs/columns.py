"""Columns of a log by name, and the log that they make."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.by_name import Columns
from baq_cli.data.logs.checked import checked_log
from baq_cli.data.logs.cutting import FlatLog
from baq_cli.data.logs.ends.clues import (
    Clues,
    clue_names,
    clues_of,
    may_be_words,
    said_columns,
)
from baq_cli.data.logs.ends.turns import run_starts
from baq_cli.data.logs.filecard import Card
from baq_cli.data.logs.layouts import check_layout, constant_rewards, ogbench_facts, reward_notes
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import (
    COLUMN_FIELDS,
    Constant,
    Mapping,
    Marks,
    Names,
    column_names,
    expand,
    expand_one,
    observed_too,
)
from baq_cli.data.logs.success import asked_marks, no_reward
from baq_cli.errors import DataError, UsageError, listed

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
USUAL = ("terminated", "truncated", "episode")
"""The roles that say where episodes end, as usual names have them."""
SINGLE = ("actions", "rewards", "terminated", "truncated", "episode")
_PARTED = {
    alias for name in ("observations", "next_observations") for alias in (name, *ALIASES[name])
}
INFOS, RESET_INFOS = "infos", "reset_infos"


def wanted(names: list[str], mapping: Mapping | None) -> list[str]:
    """Return which of a log's columns are read, by a mapping or by custom.

    Raises UsageError for names that aren't there.
    """
    if mapping is None or not mapping.names_columns:
        check_layout(names, mapping)
        known = {alias for name, others in ALIASES.items() for alias in (name, *others)}
        return [name for name in names if name in known or _is_part(name)]
    found: dict[str, None] = {}
    for field in COLUMN_FIELDS:
        asked = getattr(mapping, field)
        if isinstance(asked, Constant | Marks):
            continue
        for part in asked.values() if isinstance(asked, dict) else (asked,):
            found |= dict.fromkeys([] if part is None else _expand(field, part, names))
    return list(found)


def _expand(field: str, asked: Names, names: list[str]) -> list[str]:
    try:
        return expand(asked, names)
    except UsageError as error:
        if field != "reward":
            raise
        raise UsageError(f"{error} (And {no_reward(names)}.)") from error


def beside(names: list[str], mapping: Mapping | None, card: Card | None) -> list[str]:
    """Return which other columns are read where they can be: those that tell of ends and times.

    Success marks are, where rewards are made of them.
    """
    asked = set() if mapping is None else said_columns(mapping.said)
    asked |= asked_marks(mapping, names)
    mine = {name for name in names if card is not None and is_info(name)}
    found = {*clue_names(names, {*_data_columns(names, mapping), *mine}), *asked}
    return [name for name in names if name in found]


def _data_columns(names: list[str], mapping: Mapping | None) -> list[str]:
    """Return the columns of observations, actions and rewards, which are no clues to anything."""
    if mapping is not None and mapping.names_columns:
        return wanted(names, mapping.model_copy(update=dict.fromkeys(USUAL)))
    heads = ("observations", "next_observations", "actions", "rewards")
    first = [next((a for a in (h, *ALIASES[h]) if a in names), None) for h in heads]
    parts = [n for n in names if _is_part(n) and not n.startswith(f"{INFOS}/")]
    return [name for name in (*first, *parts) if name is not None]


def is_info(name: str) -> bool:
    """Return whether a column is one that goes along where it fits, and that nothing asks for."""
    head, _, rest = name.partition("/")
    return bool(rest) and head in (INFOS, RESET_INFOS)


def _is_part(name: str) -> bool:
    head, _, rest = name.partition("/")
    return is_info(name) or (bool(rest) and head in _PARTED)


def episode_column(names: list[str], mapping: Mapping | None) -> str | None:
    """Return which column tells episodes apart by number or name, if any does."""
    if mapping is not None and mapping.names_columns:
        return None if mapping.episode is None else expand_one(mapping.episode, names)
    return next((alias for alias in ("episode", *ALIASES["episode"]) if alias in names), None)


def to_log_file(
    columns: Columns,
    mapping: Mapping | None,
    card: Card | None,
    numbers: dict[str, int] | None = None,
) -> LogFile:
    """Return the log that columns make, by a mapping or by custom.

    `numbers` are single numbers of the file that count episodes or steps.
    Raises DataError for columns that don't fit each other, UsageError for names that aren't there.
    """
    reward = None if mapping is None else mapping.constant_reward
    resets: Parts = {}
    if mapping is not None and mapping.names_columns:
        log = _by_mapping(columns, mapping)
        used = wanted(list(columns), mapping)
    else:
        log = _by_custom(columns, reward)
        log = replace(log, infos=_prefixed(columns, INFOS, len(log.rewards)))
        resets = _of_resets(columns, log)
        asked = wanted(list(columns), mapping)
        used = sorted({_meaning(name) for name in asked if not is_info(name)})
    notes = (*reward_notes(mapping), *observed_too(mapping, list(columns)))
    name = episode_column(list(columns), mapping)
    span = None if name is None else (columns.label(name, 0), columns.label(name, -1))
    about = {} if mapping is None else {"columns": column_names(mapping, list(columns))}
    found, entry = ogbench_facts(mapping)
    notes, about = (*notes, *found), {**about, **entry}
    file = LogFile(log, resets, card, about, notes=notes, columns=tuple(used), episode_span=span)
    return replace(file, clues=_clues(columns, mapping, card, len(log.rewards), numbers or {}))


def _clues(
    columns: Columns,
    mapping: Mapping | None,
    card: Card | None,
    rows: int,
    numbers: dict[str, int],
) -> Clues:
    said = {} if mapping is None else mapping.said
    every = list(columns)
    told = {n: columns.clue(n, may_be_words(n, said)) for n in beside(every, mapping, card)}
    clues = clues_of(told, _named(every, mapping), said, rows, numbers, every)
    return replace(clues, mapped=mapping is not None and mapping.names_columns)


def _named(names: list[str], mapping: Mapping | None) -> dict[str, str]:
    """Return the column that each usual role is read from."""
    if mapping is not None and mapping.names_columns:
        told = {role: getattr(mapping, role) for role in USUAL}
        return {role: expand_one(c, names) for role, c in told.items() if c is not None}
    told = {role: next((a for a in (role, *ALIASES[role]) if a in names), None) for role in USUAL}
    return {role: column for role, column in told.items() if column is not None}


def _of_resets(columns: Columns, log: FlatLog) -> Parts:
    """Return the infos of resets, one an episode, where a column has one a row."""
    resets, rows = _prefixed(columns, RESET_INFOS), len(log.rewards)
    number = np.zeros(rows) if log.episode is None else log.episode
    firsts = run_starts(number)
    return {n: a[firsts] if a.shape[:1] == (rows,) else a for n, a in resets.items()}


def _meaning(name: str) -> str:
    """Return the first of the names by which a column is known."""
    head, mark, rest = name.partition("/")
    first = next((first for first, others in ALIASES.items() if head in (first, *others)), head)
    return f"{first}{mark}{rest}"


def _by_custom(columns: Columns, reward: float | None) -> FlatLog:
    asked = [name for name in ALIASES if name != "episode"]
    known = {name: _custom(columns, name) for name in asked if name != "rewards" or reward is None}
    if reward is not None and known["actions"] is not None:
        known["rewards"] = constant_rewards(reward, known["actions"])
    missing = [n for n in ("observations", "actions", "rewards") if known.get(n) is None]
    if missing:
        none = f" Or, since {no_reward(columns)}." if missing == ["rewards"] else ""
        raise DataError(
            f"no column is called {' or '.join(missing)}; found {listed(list(columns))}. Say "
            f"which columns mean what with --mapping FILE.yaml.{none}"
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
        mark = f"{alias}/"
        if alias in columns:
            return {"": columns[alias]} if "observation" in name else columns[alias]
        parts = {n[len(mark) :]: columns[n] for n in columns if n.startswith(mark)}
        if parts and "observation" in name:
            return parts
    return None


def _prefixed(columns: Columns, prefix: str, rows: int | None = None) -> Parts:
    """Return the columns below a prefix that fit; see `Columns.numbers`."""
    mark = f"{prefix}/"
    found = {
        name[len(mark) :]: columns.numbers(name, rows) for name in columns if name.startswith(mark)
    }
    return {name: array for name, array in found.items() if array is not None}


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
    assert mapping.action is not None
    actions = side_by_side(mapping.action)
    rewards: Array | None
    if mapping.constant_reward is not None:
        rewards = constant_rewards(mapping.constant_reward, actions)
    elif not isinstance(mapping.reward, str):
        raise UsageError(
            f"nothing says what the reward is: name its column in the mapping; {no_reward(names)}"
        )
    else:
        rewards = single(mapping.reward)
    number = episode_column(names, mapping)
    return checked_log(
        observations,
        parts(mapping.next_observation),
        actions=actions,
        rewards=rewards,
        terminated=single(mapping.terminated),
        truncated=single(mapping.truncated),
        episode=None if number is None else columns.numbered(number),
    )


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

"""How many episodes a file says it holds, and how long: held against the cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import CutLog
from baq_cli.data.logs.ends.marks import listed_starts
from baq_cli.data.logs.ends.names import Kind, counted
from baq_cli.data.logs.ends.roles import way
from baq_cli.units import amount

Array = npt.NDArray[Any]


def row_counts(done: CutLog) -> Array:
    """Return how many of the log's rows each episode has, those left out included, `[K]`."""
    return np.bincount(done.episode)


def wrong_number(
    name: str, number: int, done: CutLog, limit: int | None, instead: str | None
) -> str:
    """Return what a single number of a file says against the cut, or nothing.

    `limit` is the number of steps after which episodes were cut, None where columns tell ends or
    terminations alone. `instead` says what goes with a limit that is given in the place of those;
    None where none can be.
    """
    rows, kept = len(done.episode), done.lengths
    what = counted(name)
    episodes = len(row_counts(done))
    aside = f"Say what ends an episode with --ends ROLE=COLUMN, or {way('unused', name)}."
    if what == "episodes" and number not in (episodes, len(kept)):
        return (
            f"it says {amount(number, 'episode')} ('{name}'), the cut makes {episodes:,}. {aside}"
        )
    if what == "steps" and number not in (rows, len(done.rewards)):
        return (
            f"it says {amount(number, 'step')} ('{name}'), and holds {amount(rows, 'row')}. Rows "
            f"are missing, or it counts something else: {way('unused', name)}."
        )
    if what != "longest" or not len(kept):
        return ""
    asked = "" if instead is None else f" Is it the limit: --max-episode-steps {number}{instead}?"
    if int(kept.max()) > number:
        return (
            f"it says {amount(number, 'step')} at most ('{name}'), the cut makes an episode of "
            f"{int(kept.max()):,}.{asked} {aside}"
        )
    if limit is not None and limit < number and limit in row_counts(done)[:-1]:
        return (
            f"it says that episodes have up to {number:,} steps ('{name}'), and they were cut "
            f"after {limit:,}.{asked} {aside}"
        )
    return ""


def wrong_list(name: str, values: Array, kind: Kind, done: CutLog) -> str:
    """Return what a list of ends, starts or lengths says against the cut, or nothing."""
    counts, rows = row_counts(done), len(done.episode)
    out = f"{way('episode', name)} cuts by it, {way('unused', name)} leaves it out."
    starts = listed_starts(values, rows, kind)
    if starts is not None:
        told = np.diff(np.append(np.flatnonzero(starts), rows))
        if np.array_equal(told, counts):
            return ""
        return f"{_two(name, told, counts)}. {out}"
    if kind is not Kind.LENGTHS:
        if not len(values) or values.dtype.kind not in "iu":
            return ""
        return (
            f"'{name}' lists {amount(len(values), 'row')} up to {values[-1]}, the file "
            f"holds {rows:,}. Rows are missing, or it lists something else: {way('unused', name)}."
        )
    if np.array_equal(values, done.lengths):
        return ""
    total = float(np.nansum(values.astype(np.float64)))
    return (
        f"'{name}' tells of {amount(len(values), 'episode')} of {total:,.0f} steps together, "
        f"the cut makes {len(counts):,} of {rows:,} rows. Rows are missing, or it tells "
        f"something else: {way('unused', name)}."
    )


def wrong_row_lengths(name: str, values: Array, done: CutLog) -> str:
    """Return what a column of lengths, repeated in each row, says against the cut, or nothing.

    A column that isn't whole by itself, as a running count isn't, says nothing.
    """
    rows, told, place = len(values), [], 0
    number = values.astype(np.float64)
    while place < rows:
        size = number[place]
        if (
            not (size >= 1 and size == int(size))
            or (number[place : place + int(size)] != size).any()
        ):
            return ""
        told.append(int(size))
        place += int(size)
    if place != rows or told == row_counts(done).tolist() or told == done.lengths.tolist():
        return ""
    return f"{_two(name, np.array(told), row_counts(done))}. {way('unused', name)} leaves it out."


def _two(name: str, told: Array, counts: Array) -> str:
    return (
        f"'{name}' tells of {amount(len(told), 'episode')} of {int(told.min()):,} to "
        f"{int(told.max()):,} steps, the cut makes {len(counts):,} of "
        f"{int(counts.min()):,} to {int(counts.max()):,}"
    )

"""The rows that a column marks: by flags, by a list of rows, or by lengths of episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.ends.names import Kind
from baq_cli.errors import DataError

Array = npt.NDArray[Any]


def is_flags(values: Array, rows: int) -> bool:
    """Tell whether an array is 0 and 1, or empty, in each of so many rows."""
    if values.shape != (rows,):
        return False
    if values.dtype.kind == "b":
        return True
    number = values.astype(np.float64)
    return bool(((number == 0) | (number == 1) | np.isnan(number)).all())


def flags(column: str, values: Array, rows: int, inverted: bool = False) -> Array:
    """Return which rows a column of 0 and 1 marks, `[N]` bool; of `inverted` ones the 0s.

    Raises DataError for a column of anything else.
    """
    if not is_flags(values, rows):
        raise DataError(
            f"column '{column}' marks no rows: expected 0 or 1 in each of {rows:,} rows"
            f"{_first_odd(values, rows)}"
        )
    return np.asarray(values == 0 if inverted else np.nan_to_num(values.astype(np.float64)) != 0)


def _first_odd(values: Array, rows: int) -> str:
    """Say what stands in the first row that is neither 0 nor 1."""
    if values.shape != (rows,):
        return f", found {len(values):,} numbers"
    number = values.astype(np.float64)
    row = int((~(np.isin(number, (0, 1)) | np.isnan(number))).argmax())
    return f", found {number[row]:g} in row {row} (from 0)"


def listed_starts(values: Array, rows: int, kind: Kind) -> Array | None:
    """Return the first rows of episodes that an array tells by rows or lengths, `[N]` bool.

    An array of ends counts up to the number of rows, or to the last row; one of starts from 0;
    lengths add up to the rows. None for an array that does none of it.
    """
    number = values.astype(np.float64)
    if not len(number) or not np.isfinite(number).all() or (number != np.floor(number)).any():
        return None
    if kind is Kind.LENGTHS:
        if (number < 1).any() or number.sum() != rows:
            return None
        places = np.cumsum(number) - number
    elif (np.diff(number) <= 0).any() or number[0] < 0:
        return None
    elif kind is Kind.FIRST:
        if number[0] != 0 or number[-1] >= rows:
            return None
        places = number
    else:
        if number[-1] not in (rows, rows - 1):
            return None
        stops = number + (number[-1] == rows - 1)
        places = np.append(0, stops[:-1])
    starts = np.zeros(rows, dtype=np.bool_)
    starts[places.astype(np.int64)] = True
    return starts


def episode_starts(column: str, values: Array, rows: int, role: str) -> Array:
    """Return the first rows of episodes that a column of a role tells, `[N]` bool.

    Roles are `first`, `last` and `step`; the last may fall back anywhere, or repeat its least.
    Raises DataError for a column that tells none.
    """
    if role == "step":
        return _counted_starts(column, values, rows)
    kind = Kind.FIRST if role == "first" else Kind.LAST
    if is_flags(values, rows):
        marked = flags(column, values, rows)
        starts = marked if role == "first" else np.append(True, marked[:-1])
        starts[0] = True
        return np.asarray(starts)
    found = listed_starts(values, rows, kind)
    if found is None:
        raise DataError(
            f"column '{column}' can't be --ends {role}: expected 0 or 1 in each of {rows} rows, "
            f"or rising row numbers {'from 0' if role == 'first' else f'up to {rows}'}"
        )
    return found


def _counted_starts(column: str, values: Array, rows: int) -> Array:
    if values.shape != (rows,) or not np.isfinite(values.astype(np.float64)).all():
        raise DataError(f"column '{column}' can't be --ends step: expected a number in each row")
    counter = values.astype(np.float64)
    change = np.diff(counter)
    again = (change < 0) | ((change == 0) & (counter[1:] == counter.min()))
    return np.append(True, again)


def marks_that_stay(marked: Array, last: Array) -> tuple[int, bool]:
    """Return how many episodes have a mark in each row from some row on to their last one.

    `marked` and `last` are `[N]` bool; the latter has each episode's last row. The other number
    tells whether it is all of their rows. 0 where no mark stays, or one is followed by a row
    without it in its episode.
    """
    number = np.cumsum(last) - last
    follows = np.append(False, marked[:-1] & ~last[:-1])
    if (follows & ~marked).any() or not (follows & marked).any():
        return 0, False
    episodes = np.unique(number[marked])
    whole = bool(marked[np.isin(number, episodes)].all())
    return len(episodes), whole

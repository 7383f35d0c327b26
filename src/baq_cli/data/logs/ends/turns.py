"""Rows in turn: episode numbers that come back, and counters of steps that fall back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.ends.roles import way
from baq_cli.errors import DataError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Apart:
    """Episodes told apart: a number for each row, `[N]`, in the order that `order` gives rows.

    `order` is None where they stay as they are. `why` is a word for the user, or empty.
    """

    episode: Array
    order: Array | None = None
    why: str = ""


@dataclass(frozen=True)
class Evidence:
    """What tells a number that comes back from rows written in turn.

    `counters` by name, `[N]`; `ended` `[N]` marks rows at which an episode ended, None where
    nothing does; `follows` tells whether rows are the next ones of others, None where next
    observations aren't recorded.
    """

    counters: dict[str, Array]
    ended: Array | None
    follows: Callable[[Array, Array], bool] | None


def falls_back(values: Array, may_repeat: bool = False) -> Array | None:
    """Return the rows at which a counter begins again, `[N]` bool.

    None for a column that is no counter: it must rise from row to row, and fall to where it began
    (the first row's value, 0 or 1) or not at all. `may_repeat`: one that rises by 1 may stand
    there for two rows, as where an episode has one step, or a row is there twice.
    """
    counter = values.astype(np.float64)
    if not np.isfinite(counter).all() or len(counter) < 2:
        return None
    change = np.diff(counter)
    if not (change > 0).any() or ((change == 0).any() and not may_repeat):
        return None
    if (change == 0).any() and (change[change > 0] != 1).any():
        return None
    back = np.append(False, change <= 0)
    starts = np.unique(counter[back])
    if len(starts) > 1 or (len(starts) and starts[0] not in (counter[0], 0, 1)):
        return None
    return back


def run_starts(number: Array) -> Array:
    """Return the rows at which a run of rows with the same number begins."""
    return np.flatnonzero(np.append(True, number[1:] != number[:-1]))


def tell_apart(number: Array, name: str | None, evidence: Evidence) -> Apart:
    """Tell episodes apart by a number a row, `[N]`, which may come back.

    Where it does, it is another episode if a counter of steps begins again there, or if the
    rows before had ended; if a counter or the recorded next observation goes on instead, the rows
    were written in turn, and are put together.
    Raises DataError where neither is certain.
    """
    starts = run_starts(number)
    first = np.unique(number[starts], return_index=True)[1]
    if len(first) == len(starts):
        return Apart(number)
    run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(number))))
    again = np.delete(np.arange(len(starts)), first)
    before = _runs_before(number[starts])[again]
    counted = _by_counters(number, run, again, evidence.counters)
    if counted is not None:
        return counted
    ended = evidence.ended
    last_rows = np.append(starts[1:], len(number)) - 1
    if ended is not None and ended[last_rows[before]].all():
        return Apart(run, why="its rows had ended before it came back: another episode each time")
    if evidence.follows is not None and evidence.follows(last_rows[before], starts[again]):
        order = np.argsort(number, kind="stable")
        return Apart(number[order], order, "its rows were written in turn, and were put together")
    lengths = np.diff(np.append(starts, len(number)))
    raise DataError(_advice(number, starts, again, lengths, name))


def _runs_before(numbers: Array) -> Array:
    """Return for each run the run before it of the same number; −1 for a number's first."""
    order = np.argsort(numbers, kind="stable")
    same = numbers[order][1:] == numbers[order][:-1]
    before = np.full(len(numbers), -1)
    before[order[1:][same]] = order[:-1][same]
    return before


def _by_counters(
    number: Array, run: Array, again: Array, counters: dict[str, Array]
) -> Apart | None:
    starts = run_starts(number)
    for name, values in counters.items():
        back = falls_back(values)
        if back is not None and back[starts[again]].all():
            return Apart(run, why=f"'{name}' begins again there: another episode each time")
        grouped = _in_turn(number, values)
        if grouped is not None:
            why = f"'{name}' goes on there: the rows were written in turn, and were put together"
            return Apart(*grouped, why)
    return None


def _in_turn(number: Array, values: Array) -> tuple[Array, Array] | None:
    """Return episodes and the order of rows where a counter rises by one for each number."""
    counter = values.astype(np.float64)
    order = np.argsort(number, kind="stable")
    if not np.isfinite(counter).all() or len(number) < 2:
        return None
    ordered = counter[order]
    other = number[order][1:] != number[order][:-1]
    change = np.diff(ordered)
    anew = ~other & (ordered[1:] == counter[0]) & (change < 0)
    if not (other | anew | (change == 1)).all() or not (~other & (change == 1)).any():
        return None
    if (ordered[1:][other] != counter[0]).any():
        return None
    begins = np.append(True, other | anew)
    firsts = order[begins]  # in the file; episodes come in the order of their first rows
    rank = np.argsort(np.argsort(firsts))
    episode = rank[np.cumsum(begins) - 1]
    again = np.argsort(episode, kind="stable")
    return episode[again], order[again]


def _advice(number: Array, starts: Array, again: Array, lengths: Array, name: str | None) -> str:
    row = int(starts[again[0]])
    said = (
        f"an episode's number comes back after another's, first in row {row} (from 0): "
        f"{len(starts)} runs of rows, {int(lengths.min())} to {int(lengths.max())} rows long, "
        f"have {len(np.unique(number))} numbers"
    )
    runs = "number each run of rows anew" if name is None else way("runs", name)
    called = "their number" if name is None else f"'{name}'"
    if np.median(lengths) < 2:
        return (
            f"{said}, as where several robots write in turn. Sort the rows by {called} and then "
            f"by step. If each of these runs is an episode of its own: {runs}."
        )
    return (
        f"{said}. If each run is an episode of its own, as where a second log begins at 0 again: "
        f"{runs}. If one episode's rows lie apart: Sort the rows by {called} and then by step."
    )

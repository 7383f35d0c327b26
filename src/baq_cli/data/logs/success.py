"""Marks of success: a log's column of them, and rewards made of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import CutLog
from baq_cli.data.logs.ends.clues import Clues
from baq_cli.data.logs.ends.names import plain_names
from baq_cli.data.logs.mapping import Mapping
from baq_cli.data.recording import Recording
from baq_cli.errors import DataError, UsageError, listed, nearest
from baq_cli.units import amount

Array = npt.NDArray[np.generic]
SUCCESS = "success"
"""The infos that keep marks with a dataset: 1 success, −1 failure, 0 where nobody marked."""


def marks_column(asked: str, names: Iterable[str]) -> str:
    """Return the column of success marks that is called so, as `next.success` is by `success`.

    Raises UsageError where there is none, or several.
    """
    known = list(names)
    if asked in known:
        return asked
    found = [name for name in known if {asked, f"is_{asked}"} & set(plain_names(name))]
    if not found:
        raise UsageError(f"--reward-from: the log has no column '{asked}'; {nearest(asked, known)}")
    if len(found) > 1:
        raise UsageError(
            f"--reward-from {asked}: it could be {listed(found)}. Give one of these names whole"
        )
    return found[0]


def asked_marks(mapping: Mapping | None, names: Iterable[str]) -> set[str]:
    """Return the column of marks that a mapping makes rewards of, if it does."""
    asked = None if mapping is None else mapping.success
    return set() if asked is None else {marks_column(asked, names)}


def looks_like_marks(names: Iterable[str]) -> list[str]:
    """Return the columns that are called a success."""
    called = {form for name in ("success", "successes") for form in (name, f"is_{name}")}
    return [name for name in names if called & set(plain_names(name))]


def no_reward(names: Iterable[str]) -> str:
    """Return what a log without rewards takes, in words."""
    column = next(iter(looks_like_marks(names)), "COLUMN")
    return (
        "a log without rewards takes --reward constant:0, or another number; where a column marks "
        f"success, --reward-from {column} makes a reward of each mark"
    )


def kept_marks(asked: str, clues: Clues, done: CutLog) -> tuple[Array, str]:
    """Return the marks of the steps that a cut kept, and their column.

    Marks are `[M]` int8: 1 of a success, −1 of a failure, else 0.

    What was marked at an episode's row that is no step (a final observation), or whose step was
    lost, is the mark of its last step.
    Raises DataError for a column of anything else.
    """
    name = marks_column(asked, clues.columns)
    given = clues.values(name)
    rows = len(done.episode)
    if given.shape != (rows,):
        raise DataError(
            f"column '{name}' has {len(given)} marks for {rows} rows: expected one each"
        )
    values = np.nan_to_num(given.astype(np.float64))
    odd = ~np.isin(values, (-1, 0, 1))
    if odd.any():
        raise DataError(
            f"column '{name}' holds {values[odd][0]:g} in row {int(odd.argmax())} (from 0), which "
            "marks neither success (1) nor failure (0 or -1). Rewards of any size are read where "
            "a mapping names them (reward: COLUMN)"
        )
    marks = values.astype(np.int8)
    kept = marks[done.rows]
    # of each row that was left out, the last kept row before it: one of its episode
    left = np.setdiff1d(np.flatnonzero(marks), done.rows)
    before = np.searchsorted(done.rows, left) - 1
    same = (before >= 0) & (done.episode[done.rows[before]] == done.episode[left])
    kept[before[same]] = marks[left[same]]
    return kept, name


def rewarded(recording: Recording, column: str) -> tuple[Recording, str]:
    """Return a recording whose rewards are its marks of success, and what was done in words.

    A column that says the same in all rows of each episode marks whole episodes: the reward is 1
    at the last step of those with success. Otherwise it is 1 at every step that is marked.
    """
    marks = recording.infos[SUCCESS]
    lengths = recording.lengths
    last = np.cumsum(lengths) - 1
    number = np.repeat(np.arange(len(lengths)), lengths)
    whole = bool((marks == marks[last][number]).all()) and bool((lengths > 1).any())
    marked = marks == 1
    if whole:
        marked &= np.isin(np.arange(len(marks)), last)
    count, episodes = int(marked.sum()), len(np.unique(number[marked]))
    of = f"{episodes:,} of {amount(len(lengths), 'episode')}"
    text = f"the reward is 1 at {amount(count, 'step')} in {of} that '{column}' marks, 0 elsewhere"
    if whole:
        text = (
            f"'{column}' marks whole episodes: the reward is 1 at the last step of {of}, "
            "0 elsewhere"
        )
    cut = int((marked & recording.truncated & ~recording.terminated).sum())
    if cut and not whole:
        text += (
            f". {cut:,} of these steps end a truncated episode, whose value goes on after it: "
            f"where success ends the task, say --ends terminated={column}"
        )
    return replace(recording, rewards=marked.astype(np.float64)), text

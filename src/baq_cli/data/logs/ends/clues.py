"""What a log's columns hold of ends, rewards and times, as they were read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.ends.names import Kind, Look, counted, looks
from baq_cli.data.logs.ends.roles import Said
from baq_cli.errors import DataError, UsageError, nearest

Array = npt.NDArray[Any]
_WORDS = {"": np.nan, "true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}


@dataclass(frozen=True)
class Clues:
    """Columns that look like an end, a reward or a time, or that the user names.

    `columns` by name, `[N]` a row each or of another length; None where no numbers can be read.
    `named`: the column that a role was read from, by its usual name or by a mapping. `numbers`
    are single numbers of the file, by name. `mapped`: a mapping says what columns mean, so that
    names alone decide nothing. `said` is what the user or the mapping says beyond that.
    """

    columns: dict[str, Array | None] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    mapped: bool = False
    said: Said = field(default_factory=dict)

    def look(self, name: str) -> Look | None:
        return looks(name)

    def of_kind(self, kinds: Iterable[Kind], rows: int, certain: bool = True) -> list[str]:
        """Return the readable columns `[rows]` that look like one of some kinds."""
        found = []
        for name, values in self.columns.items():
            look = looks(name)
            fits = look is not None and look.kind in kinds and (look.certain or not certain)
            if fits and values is not None and values.shape == (rows,):
                found.append(name)
        return found

    def values(self, name: str) -> Array:
        """Return a column that the user names.

        Raises UsageError when it isn't there, DataError when it holds no numbers.
        """
        if name not in self.columns:
            raise UsageError(f"the log has no column '{name}'; {nearest(name, list(self.columns))}")
        values = self.columns[name]
        if values is None:
            raise DataError(f"column '{name}' holds no numbers, or not one in each row")
        return values

    def ordered(self, order: Array) -> Clues:
        """Return the same columns, their rows in another order."""
        rows = len(order)
        moved = {
            name: values[order] if values is not None and values.shape == (rows,) else values
            for name, values in self.columns.items()
        }
        return replace(self, columns=moved)


def together(clues: Sequence[Clues], rows: Sequence[int]) -> Clues:
    """Return the clues of files whose rows are laid end to end; lists of another length are lost.

    What every file counts is added up.
    """
    first = clues[0]
    columns: dict[str, Array | None] = {}
    for name in dict.fromkeys(name for each in clues for name in each.columns):
        parts = [each.columns.get(name) for each in clues]
        whole = [p for p, n in zip(parts, rows, strict=True) if p is not None and p.shape == (n,)]
        columns[name] = np.concatenate(whole) if len(whole) == len(parts) else None
    shared = [name for name in first.numbers if all(name in each.numbers for each in clues)]
    numbers = {
        name: (max if counted(name) == "longest" else sum)(each.numbers[name] for each in clues)
        for name in shared
    }
    return replace(first, columns=columns, numbers=numbers)


def clue_names(names: Iterable[str], used: Collection[str]) -> list[str]:
    """Return which columns are clues by their names, of those that are not used."""
    return [name for name in names if name not in used and looks(name) is not None]


def said_columns(said: Said) -> set[str]:
    """Return the columns that are given a role."""
    return {column for given in said.values() for column in given}


def may_be_words(name: str, said: Said) -> bool:
    """Tell whether a column's values need only differ: episodes may be called by words."""
    look = looks(name)
    asked = said.get("episode", ()) + said.get("runs", ())
    return name in asked or (look is not None and look.kind is Kind.EPISODE)


def as_column(values: Any, rows: int) -> Array | None:
    """Return a clue as numbers `[N]`, or `[K]` for an array of another length; else None.

    The words true and false are 1 and 0.
    """
    array = np.asarray(values)
    if array.dtype.kind in "US" and array.ndim and array.dtype.itemsize:
        words = [_WORDS.get(_word(cell)) for cell in array.reshape(-1)]
        if any(word is None for word in words):
            return None
        array = np.array(words, dtype=np.float64).reshape(array.shape)
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        return None
    if array.size == rows or array.size == len(array):
        return array.reshape(-1)
    return None


def _word(cell: Any) -> str:
    text = cell.decode("ascii", errors="replace") if isinstance(cell, bytes) else str(cell)
    return text.strip().lower()


def as_number(name: str, value: Any) -> int | None:
    """Return a single number that counts episodes or steps; None for anything else."""
    if counted(name) is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    if isinstance(value, str):
        return int(value) if value.strip().isascii() and value.strip().isdigit() else None
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf":
        return None
    number = float(array.reshape(-1)[0])
    return int(number) if np.isfinite(number) and number == int(number) else None


def clues_of(
    columns: dict[str, Any],
    named: dict[str, str],
    said: Said,
    rows: int,
    numbers: dict[str, int],
    every: list[str],
) -> Clues:
    """Return what columns `[N]`, lists of another length and single numbers tell of ends.

    `named` and `said` are columns by role, `every` the names of all columns of the file.
    Raises UsageError where a column that the user names isn't there.
    """
    for name in said_columns(said):
        if name not in every and name not in numbers:
            near = nearest(name, [*every, *numbers])
            raise UsageError(f"--ends: the log has no column '{name}'; {near}")
    found: dict[str, Array | None] = {}
    for name in columns:
        value = columns[name]
        found[name] = None if value is None else as_column(value, rows)
        number = None if value is None or found[name] is not None else as_number(name, value)
        if number is not None:
            numbers = {**numbers, name: number}
    return Clues(found, named, numbers, said=said)

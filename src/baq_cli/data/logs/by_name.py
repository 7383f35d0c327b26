"""Columns of a file by name, read as numbers or words when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.errors import DataError

Array = npt.NDArray[Any]
MOST_COLUMNS, MOST_LETTERS = 100_000, 1_000
Convert = Callable[[str, Any], Array]
_DECIMAL = re.compile(r"[+-]?[0-9]+\.[0-9]*")


class Columns(dict[str, Any]):
    """Columns by name, turned into numbers when they are asked for: others may hold words.

    `convert` does that, `number` gives each different value a number of its own, and `label` is a
    row's value as a word; without them columns are arrays already. What `wanted` doesn't name
    needn't have a value.
    Raises DataError for more columns, or longer names, than any log has.
    """

    def __init__(
        self,
        values: dict[str, Any],
        convert: Convert | None = None,
        number: Convert | None = None,
        label: Callable[[str, Any, int], str] | None = None,
    ):
        super().__init__(values)
        check_names(list(values))
        self._convert, self._number = convert, number or _number_array
        self._label = label or _label_array

    def __getitem__(self, name: str) -> Array:
        value = super().__getitem__(name)
        return value if self._convert is None else self._convert(name, value)

    def numbered(self, name: str) -> Array:
        """Return a column's values as numbers, the same for the same value: words will do.

        Raises DataError where a row has none.
        """
        return self._number(name, super().__getitem__(name))

    def label(self, name: str, row: int) -> str:
        """Return a row's value as a word; the same words are the same values in other files too."""
        return self._label(name, super().__getitem__(name), row)

    def clue(self, name: str, words: bool) -> Array | None:
        """Return what a column that nothing asks for holds, or None: it spoils no log."""
        if super().__getitem__(name) is None:  # its reader has seen that it is none
            return None
        try:
            return self.numbered(name) if words else self[name]
        except (DataError, ValueError, TypeError):
            return None

    def numbers(self, name: str, rows: int | None = None) -> Array | None:
        """Return a column of numbers, with so many rows; None where it is something else.

        This is for what nothing asks for by name: it goes along where it fits.
        """
        if super().__getitem__(name) is None:  # its reader has seen that it is none
            return None
        try:
            array = np.asarray(self[name])
        except DataError:
            return None
        fits = array.dtype.kind in "fiub" and (rows is None or array.shape[:1] == (rows,))
        return array if fits else None


def check_names(names: Sequence[str]) -> None:
    """Raise DataError for more columns, or longer names, than any log has."""
    if len(names) > MOST_COLUMNS:
        raise DataError(f"it has {len(names):,} columns; expected {MOST_COLUMNS:,} at most")
    longest = max(map(len, names), default=0)
    if longest > MOST_LETTERS:
        raise DataError(f"a column's name has {longest:,} letters; expected {MOST_LETTERS} at most")


def plain_name(word: str) -> str:
    """Return an episode's name, of a number in plain digits its shortest: 7.0 is 7."""
    return word.rstrip("0").rstrip(".") if _DECIMAL.fullmatch(word) else word


def named_alike(words: Sequence[Any], numbers: Array) -> Array:
    """Return one number for all words that are one name; `numbers [N]` are places among them."""
    place: dict[str, int] = {}
    texts = [word.decode("latin-1") if isinstance(word, bytes) else str(word) for word in words]
    names = [place.setdefault(plain_name(text), len(place)) for text in texts]
    return np.asarray(names, dtype=np.int64)[numbers]


def label_of(value: Any) -> str:
    """Return an episode's name or number as a word, the same for the same number of any type."""
    whole = isinstance(value, float) and value.is_integer()
    return plain_name(str(int(value) if whole else value))


def nameless(column: str, empty: int, rows: int, where: str) -> DataError:
    """Return what is said of a column that should name each row's episode, and is empty in some."""
    return DataError(
        f"column '{column}' is empty in {empty:,} of {rows:,} rows, {where}: expected a number or "
        "a word in each"
    )


def check_numbered(column: str, empty: Array) -> None:
    """Raise DataError where a column that should name each row's episode is empty, `[N]` bool."""
    if empty.any():
        where = f"first in row {int(empty.argmax())} (from 0)"
        raise nameless(column, int(empty.sum()), empty.size, where)


def _number_array(name: str, column: Any) -> Array:
    column = np.asarray(column)
    if column.dtype.kind in "iuf":
        check_numbered(name, np.isnan(column))
        return column
    if column.dtype.kind not in "bUSM" or not column.dtype.itemsize:
        raise DataError(f"column '{name}' is of type {column.dtype}; expected numbers or words")
    words = column.reshape(-1)
    found, numbers = np.unique(words, return_inverse=True)
    blank = [k for k, word in enumerate(found.tolist()) if word in ("", b"", None)]
    check_numbered(name, np.isin(numbers.reshape(-1), blank))
    return named_alike(found.tolist(), numbers.reshape(-1))


def _label_array(name: str, column: Any, row: int) -> str:
    return label_of(np.asarray(column).reshape(-1)[row].item())

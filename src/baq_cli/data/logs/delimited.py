"""Logs as text, .csv and .tsv: a line of names, then a line a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.by_name import Columns, check_names, nameless, plain_name
from baq_cli.data.logs.columns import episode_column, to_log_file, wanted
from baq_cli.data.logs.dialect import Rows, decimal_mark, split_rows
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import Mapping, TextForm, has_patterns
from baq_cli.data.logs.text import decoded, shown
from baq_cli.errors import DataError, UsageError, clipped

Array = npt.NDArray[Any]
MISSING = ("", "na", "n/a", "null", "none")
_WORDS = {**dict.fromkeys(MISSING, np.nan), "true": 1.0, "false": 0.0}
MOST_DIGITS = 1_000
"""Letters of a cell that is a number; reading longer ones takes time."""
_SEVERAL = -1
"""The place of a name that the header has twice."""


def read_csv(path: Path, mapping: Mapping | None) -> LogFile:
    """Read a table written as text. Empty cells are NaN; true and false are 1 and 0.

    What stands between cells, the decimal mark and the encoding are found where they can be told
    with certainty; `dialect.py` says how. Cells that nothing asks for may hold anything.
    Raises DataError for rows of another length than the header's, and for words among numbers.
    """
    form = mapping or TextForm()
    text, encoding = decoded(path)
    rows = split_rows(text, form, lambda names, literal: _has_all(names, literal, mapping))
    check_names(rows.header)
    places: dict[str, Any] = {}
    for place, name in enumerate(rows.header):
        if name:  # a blank cell names nothing
            places[name] = _SEVERAL if name in places else place
    names = list(places)
    number = episode_column(names, mapping)
    asked = [places[name] for name in wanted(names, mapping) if name != number]
    asked = [place for place in asked if place != _SEVERAL]
    if form.units_row:
        rows = _without_units(rows, asked)
    reading = _Reading(rows, decimal_mark(rows, asked, form))
    columns = Columns(places, reading.numbers, reading.numbered, reading.label)
    file = to_log_file(columns, mapping, None)
    how = [note for note in (encoding, *rows.notes, *reading.notes) if note]
    return replace(file, notes=(f"read with {', '.join(how)}", *file.notes)) if how else file


def _has_all(names: list[str], literal: bool, mapping: Mapping | None) -> bool:
    """Return whether names have what makes a log; `literal`: none of them found by a pattern."""
    try:
        found = wanted(names, mapping)
    except UsageError:
        return False
    if mapping is None or not mapping.names_columns:
        return len(found) > 1
    return not literal or not has_patterns(mapping, names)


def _without_units(rows: Rows, asked: list[int]) -> Rows:
    """Leave out the first row, which was said to hold units."""
    line, first = rows.lines[0], [rows.cells[0][place] for place in asked]
    if all(any(_number(cell, mark) is not None for mark in ".,") for cell in first):
        raise DataError(f"line {line} holds no units: leave --units-row (units_row) out")
    if len(rows.cells) == 1:
        raise DataError("it holds no rows; expected a header, units and a row a step")
    notes = (*rows.notes, f"units in line {line}")
    return replace(rows, cells=rows.cells[1:], lines=rows.lines[1:], notes=notes)


@dataclass(frozen=True)
class _Reading:
    """How the cells of a table become numbers."""

    rows: Rows
    decimal: str

    @property
    def notes(self) -> tuple[str, ...]:
        return ("decimal commas",) if self.decimal == "," else ()

    def numbers(self, name: str, place: int) -> Array:
        """Return cells as numbers, one by one: an array of words is as wide as the longest."""
        cells = self._cells(name, place)
        out = np.empty(len(cells))
        for row, cell in enumerate(cells):
            number = _number(cell, self.decimal)
            if number is None:
                raise self._no_number(name, cells, row)
            out[row] = number
        return out

    def numbered(self, name: str, place: int) -> Array:
        numbers: dict[str, int] = {}
        cells = [cell.strip() for cell in self._cells(name, place)]
        empty = [row for row, cell in enumerate(cells) if cell.lower() in MISSING]
        if empty:
            where = f"first in line {self.rows.lines[empty[0]]}"
            raise nameless(name, len(empty), len(cells), where)
        names = map(plain_name, cells)
        return np.array([numbers.setdefault(name, len(numbers)) for name in names])

    def label(self, name: str, place: int, row: int) -> str:
        return plain_name(self._cells(name, place)[row].strip())

    def _cells(self, name: str, place: int) -> list[str]:
        if place == _SEVERAL:
            raise DataError(
                f"the header has '{name}' twice, and it is asked for: give one of the columns "
                "another name"
            )
        return [row[place] for row in self.rows.cells]

    def _no_number(self, name: str, cells: list[str], row: int) -> DataError:
        line = self.rows.lines[row]
        text = (
            f"column '{name}' has '{clipped(shown(cells[row]))}' in line {line}; expected a number"
        )
        if row == 0 and len(cells) > 1 and _number(cells[1], self.decimal) is not None:
            text += f". If line {line} holds units, --units-row (in a mapping units_row: true) "
            text += "leaves it out"
        return DataError(text)


def _number(cell: str, decimal: str) -> float | None:
    """Return a cell's number, None where it is none."""
    word = cell if len(cell) <= MOST_DIGITS else "long"
    if "_" in word:  # 1_5 is a number to Python alone
        return None
    if decimal == ",":
        word = "dot" if "." in word else word.replace(",", ".")
    try:
        return float(word)
    except ValueError:
        return _WORDS.get(word.strip().lower())

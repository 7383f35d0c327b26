"""How a table is written as text: comments, what stands between cells, names, decimal marks.

What can be told with certainty is told; where two readings are possible the file is refused, with
the option that says which it is.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from baq_cli.data.logs.mapping import TextForm
from baq_cli.data.logs.text import shown
from baq_cli.errors import DataError, UsageError, clipped
from baq_cli.units import amount

DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'", " ": "space"}
"""What may stand between cells, as messages call it; a space stands for any run of spaces."""
_TYPED = {"\t": ("tab", '"\\t"')}
"""What can't be typed or copied as it is: as `--delimiter` and as a mapping take it."""
COMMENTS = ("#", "%")
"""What a line of comment begins with: NumPy's and MATLAB's."""
COMPARED_ROWS = 200
"""From which what stands between cells is told; all rows are checked afterwards."""
_TOLD = re.compile(r'"?sep=([,;|\t])"?\s*')
_DECIMAL = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
Cells = list[str]
Fits = Callable[[Cells, bool], bool]
"""Whether names have all that is asked for; with True, each by itself and not by a pattern."""


@dataclass(frozen=True)
class Rows:
    """A table's cells: names, rows of as many cells, the line of each, and how it was read.

    `commas`: cells may have commas in them.
    """

    header: Cells
    cells: list[Cells]
    lines: list[int]
    commas: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    """A text whose rows begin below some lines: comments, and what stands between cells."""

    text: str
    comments: tuple[str, ...]
    skipped_lines: int
    told: str | None

    def rows(self, delimiter: str) -> Iterator[tuple[int, Cells]]:
        """Yield the rows with the line that each ends in, without blank lines."""
        lines = islice(io.StringIO(self.text, newline=""), self.skipped_lines, None)
        if delimiter == " ":
            for number, line in enumerate(lines, self.skipped_lines + 1):
                if line.strip():
                    yield number, line.split()
            return
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        for row in reader:
            if row:
                yield self.skipped_lines + reader.line_num, row

    def first(self, delimiter: str) -> Cells:
        return next(self.rows(delimiter), (0, []))[1]


def split_rows(text: str, form: TextForm, fits: Fits) -> Rows:
    """Tell a text's header and rows.

    Raises DataError for a text without rows or names, or with a row of another length than the
    header's; UsageError where two readings are possible.
    """
    table = _below_comments(text)
    try:
        with _cells_of_any_length(text):
            delimiter = form.delimiter or table.told or _delimiter(table, form, fits)
            header, lead = _header(table, delimiter, form, fits)
            cells, lines, comments = _body(table, delimiter, header, lead)
    except csv.Error as error:
        raise DataError(f"can't be read as a .csv file: {error}") from error
    between = "" if delimiter == "," else f"{DELIMITERS.get(delimiter, delimiter)} between cells"
    above = "" if lead else "the columns' names from the comment above the rows"
    left_out = f"{amount(comments, 'line')} of comment left out" if comments else ""
    return Rows(
        header,
        cells,
        lines,
        commas=delimiter != "," or '"' in text,
        notes=tuple(filter(None, (between, "" if form.columns else above, left_out))),
    )


@contextmanager
def _cells_of_any_length(text: str) -> Iterator[None]:
    """A long cell may be one that nothing asks for; the text is in memory already."""
    before = csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _below_comments(text: str) -> _Table:
    comments, count, told = [], 0, None
    for line in io.StringIO(text, newline=""):
        bare = line.strip()
        if count == 0 and (found := _TOLD.fullmatch(line)):  # Excel's
            told = found[1]
        elif bare and not bare.startswith(COMMENTS):
            break
        elif bare:
            comments.append(bare.lstrip("".join(COMMENTS)).strip() or bare)
        count += 1
    return _Table(text, tuple(comments), count, told)


# -- what stands between cells


def _delimiter(table: _Table, form: TextForm, fits: Fits) -> str:
    """Tell what stands between cells: it cuts the first rows into equally many, more than one.

    Where several do, it is the one that gives the names asked for.
    Raises UsageError where that are several, too.
    """
    possible = [d for d in DELIMITERS if d != " " and _cuts(table, d)]
    if not possible and len(table.first(",")) <= 1 and _cuts(table, " "):
        return " "
    if not possible:
        return max((",", ";", "\t"), key=lambda d: len(table.first(d)))
    named = [d for d in possible if _finds_names(table, d, form, fits)]
    if len(named) > 1:
        several = " or ".join(DELIMITERS[d] for d in named)
        flag, word = _TYPED.get(named[0], (f"'{named[0]}'", f"'{named[0]}'"))
        raise UsageError(
            f"cells may be divided by {several}: say which with --delimiter, as --delimiter "
            f"{flag} (in a mapping delimiter: {word})"
        )
    return (named or possible)[0]


def _cuts(table: _Table, delimiter: str) -> bool:
    rows = [row for _, row in islice(table.rows(delimiter), COMPARED_ROWS)]
    width = len(rows[0]) if rows else 0
    return width > 1 and all(
        _fitted(row, rows[0]) is not None or row[0].startswith(COMMENTS) for row in rows
    )


def _finds_names(table: _Table, delimiter: str, form: TextForm, fits: Fits) -> bool:
    try:
        return fits(_header(table, delimiter, form, fits)[0], False)
    except DataError:
        return False


# -- names


def _header(table: _Table, delimiter: str, form: TextForm, fits: Fits) -> tuple[Cells, int]:
    """Return the columns' names, and how many rows they take: one, or none above the rows.

    Raises DataError for a text without names.
    """
    first = table.first(delimiter)
    if not first:
        raise DataError("it holds no rows; expected a header and a row a step")
    if form.columns is not None:
        return list(form.columns), 0
    names = _stripped(first)
    if not _is_of_numbers(first) or fits(names, True):
        return names, 1
    said = {
        tuple(cells): None
        for comment in table.comments
        for other in dict.fromkeys((delimiter, *DELIMITERS))
        if len(cells := _cut_comment(comment, other)) == len(first) and not _is_of_numbers(cells)
    }
    found = [list(cells) for cells in said if len(said) == 1 or fits(list(cells), False)]
    if len(found) == 1:
        return found[0], 0
    raise DataError(
        f"line {table.skipped_lines + 1} holds numbers, so there is no header of names. Write a "
        "line with the columns' names above it, or name them in the mapping, as "
        f"columns: [x, y, …]; here {len(first)}"
    )


def _cut_comment(comment: str, delimiter: str) -> Cells:
    if delimiter == " ":
        return comment.split()
    return _stripped(next(csv.reader([comment], delimiter=delimiter, skipinitialspace=True), []))


def _stripped(row: Sequence[str]) -> Cells:
    return [shown(cell.strip()) for cell in row]


def _is_of_numbers(row: Cells) -> bool:
    """Return whether a row's cells are numbers, with either decimal mark; blank ones don't count.

    Names such as nan or inf are names.
    """
    cells = [cell.strip().replace(",", ".") for cell in row if cell.strip()]
    return bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)


# -- rows


def _body(
    table: _Table, delimiter: str, header: Cells, lead: int
) -> tuple[list[Cells], list[int], int]:
    """Return the rows below the header, the line of each, and how many were comments."""
    cells, lines, comments = [], [], 0
    for line, row in islice(table.rows(delimiter), lead, None):
        fitted = _fitted(row, header)
        if fitted is not None:
            cells.append(fitted)
            lines.append(line)
        elif row[0].startswith(COMMENTS):
            comments += 1
        else:
            raise DataError(f"line {line} has {len(row)} cells, the header has {len(header)}")
    while cells and not any(cell.strip() for cell in cells[-1]):  # a spreadsheet's empty rows
        cells.pop()
        lines.pop()
    if not cells:
        raise DataError("it holds no rows; expected a header and a row a step")
    return cells, lines, comments


def _fitted(row: Cells, header: Cells) -> Cells | None:
    """Return a row as long as the header; None where more than blank cells would have to go."""
    width = len(header)
    if len(row) == width:
        return row
    if len(row) > width:
        return row[:width] if not any(cell.strip() for cell in row[width:]) else None
    nameless = not any(name.strip() for name in header[len(row) :])
    return row + [""] * (width - len(row)) if nameless else None


# -- decimal marks


def decimal_mark(rows: Rows, places: Sequence[int], form: TextForm) -> str:
    """Tell the decimal mark of some of a table's columns.

    Raises UsageError where a comma may also divide thousands, DataError where it does, or where
    both marks are used.
    """
    if form.decimal is not None or not rows.commas:
        return form.decimal or "."
    thousands = unsure = sure = dot = None
    for cells, line in zip(rows.cells, rows.lines, strict=True):
        for cell in (cells[place].strip() for place in places):
            if "," not in cell:
                dot = dot or ((cell, line) if "." in cell and _NUMBER.fullmatch(cell) else None)
            elif _THOUSANDS.fullmatch(cell):
                unsure = unsure or (cell, line)
                thousands = thousands or ((cell, line) if cell.count(",") > 1 else None)
            elif _DECIMAL.fullmatch(cell):
                sure = sure or (cell, line)
            else:
                return "."  # no number at all, and that is what will be said of it
    comma = sure or unsure
    if comma is None:
        return "."
    if dot is not None:
        raise DataError(
            f"'{clipped(comma[0])}' in line {comma[1]} has a comma and '{clipped(dot[0])}' in line "
            f"{dot[1]} a point: write all numbers with one decimal mark, and none for thousands"
        )
    if thousands is not None:
        raise DataError(
            f"'{clipped(thousands[0])}' in line {thousands[1]} divides thousands by commas: write "
            "numbers without a mark for thousands"
        )
    if sure is None:
        raise UsageError(
            f"'{clipped(comma[0])}' in line {comma[1]} may be a decimal comma, or divide "
            "thousands: --decimal ',' (in a mapping decimal: ',') says the first; otherwise write "
            "numbers without a mark for thousands"
        )
    return ","

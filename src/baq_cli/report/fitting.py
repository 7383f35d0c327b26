"""Tables in a terminal that is narrower than they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

GAP = 3
"""Letters between two columns, in tables as they are made here."""
LEAST_PROSE = 16
"""Letters of a line below which sentences are no longer folded beside other columns."""

LEAST_BESIDE = 6
"""Letters beside a name that is too long for the column next to it."""


class Fitting:
    """A table whose columns go on below, beside the first one again, where a terminal ends.

    So no number is cut. Columns of sentences, whose headings are `prose`, are folded before others
    go below. A single column that is wider than the terminal is folded.
    """

    def __init__(self, table: Table, prose: Collection[str] = ()) -> None:
        self.table, self.prose = table, prose

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        groups = self.groups(options.max_width)
        whole = len(groups) == 1 and not self.prose and self._needed(groups[0]) <= options.max_width
        for k, group in enumerate(groups):
            if k:
                yield Text("")
            yield self.table if whole else self._of(group, options.max_width)

    def groups(self, width: int) -> list[list[Column]]:
        """Return the columns of each part: as many as a width has room for, one at least."""
        first, *others = self.table.columns
        parts: list[list[Column]] = []
        left = 0
        for column in others:
            needed = GAP + self._least(column)
            if not parts or needed > left:
                parts.append([first])
                left = width - self._least(first)
            parts[-1].append(column)
            left -= needed
        return parts or [[first]]

    def _least(self, column: Column) -> int:
        needed = _width(column)
        return min(needed, LEAST_PROSE) if column.header in self.prose else needed

    def _needed(self, columns: Sequence[Column]) -> int:
        return sum(map(self._least, columns)) + GAP * (len(columns) - 1)

    def _of(self, columns: Sequence[Column], width: int) -> Table:
        """Return a part; where its columns have room, nothing but prose is folded.

        Elsewhere the first column, of names, is whole if it leaves any room.
        """
        needed = self._needed(columns)
        named = _width(columns[0]) + GAP + LEAST_BESIDE <= width
        part = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            fits = needed <= width or (column is columns[0] and named)
            whole = fits and column.header not in self.prose
            part.add_column(column.header, justify=column.justify, overflow="fold", no_wrap=whole)
        cells = zip(*(column.cells for column in columns), strict=True)
        for row, texts in zip(self.table.rows, cells, strict=True):
            part.add_row(*texts, end_section=row.end_section)
        return part


def _width(column: Column) -> int:
    texts = [of if isinstance(of, Text) else Text(str(of)) for of in (column.header, *column.cells)]
    return max(text.cell_len for text in texts)

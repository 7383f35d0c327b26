"""Tables in a terminal that is narrower than they are."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

GAP = 3
"""Letters between two columns, in tables as they are made here."""


class Fitting:
    """A table whose columns go on below, beside the first one again, where a terminal ends.

    So no number is cut. A single column that is wider than the terminal is folded.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        groups = self.groups(options.max_width)
        for k, group in enumerate(groups):
            if k:
                yield Text("")
            yield self.table if len(groups) == 1 else self._of(group)

    def groups(self, width: int) -> list[list[Column]]:
        """Return the columns of each part: as many as a width has room for, one at least."""
        first, *others = self.table.columns
        parts: list[list[Column]] = []
        left = 0
        for column in others:
            needed = GAP + _width(column)
            if not parts or needed > left:
                parts.append([first])
                left = width - _width(first)
            parts[-1].append(column)
            left -= needed
        return parts or [[first]]

    def _of(self, columns: Sequence[Column]) -> Table:
        part = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            part.add_column(column.header, justify=column.justify, overflow="fold")
        cells = zip(*(column.cells for column in columns), strict=True)
        for row, texts in zip(self.table.rows, cells, strict=True):
            part.add_row(*texts, end_section=row.end_section)
        return part


def _width(column: Column) -> int:
    texts = [of if isinstance(of, Text) else Text(str(of)) for of in (column.header, *column.cells)]
    return max(text.cell_len for text in texts)

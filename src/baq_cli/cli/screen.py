"""The terminal as Rich knows it, safe from what a file's words could tell it to do."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from baq_cli.report.names import printable_lines
from baq_cli.surroundings import in_utf8


class Screen(Console):
    """A console on which control characters are printed as �; only Rich's own reach it.

    Rich itself lets escapes through, in `Text` as well.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable_lines(in_utf8(text)), style)

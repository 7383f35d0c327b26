"""The terminal as Rich knows it, safe from what a file's words could tell it to do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from baq_cli.report.names import printable_lines


class Screen(Console):
    """A console on which control characters are printed as �; only Rich's own reach it.

    Rich itself lets escapes through, in `Text` as well. What it shows on stderr is lost without
    a word when nobody is there any more (a terminal that was closed, a pipe whose reader ended):
    a run has to be saved then, not to fail.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable_lines(text), style)

    def _write_buffer(self) -> None:
        try:
            super()._write_buffer()
        except OSError:
            if not self.stderr:
                raise
            self.quiet = True
            with suppress(OSError, ValueError):  # so that what is left in it can be flushed
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.file.fileno())
                os.close(nowhere)

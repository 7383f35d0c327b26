"""What a person sees while a run goes on: a live display, or a line an evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from baq_cli.cli.plot import text_plot
from baq_cli.cli.say import say
from baq_cli.cli.screen import Screen
from baq_cli.runs.events import Acting, Evaluated, Event, Note, Observer, Progress
from baq_cli.units import UNITS, amount, scores

PHASE, BAR, COUNTER, RATE, LEFT = range(5)
"""The first of the counters' columns, in their order."""
BAR_CELLS, GAP = 24, 2


@contextmanager
def watch(title: str) -> Iterator[Observer]:
    """Show a run's events on stderr until the block ends."""
    console = Screen(stderr=True)
    display: _Plain = _Lively(console, title) if console.is_terminal else _Plain(console, title)
    with display.open():
        yield display.see


@contextmanager
def watch_cells(title: str) -> Iterator[Callable[[str, Event], None]]:
    """Show the events of several cells on stderr, by the cells' names, until the block ends."""
    console = Screen(stderr=True)
    board = _Board(console, title)
    with board.open():
        yield board.see


def told(event: Event) -> None:
    """Say a note on stderr, of commands that have nothing else to show meanwhile."""
    if isinstance(event, Note):
        say(event.text, err=True)


class _Plain:
    """One line an evaluation and a note, for logs and pipes."""

    def __init__(self, console: Screen, title: str):
        self.console = console
        self.title = title

    @contextmanager
    def open(self) -> Iterator[None]:
        self.see_line(self.title)
        yield

    def see(self, event: Event) -> None:
        if isinstance(event, Note):
            self.see_line(event.text)
        elif isinstance(event, Evaluated):
            self.see_line(describe(event))
        elif isinstance(event, Acting) and event.person:
            self.see_line(event.text)

    def see_line(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        self.console.print(f"{stamp} {text}", markup=False, highlight=False, soft_wrap=True)


class _Lively(_Plain):
    """A live panel: phase, counters, rate, time left, who acts, the last evaluation, the curve."""

    def __init__(self, console: Screen, title: str):
        super().__init__(console, title)
        self.progress: Progress | None = None
        self.acting = ""
        self.evaluations: list[Evaluated] = []
        self.live = Live(console=console, refresh_per_second=4, transient=True)

    @contextmanager
    def open(self) -> Iterator[None]:
        with self.live:
            self._refresh()
            yield

    def see(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.progress = event
        elif isinstance(event, Evaluated):
            self.evaluations.append(event)
        elif isinstance(event, Acting):
            self.acting = event.text
        if isinstance(event, Note):
            self.see_line(event.text)
        self._refresh(at_once=isinstance(event, Acting))

    def _refresh(self, at_once: bool = False) -> None:
        parts: list[RenderableType] = [Text(self.title, style="bold")]
        if self.progress is not None:
            parts.append(counters([counter_cells(self.progress)], self.console.width))
        if self.acting:
            parts.append(Text(self.acting, style="bold yellow"))
        if self.evaluations:
            parts.append(Text(describe(self.evaluations[-1])))
        if len(self._shown()) > 1:
            parts.append(Text(self._curve()))
        self.live.update(Group(*parts), refresh=at_once)

    def _shown(self) -> list[Evaluated]:
        return [e for e in self.evaluations if e.phase == self.evaluations[-1].phase]

    def _curve(self) -> str:
        shown = self._shown()
        means = [float(e.returns.mean()) for e in shown]
        unit = UNITS[shown[-1].phase]
        return text_plot([e.done for e in shown], means, unit, self.console.width)


class _Board:
    """Cells side by side: a row of counters each, and their evaluations as lines.

    A terminal that hasn't room for names beside their counters has them above.
    """

    def __init__(self, console: Screen, title: str):
        self.console = console
        self.lines = _Plain(console, title)
        self.rows: dict[str, Progress] = {}
        self.last: dict[str, Evaluated] = {}
        self.live = Live(console=console, refresh_per_second=4, transient=True)
        self.is_live = console.is_terminal

    @contextmanager
    def open(self) -> Iterator[None]:
        with self.lines.open(), self.live if self.is_live else nullcontext():
            yield

    def see(self, name: str, event: Event) -> None:
        if isinstance(event, Progress):
            self.rows[name] = event
        elif isinstance(event, Evaluated):
            self.last[name] = event
            if not self.is_live:
                self.lines.see_line(f"{name:>12} {describe(event)}")
        else:
            self.lines.see(event)
        if self.is_live:
            self.live.update(self._table())

    def _table(self) -> RenderableType:
        names = [Text(name, style="bold") for name in self.rows]
        rows = [
            [*counter_cells(progress), self._score(name)] for name, progress in self.rows.items()
        ]
        width = self.console.width
        beside = max(_length(row[COUNTER]) for row in rows) + GAP + max(map(_length, names))
        if beside <= width:
            return counters(rows, width, names)
        below = [counters([row], width) for row in rows]
        return Group(*(part for pair in zip(names, below, strict=True) for part in pair))

    def _score(self, name: str) -> str:
        last = self.last.get(name)
        return "" if last is None else f"return {scores(last.returns.mean())[0]}"


def describe(event: Evaluated) -> str:
    """Return an evaluation in a line: counter, mean over seeds, spread, count."""
    by_seed = event.returns.mean(1)
    deviation = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
    mean, spread = scores(float(by_seed.mean()), deviation)
    spread = spread and f" ± {spread} over {len(by_seed)} seeds"
    count = event.returns.shape[1]
    what, over = "return", f"{amount(count, 'episode')} each"
    if event.estimated:
        what, over = "estimated discounted return", f"at the dataset's start states: {count:,}"
    at = f"{event.phase} {event.done:>8,} {UNITS[event.phase]}"
    return f"{at}: {what} {mean}{spread} ({over})"


def counters(
    rows: Sequence[Sequence[RenderableType]], width: int, names: Sequence[Text] = ()
) -> Table:
    """Return rows of counter cells as a table, without the columns that it hasn't room for.

    `names` are the rows' own. The bar goes first, then what is further to the right, the rate, the
    phase and the time left.
    """
    kept = list(range(max(map(len, rows))))
    room = width - max((_length(name) + GAP for name in names), default=0)
    for column in (BAR, *reversed(kept[LEFT + 1 :]), RATE, PHASE, LEFT):
        widths = [max(_length(row[k]) for row in rows if k < len(row)) for k in kept]
        if sum(widths) + GAP * (len(kept) - 1) <= room:
            break
        kept.remove(column)
    table = Table.grid(padding=(0, GAP))
    for n, row in enumerate(rows):
        table.add_row(*names[n : n + 1], *(row[k] for k in kept if k < len(row)))
    return table


def _length(cell: RenderableType) -> int:
    return BAR_CELLS if isinstance(cell, ProgressBar) else Text(str(cell)).cell_len


def counter_cells(progress: Progress) -> list[RenderableType]:
    """Return the cells of a row of counters."""
    left = timedelta(seconds=round(progress.seconds_left))
    unit = f"updates of {progress.stage}" if progress.stage else UNITS[progress.phase]
    return [
        Text(progress.phase, style="cyan"),
        ProgressBar(total=progress.total, completed=progress.done, width=BAR_CELLS),
        f"{progress.done:,} / {progress.total:,} {unit}",
        f"{progress.updates_per_second:.0f} updates/s",
        f"{left} left",
        *([] if progress.utd is None else [f"UTD {progress.utd:.2f}"]),
        *([] if progress.late is None else [f"{progress.late:.2%} late"]),
        *([] if progress.taken_over is None else [f"{progress.taken_over:.1%} taken over"]),
    ]

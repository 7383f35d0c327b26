"""Small panels, one a method, for figures of more methods than an eye can follow in one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baq_cli.report.names import wrapped
from baq_cli.report.style import WIDE, draw_band, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TOGETHER = 12
"""So many methods share one pair of axes."""
COLUMNS, HEIGHT, NAME = 4, 1.2, 24
"""Panels beside each other, a panel's height in inches, and a name's characters on a line."""
OTHERS: dict[str, Any] = {"color": "#cfcfcf", "lw": 0.6, "zorder": 1.2, "label": "_others"}
MOST_MARKERS = 8


@dataclass(frozen=True)
class Line:
    """A method's line and band in one figure, all `[T]`; NaN leaves a gap."""

    x: Any
    middle: Any
    low: Any
    high: Any


def draw_panels(
    lines: Mapping[str, Sequence[Line]], indices: Mapping[str, int]
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel a method, all on the same scales, and its panels in order.

    In each the method's lines and bands are drawn as `indices` say that it looks, before those of
    all others in grey.
    """
    rows = -(-len(lines) // COLUMNS)
    figure = new_figure(WIDE, 0.9 + rows * HEIGHT)
    grid = list(figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).flat)
    panels = grid[: len(lines)]
    for spare in grid[len(lines) :]:
        spare.remove()
    for axes, (name, own) in zip(panels, lines.items(), strict=True):
        for other in _others(lines, name):
            axes.plot(other.x, other.middle, **OTHERS)
        for line in own:
            every = max(1, -(-len(line.middle) // MOST_MARKERS))
            drawn = line.x, line.middle, line.low, line.high
            draw_band(axes, *drawn, index=indices[name], methods=1, markevery=every)
        axes.set_title(wrapped(name, NAME, lines=2), fontsize=8, loc="left", pad=5)
        lowest = axes in panels[-COLUMNS:]
        axes.tick_params(labelsize=8, labelbottom=lowest)
        axes.margins(x=0)
        axes.grid(axis="y")
    return figure, panels


def _others(lines: Mapping[str, Sequence[Line]], name: str) -> Iterator[Line]:
    return (line for other, of in lines.items() if other != name for line in of)

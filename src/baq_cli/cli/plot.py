"""A learning curve in a few lines of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCKS = " ▁▂▃▄▅▆▇█"
MOST_CELLS = 60
"""How wide a curve is, where there is room beside its labels."""


def text_plot(
    x: Sequence[float], y: Sequence[float], unit: str, columns: int, height: int = 8
) -> str:
    """Draw `y` over `x` in blocks within `columns`, with the range of both at the edges.

    Each cell shows the value at its place, interpolated; eighths of a line are told apart.
    """
    low, high = min(y), max(y)
    labels = [f"{high:.0f}", *[""] * (height - 2), f"{low:.0f}"]
    margin = max(map(len, labels))
    start, end = f"{x[0]:,.0f}", f"{x[-1]:,.0f} {unit}"
    width = min(MOST_CELLS, max(1, columns - margin - 2))
    places = np.linspace(x[0], x[-1], width)
    level = (np.interp(places, x, y) - low) / (high - low or 1.0)
    eighths = np.round(1 + level * (8 * height - 1)).astype(int)
    lines = []
    for line, label in enumerate(labels):
        filled = np.clip(eighths - 8 * (height - 1 - line), 0, 8)
        lines.append(f"{label:>{margin}} ┤{''.join(BLOCKS[n] for n in filled)}")
    lines.append(" " * (margin + 2) + start + end.rjust(width - len(start)))
    return "\n".join(lines)

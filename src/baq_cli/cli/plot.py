"""A learning curve in a few lines of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCKS = " ▁▂▃▄▅▆▇█"


def text_plot(
    x: Sequence[float], y: Sequence[float], unit: str, width: int = 60, height: int = 8
) -> str:
    """Draw `y` over `x` as columns of blocks, with the range of both at the edges.

    Each column shows the value at its place, interpolated; eighths of a line are told apart.
    """
    low, high = min(y), max(y)
    places = np.linspace(x[0], x[-1], width)
    level = (np.interp(places, x, y) - low) / (high - low or 1.0)
    eighths = np.round(1 + level * (8 * height - 1)).astype(int)
    labels = [f"{high:.0f}", *[""] * (height - 2), f"{low:.0f}"]
    margin = max(map(len, labels))
    lines = []
    for line, label in enumerate(labels):
        filled = np.clip(eighths - 8 * (height - 1 - line), 0, 8)
        lines.append(f"{label:>{margin}} ┤{''.join(BLOCKS[n] for n in filled)}")
    start, end = f"{x[0]:,.0f}", f"{x[-1]:,.0f} {unit}"
    lines.append(" " * (margin + 2) + start + end.rjust(width - len(start)))
    return "\n".join(lines)

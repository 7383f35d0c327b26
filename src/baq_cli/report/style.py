"""What all figures share: how a method looks, text, legends, and files."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baq_cli.plain_files import make_folder
from baq_cli.report.names import wrapped
from baq_cli.runs.files import disk_errors, replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OKABE_ITO = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#000000",  # black
)
"""Colours that the colour-blind can tell apart; the palette's yellow is too pale on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
MARKER_SIZES = {"^": 1.15, "v": 1.15, "<": 1.15, ">": 1.15, "P": 1.35, "X": 1.35}
"""What markers need more than others, to look as large."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1.5, 1)))
INK, FAINT, GRID = "#333333", "#8a8a8a", "#e6e6e6"
NARROW, WIDE = 3.5, 7.2
"""Widths of a figure in inches: a column of a paper, and its page."""
FONT_SIZES = {NARROW: 8, WIDE: 10}
LINES: dict[float, dict[str, float]] = {
    NARROW: {"lines.linewidth": 1.3, "lines.markersize": 3.8, "lines.markeredgewidth": 0.5},
    WIDE: {"lines.linewidth": 1.7, "lines.markersize": 4.5, "lines.markeredgewidth": 0.6},
}
DOTS_PER_INCH = {NARROW: 200, WIDE: 150}
FEW = 5
"""So many methods fit a column, and a pair of them each a row."""
CHARACTER = 0.61
"""A character's mean width, in units of the font's size."""
ROW = 1.6
"""A row's height in a legend, in units of the font's size."""
STYLE: dict[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # a method's name may hold a dollar sign
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "baq",  # the same curves give the same bytes
}


def look(index: int) -> dict[str, Any]:
    """Return how the method at an index of the document's methods looks, in every figure.

    The marker's size is that of the style in force (see `styled`).
    """
    from matplotlib import rcParams

    marker = MARKERS[index % len(MARKERS)]
    return {
        "color": OKABE_ITO[index % len(OKABE_ITO)],
        "ls": DASHES[index % len(DASHES)],
        "marker": marker,
        "ms": rcParams["lines.markersize"] * MARKER_SIZES.get(marker, 1.0),
        "mec": "white",
    }


def styled(width: float) -> AbstractContextManager[None]:
    """Return the context in which a figure of that width is drawn and saved."""
    from matplotlib import style

    # "default" first: the user's matplotlibrc has no say
    return style.context(["default", STYLE | LINES[width] | {"font.size": FONT_SIZES[width]}])


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, its width one of NARROW and WIDE, its height in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Space above a legend, and between the tick labels of neighbouring panels.
    layout = ConstrainedLayoutEngine(h_pad=0.06, wspace=0.04)
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH[width], layout=layout)


def draw_band(
    axes: Axes, x: Any, middle: Any, low: Any, high: Any, index: int, methods: int, **line: Any
) -> Any:
    """Draw a method's line and band, all `[T]`; return the line. NaN leaves a gap."""
    style = look(index)
    alpha = 0.15 if methods <= FEW else 0.08  # many bands on each other hide all lines
    axes.fill_between(x, low, high, color=style["color"], alpha=alpha, lw=0, zorder=2)
    (drawn,) = axes.plot(
        x,
        middle,
        clip_on=False,
        zorder=3 - 0.01 * index,
        **(style | line),
    )
    return drawn


def draw_legend(figure: Figure, entries: Mapping[str, Any]) -> None:
    """Put a legend of methods below the axes, in one row where the names leave room for it.

    The figure grows by every further row, so that its axes keep their height.
    """
    width = figure.get_figwidth()
    size = FONT_SIZES[width]
    room = int(width * 72 / size / CHARACTER)  # characters beside each other
    names = [wrapped(name, room - 8) for name in entries]
    widths = [max(map(len, name.split("\n"))) + 8 for name in names]  # with the line before it
    columns = len(names) if sum(widths) <= room else max(1, room // max(widths))
    legend = figure.legend(
        list(entries.values()),
        [str(i) for i in range(len(names))],  # matplotlib < 3.10 leaves out what begins with _
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=2.8,
        columnspacing=1.2,
        borderpad=0,
        borderaxespad=0.3,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
    rows = math.ceil(len(names) / columns) - 1 + sum(name.count("\n") for name in names) / columns
    figure.set_figheight(figure.get_figheight() + rows * ROW * size / 72)


def save(figure: Figure, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write a figure to `<stem>.png` and `<stem>.svg` in a folder; return both paths.

    Raises DataError when the files can't be written.
    """
    png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
    with (
        disk_errors(f"write the figure {png}"),
        styled(figure.get_figwidth()),
        warnings.catch_warnings(),
    ):
        # A name in a script that the font lacks is drawn as boxes, and stays whole in the SVG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        make_folder(folder)
        for path in (png, svg):
            replace_file(path, rendered(figure, path.suffix[1:]))
    return png, svg


def rendered(figure: Figure, kind: str) -> bytes:
    """Return the content of a figure's file, `png` or `svg`; what is laid out stays for another."""
    content = io.BytesIO()
    figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else {})
    figure.set_layout_engine("none")
    return content.getvalue()

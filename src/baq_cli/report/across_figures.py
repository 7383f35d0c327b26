"""Figures of the aggregates over tasks: intervals, profiles, efficiency, improvement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from baq_cli.report.names import wrapped
from baq_cli.report.panels import MOST_TOGETHER, Line, draw_panels
from baq_cli.report.style import (
    FEW,
    FONT_SIZES,
    INK,
    NARROW,
    WIDE,
    draw_band,
    draw_legend,
    look,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
KINDS = {
    "iqm": "IQM ↑",
    "median": "median ↑",
    "mean": "mean ↑",
    "optimality_gap": "optimality gap ↓",
}
"""What the aggregates' panels are called; the arrow says where better is."""
X_LABELS = {"env_steps": "environment steps", "evaluations": "online evaluations"}
ROW_LABEL = 24
"""How many characters a row's label has on a line."""
SHORT = 12
"""Labels as short as this leave room for intervals between them in a column of a paper."""
MOST_MARKERS = 8


def aggregates_figure(document: Document) -> Figure:
    """Return a panel an aggregate, a row a method: the value and its 95 % interval.

    An aggregate that no method has is left out.
    """
    of = document["aggregates"]
    indices = aggregated(document)
    kinds = [kind for kind in KINDS if any(of["methods"][name][kind] for name in indices)]
    labels = [wrapped(name, ROW_LABEL) for name in indices]
    with styled(WIDE):
        places = _places(labels)
        figure = new_figure(WIDE, 0.95 + _height(labels, WIDE))
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            for y, (name, i) in zip(places, indices.items(), strict=True):
                _draw_interval(axes, of["methods"][name][kind], y, i)
            _draw_rows(axes, places)
            axes.set_title(KINDS[kind])
            axes.locator_params(axis="x", nbins=4, min_n_ticks=3)
        panels[0].set_yticks(places, labels)
        figure.supxlabel(f"{_scores(document)}, 95 % intervals", fontsize="medium")
    return figure


def profiles_figure(document: Document) -> Figure:
    """Return the share of runs that score above each threshold, a line and a band a method."""
    of = document["aggregates"]["profile"]
    labels = f"τ: {_scores(document)}", "share of runs that score above τ"
    figure = _bands_figure(document, of["thresholds"], of["methods"], *labels)
    for axes in figure.axes:
        axes.set_ylim(0, 1)
    return figure


def efficiency_figure(document: Document) -> Figure:
    """Return the IQM over the online phase, a line and a band a method."""
    of = document["aggregates"]["efficiency"]
    counted = X_LABELS.get(of["x_label"], of["x_label"])
    labels = counted, f"IQM of the {document['aggregates']['unit']}"
    figure = _bands_figure(document, of["x"], of["methods"], *labels)
    for axes in figure.axes:
        axes.xaxis.set_major_formatter(_ticks_of(of["x_label"]))
    return figure


def improvement_figure(document: Document) -> Figure:
    """Return a row a pair: how probably a run of X beats one of Y, and its 95 % interval."""
    pairs = shown_pairs(document)
    indices = {method: i for i, method in enumerate(document["methods"])}
    xs, ys = ([wrapped(pair[end], ROW_LABEL) for pair in pairs] for end in ("x", "y"))
    longest = max(len(line) for label in (*xs, *ys) for line in label.split("\n"))
    width = NARROW if longest <= SHORT else WIDE
    tallest = [max(pair, key=lambda label: label.count("\n")) for pair in zip(xs, ys, strict=True)]
    with styled(width):
        places = _places(tallest)
        figure = new_figure(width, 0.75 + _height(tallest, width))
        axes = figure.add_subplot()
        for y, pair in zip(places, pairs, strict=True):
            _draw_interval(axes, pair, y, indices[pair["x"]])
        _draw_rows(axes, places)
        axes.axvline(0.5, color=INK, lw=1, ls=(0, (4, 3)), zorder=1.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel(f"P(X > Y), {_heading(document)}")
        axes.set_yticks(places, xs)
        right = axes.secondary_yaxis("right")
        right.set_yticks(places, ys)
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        for place, name, side in ((-0.03, "X", "right"), (1.03, "Y", "left")):
            axes.text(place, 1.01, name, transform=axes.transAxes, ha=side, va="bottom")
    return figure


def shown_pairs(document: Document) -> list[dict[str, Any]]:
    """Return the probabilities of improvement that are shown: each pair of methods once.

    The earlier method is X; the other direction is one minus it. With more than five methods, the
    first one against each other.
    """
    names = list(aggregated(document))
    found = {(pair["x"], pair["y"]): pair for pair in document["aggregates"]["improvement"]}
    firsts = names if len(names) <= FEW else names[:1]
    pairs = [(x, y) for x in firsts for y in names[names.index(x) + 1 :]]
    return [found[pair] for pair in pairs if pair in found and found[pair]["value"] is not None]


def aggregated(document: Document) -> dict[str, int]:
    """Return the methods that have aggregates, with their index in the document."""
    of = document["aggregates"]["methods"]
    return {name: i for i, name in enumerate(document["methods"]) if name in of}


# -- parts of a figure


def _bands_figure(
    document: Document,
    x: Sequence[float],
    bands: Mapping[str, Mapping[str, Any]],
    x_label: str,
    y_label: str,
) -> Figure:
    """Return a figure with a line and a band a method; a column wide when methods are few.

    More than MOST_TOGETHER methods have a panel each.
    """
    indices = {name: i for i, name in enumerate(document["methods"]) if name in bands}
    ends = ("value", "low", "high")
    lines = {
        name: Line(x, *(np.asarray(bands[name][end], dtype=np.float64) for end in ends))
        for name in indices
    }
    width = NARROW if len(lines) <= FEW else WIDE
    with styled(width):
        if len(lines) > MOST_TOGETHER:
            each = {name: [line] for name, line in lines.items()}
            figure = draw_panels(each, indices)[0]
            figure.supxlabel(x_label, fontsize="medium")
            figure.supylabel(y_label, fontsize="medium")
            return figure
        figure = new_figure(width, 2.7 if width == NARROW else 4.0)
        axes = figure.add_subplot()
        entries = {}
        for place, (name, line) in enumerate(lines.items()):
            step = max(1, -(-len(x) // MOST_MARKERS))
            entries[name] = draw_band(
                *(axes, line.x, line.middle, line.low, line.high),
                index=indices[name],
                methods=len(lines),
                markevery=(place * step // len(lines), step),  # not all markers on one another
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="y")
        axes.margins(x=0)
        draw_legend(figure, entries)
    return figure


def _draw_interval(axes: Axes, found: Mapping[str, Any] | None, y: float, index: int) -> None:
    """Draw a bar from `low` to `high` and a marker at `value`; nothing for what is not known."""
    if found is None or found["value"] is None:
        return
    from matplotlib import rcParams

    style = look(index)
    style["ms"] *= 1.3  # alone in its row
    if found["low"] is not None and found["high"] is not None:
        # The bar is higher than the marker, so that a narrow one shows.
        height = 2.2 * rcParams["lines.markersize"]
        bar = {"lw": height, "solid_capstyle": "butt", "alpha": 0.35, "zorder": 2}
        axes.plot([found["low"], found["high"]], [y, y], color=style["color"], **bar)
    axes.plot(found["value"], y, zorder=3, **(style | {"ls": ""}))


def _draw_rows(axes: Axes, places: Sequence[float]) -> None:
    """Set up an axis of rows, the first one on top."""
    axes.grid(axis="x")
    axes.set_ylim(places[-1] + 0.8, places[0] - 0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _places(labels: Sequence[str]) -> list[float]:
    """Return where rows lie, from the first down: a row is as high as its label has lines."""
    heights = np.array([1 + 0.7 * label.count("\n") for label in labels])
    return (heights.cumsum() - heights / 2).tolist()


def _height(labels: Sequence[str], width: float) -> float:
    """Return how high rows are in inches, a row a label."""
    return sum(1 + 0.7 * label.count("\n") for label in labels) * 1.8 * FONT_SIZES[width] / 72


def _heading(document: Document) -> str:
    statistic = document["aggregates"]["statistic"]
    return str(document["statistics"].get(statistic, {}).get("heading", statistic))


def _scores(document: Document) -> str:
    """Say what the aggregates are of, and in what unit."""
    return f"{document['aggregates']['unit']}, {_heading(document)}"


def _ticks_of(label: str) -> Any:
    from matplotlib.ticker import EngFormatter, PercentFormatter

    return PercentFormatter(1.0, symbol=" %") if label.startswith("share") else EngFormatter(sep="")

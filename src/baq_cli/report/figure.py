"""The figure of a run or a comparison: both phases on one axis, the hand-over marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baq_cli.errors import DataError
from baq_cli.report.curves import Curve, PhaseCurves
from baq_cli.report.in_sight import Sight, in_sight
from baq_cli.report.names import wrapped
from baq_cli.report.panels import MOST_TOGETHER, Line, draw_panels
from baq_cli.report.style import (
    FAINT,
    INK,
    WIDE,
    draw_band,
    draw_legend,
    new_figure,
    save,
    styled,
)
from baq_cli.report.summary import mean_over_seeds, std_over_seeds
from baq_cli.report.two_part_axis import COUNTED, TwoPartAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NBSP = "\u00a0"
HEIGHT = 4.3
LONG_UNIT = 20
"""Letters of a unit beside which nothing else fits along the axis."""
MOST_MARKERS = 25
DATASET: dict[str, Any] = {"color": FAINT, "lw": 1, "ls": (0, (4, 3)), "zorder": 1.5}
"""How the dataset's mean return looks."""


def draw(
    curves_by_method: Mapping[str, PhaseCurves],
    out_dir: Path,
    title: str,
    stem: str = "curves",
    dataset_return: float | None = None,
    unit: str = "return",
) -> tuple[Path, Path]:
    """Draw methods' raw returns to `<stem>.png` and `<stem>.svg` in `out_dir`; return both paths.

    `dataset_return` is the dataset's mean return; `unit` says what both are. What is drawn: see
    `curves_figure`.
    Raises DataError when there is nothing to draw, or the files can't be written.
    """
    if not any(curves_by_method.values()):
        raise DataError(f"no evaluation to draw in {out_dir}: every method's metrics are empty")
    figure = curves_figure(curves_by_method, title, unit, dataset_return)
    return save(figure, out_dir, stem)


def curves_figure(
    curves_by_method: Mapping[str, PhaseCurves],
    title: str,
    unit: str = "return",
    dataset_mean: float | None = None,
    indices: Mapping[str, int] | None = None,
) -> Figure:
    """Return the figure of methods' curves, at least one.

    The offline phase lies left of the hand-over in gradient steps, the online phase right of it
    in environment steps, each with its own scale; or in evaluations, or in per cent of each
    curve's own end where curves of a phase count different things. Lines are means over seeds,
    bands ± 1 sample standard deviation. `unit` is the scores' and `dataset_mean`'s. `indices` say
    how methods look; without, it is by their order. More than MOST_TOGETHER methods have a panel
    each.
    """
    curves = [curve for method in curves_by_method.values() for curve in method.values()]
    axis = TwoPartAxis.of(curves)
    lines = {
        method: [_line(axis, curve) for curve in of.values()]
        for method, of in curves_by_method.items()
    }
    if indices is None:
        indices = {method: i for i, method in enumerate(lines)}
    sight = in_sight(curves, dataset_mean)
    label = f"{unit}, {_over_seeds(curves)}"
    with styled(WIDE):
        if len(lines) > MOST_TOGETHER:
            return _panels(lines, axis, indices, title, label, dataset_mean, sight)
        figure = new_figure(WIDE, HEIGHT)
        axes = figure.add_subplot()
        entries = _draw_methods(axes, lines, indices)
        if dataset_mean is not None:
            _draw_dataset(axes, dataset_mean)
        if sight is not None:
            _look_at(axes, sight)
            _tell_beyond(axes, sight)
        _draw_frame(axes, axis, title)
        axes.set_ylabel(label.replace(", ", ",\n") if len(unit) > LONG_UNIT else label)
        draw_legend(figure, entries)
    return figure


def _panels(
    lines: Mapping[str, Sequence[Line]],
    axis: TwoPartAxis,
    indices: Mapping[str, int],
    title: str,
    label: str,
    dataset_mean: float | None,
    sight: Sight | None,
) -> Figure:
    """Return a panel a method, each with the hand-over and the dataset's mean."""
    figure, panels = draw_panels(lines, indices)
    for axes in panels:
        axes.set_xlim(0, 1)
        if sight is not None:
            _look_at(axes, sight)
        if axis.handover:
            _draw_handover(axes, axis.handover)
        if dataset_mean is not None:
            axes.axhline(dataset_mean, **DATASET)
        _draw_ticks(axes, axis, most=2)
    known = "" if dataset_mean is None else "; dashed: the dataset's mean"
    if sight is not None:
        known += f"; beyond the scale: {' '.join(filter(None, (sight.down, sight.up)))}"
    counted = [f"{phase}: {COUNTED[axis.units[phase]]}" for phase in axis.ends]
    figure.suptitle(wrapped(title, 85, lines=2), x=0.01, ha="left", fontsize=11)
    figure.supxlabel(f"{'; right of the line '.join(counted)}{known}", fontsize="medium")
    figure.supylabel(label, fontsize="medium")
    return figure


# -- parts of the figure


def _line(axis: TwoPartAxis, curve: Curve) -> Line:
    """Return a curve's mean over seeds, and ± 1 standard deviation about it."""
    mean, std = mean_over_seeds(curve.returns), std_over_seeds(curve.returns)
    return Line(axis.positions(curve), mean, mean - std, mean + std)


def _draw_methods(
    axes: Axes, lines: Mapping[str, Sequence[Line]], indices: Mapping[str, int]
) -> dict[str, Any]:
    """Draw each method's lines and bands; return a handle for each in the legend."""
    entries: dict[str, Any] = {}
    for method, own in lines.items():
        for line in own:
            entries[method] = draw_band(
                *(axes, line.x, line.middle, line.low, line.high),
                index=indices[method],
                methods=len(lines),
                markevery=max(1, -(-len(line.middle) // MOST_MARKERS)),
            )
    return entries


def _draw_frame(axes: Axes, axis: TwoPartAxis, title: str) -> None:
    """Draw axes, their names, and the hand-over."""
    from matplotlib.transforms import blended_transform_factory

    across = blended_transform_factory(axes.transData, axes.transAxes)
    axes.set_xlim(0, 1)
    axes.set_title(
        wrapped(title, 85, lines=2), loc="left", fontsize=11, pad=20 if axis.handover else 8
    )
    axes.grid(axis="y")
    if axis.handover:
        _draw_handover(axes, axis.handover, ymin=-0.085)
        axes.text(axis.handover, 1.015, "hand-over", transform=across, ha="center", va="bottom")
    _draw_ticks(axes, axis)
    for phase in axis.ends:
        middle = sum(axis.span(phase)) / 2
        name = f"{phase}: {COUNTED[axis.units[phase]]}"
        axes.text(middle, -0.1, name, transform=across, ha="center", va="top")


def _draw_handover(axes: Axes, place: float, ymin: float = 0.0) -> None:
    axes.axvspan(0, place, color="#f5f5f5", lw=0, zorder=0)
    axes.axvline(place, ymin=ymin, color=INK, lw=1.1, zorder=2.5, clip_on=False)


def _draw_ticks(axes: Axes, axis: TwoPartAxis, most: int | None = None) -> None:
    """Label each phase's ticks in its unit; at the hand-over, one label on either side."""
    ticks: dict[float, str] = {}
    before = (axis.handover or 0.0) - 1e-9  # two labels need two places
    for phase in axis.ends:
        for x, label in axis.ticks(phase, most):
            if x != axis.handover:
                ticks[x] = label
            elif phase == "offline":
                ticks[before] = f"{label}{NBSP}"
            else:
                ticks[x] = f"{NBSP}{label}"
    axes.set_xticks(list(ticks), list(ticks.values()))
    for x, tick in zip(ticks, axes.xaxis.get_major_ticks(), strict=True):
        if x in (before, axis.handover):
            tick.label1.set_horizontalalignment("right" if x == before else "left")


def _look_at(axes: Axes, sight: Sight) -> None:
    """Show the scores that are in sight, and cut lines there; markers at either side stay whole."""
    from matplotlib.transforms import Bbox, TransformedBbox

    axes.set_ylim(sight.low, sight.high)
    for line in axes.lines:
        line.set_clip_box(TransformedBbox(Bbox([[-0.1, 0], [1.1, 1]]), axes.transAxes))
        line.set_clip_on(True)


def _tell_beyond(axes: Axes, sight: Sight) -> None:
    """Say at the left how far curves go below and above what is in sight."""
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(sight.down, (0, 0), xytext=(4, 4), va="bottom", fontsize=9, **place)
    axes.annotate(sight.up, (0, 1), xytext=(4, -4), va="top", fontsize=9, **place)


def _draw_dataset(axes: Axes, dataset_return: float) -> None:
    """Mark the dataset's mean return, named right of the axes, where it hides nothing."""
    axes.axhline(dataset_return, **DATASET)
    axes.annotate(
        "dataset\nmean",
        (1, dataset_return),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color="#666666",
    )


def _over_seeds(curves: Sequence[Curve]) -> str:
    """Say what lines and bands are, and over how many seeds."""
    counts = {len(curve.seeds) for curve in curves}
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "1 seed"
    return f"mean ± std over {most if fewest == most else f'{fewest}–{most}'} seeds"

"""The figure of a run or a comparison: both phases on one axis, the hand-over marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from baq_cli.errors import DataError
from baq_cli.report.curves import Array, Curve, PhaseCurves
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
from baq_cli.units import Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NBSP = "\u00a0"
HEIGHT = 4.3
OFFLINE_SHARE = 0.4
"""Part of the width that the offline phase gets when there are both phases."""
LONG_UNIT = 20
"""Letters of a unit beside which nothing else fits along the axis."""
MOST_MARKERS = 25
DATASET: dict[str, Any] = {"color": FAINT, "lw": 1, "ls": (0, (4, 3)), "zorder": 1.5}
"""How the dataset's mean return looks."""
PER_CENT = "per cent"
"""What a phase counts whose curves count different things: each curve's share of its own budget."""
COUNTED = {
    "gradient_steps": "gradient steps",
    "env_steps": "environment steps",
    "evaluations": "evaluations",
    PER_CENT: "% of own budget",
}


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


# -- the x axis


@dataclass(frozen=True)
class TwoPartAxis:
    """An x axis from 0 to 1 that the phases share.

    `ends` holds each phase's last counter, `units` what it counts.
    """

    ends: dict[Phase, int]
    units: dict[Phase, str]

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> TwoPartAxis:
        ends: dict[Phase, int] = {}
        units: dict[Phase, str] = {}
        for curve in curves:
            ends[curve.phase] = max(ends.get(curve.phase, 1), int(curve.counters[-1]))
            if units.setdefault(curve.phase, curve.unit) != curve.unit:
                units[curve.phase] = PER_CENT
        ends |= {phase: 100 for phase, unit in units.items() if unit == PER_CENT}
        return cls(ends, units)

    @property
    def handover(self) -> float | None:
        """Where the hand-over is; None with one phase alone."""
        return OFFLINE_SHARE if len(self.ends) == 2 else None

    def span(self, phase: Phase) -> tuple[float, float]:
        """Return where a phase begins and ends."""
        if self.handover is None:
            return 0.0, 1.0
        return (0.0, self.handover) if phase == "offline" else (self.handover, 1.0)

    def place(self, phase: Phase, counters: Array) -> Array:
        """Return where a phase's counters `[T]` lie."""
        begin, end = self.span(phase)
        return begin + (end - begin) * (counters / self.ends[phase])  # 1.0 at the end

    def positions(self, curve: Curve) -> Array:
        """Return where a curve's evaluations `[T]` lie."""
        counters = curve.counters.astype(np.float64)
        if self.units[curve.phase] == PER_CENT:
            counters *= 100 / max(counters[-1], 1)
        return self.place(curve.phase, counters)

    def ticks(self, phase: Phase, most: int | None = None) -> list[tuple[float, str]]:
        """Return a phase's ticks and their labels; the offline ones keep clear of online's 0.

        There are about as many as the width of a page holds; with `most` at most so many parts,
        on axes where two offline labels have no room between 0 and the hand-over.
        """
        from matplotlib.ticker import EngFormatter, MaxNLocator

        clear_until = 0.85 if most is None else 0.4
        most = most or (6 if not self.handover else 4 if phase == "offline" else 5)
        locator = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=True)
        counters = np.asarray(locator.tick_values(0, self.ends[phase]))
        counters = counters[(counters >= 0) & (counters <= self.ends[phase])]
        if self.handover and phase == "offline":
            clear = counters < clear_until * self.ends[phase]
            counters = counters[clear | (counters == self.ends[phase])]
        label = EngFormatter(sep="")
        places = self.place(phase, counters).tolist()
        return [(x, label(counter)) for x, counter in zip(places, counters.tolist(), strict=True)]


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

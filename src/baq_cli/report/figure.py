"""The figure of a run or a comparison: both phases on one axis, the hand-over marked."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from baq_cli.engine.events import Phase
from baq_cli.errors import DataError
from baq_cli.report.curves import Array, Counters, Curve, PhaseCurves
from baq_cli.report.summary import mean_over_seeds, std_over_seeds

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
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1.5, 1)))
NBSP = "\u00a0"
INK, FAINT = "#333333", "#8a8a8a"
OFFLINE_SHARE = 0.4
"""Part of the width that the offline phase gets when there are both phases."""
MOST_MARKERS = 25
LEGEND_WIDTH = 85
"""How many characters fit beside each other below the figure."""
AXIS_NAMES: dict[Phase, str] = {
    "offline": "offline: gradient steps",
    "online": "online: environment steps",
}
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # a method's name may hold a dollar sign
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "baq",  # the same curves give the same bytes
}


def draw(
    curves_by_method: Mapping[str, PhaseCurves],
    out_dir: Path,
    title: str,
    stem: str = "curves",
    dataset_return: float | None = None,
) -> tuple[Path, Path]:
    """Draw methods' curves to `<stem>.png` and `<stem>.svg` in `out_dir`; return both paths.

    The offline phase lies left of the hand-over in gradient steps, the online phase right of it
    in environment steps, each with its own scale. Lines are means over seeds, bands ± 1 sample
    standard deviation. `dataset_return` is the dataset's mean return.
    Raises DataError when there is nothing to draw, or the files can't be written.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    curves = [curve for method in curves_by_method.values() for curve in method.values()]
    if not curves:
        raise DataError(f"no evaluation to draw in {out_dir}: every method's metrics are empty")
    with style.context(["default", STYLE]):  # not the user's matplotlibrc
        figure = Figure(figsize=(7.2, 4.3), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        axis = TwoPartAxis.of(curves)
        entries = _draw_methods(axes, axis, curves_by_method)
        if dataset_return is not None:
            _draw_dataset(axes, dataset_return)
        _draw_frame(axes, axis, title)
        axes.set_ylabel(f"return, {_over_seeds(curves)}")
        _draw_legend(figure, entries)
        return _save(figure, out_dir, stem)


# -- the x axis


@dataclass(frozen=True)
class TwoPartAxis:
    """An x axis from 0 to 1 that the phases share: `ends` holds each phase's last counter."""

    ends: dict[Phase, int]

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> TwoPartAxis:
        ends: dict[Phase, int] = {}
        for curve in curves:
            ends[curve.phase] = max(ends.get(curve.phase, 1), int(curve.counters[-1]))
        return cls(ends)

    @property
    def handover(self) -> float | None:
        """Where the hand-over is; None with one phase alone."""
        return OFFLINE_SHARE if len(self.ends) == 2 else None

    def span(self, phase: Phase) -> tuple[float, float]:
        """Return where a phase begins and ends."""
        if self.handover is None:
            return 0.0, 1.0
        return (0.0, self.handover) if phase == "offline" else (self.handover, 1.0)

    def place(self, phase: Phase, counters: Counters | Array) -> Array:
        """Return where a phase's counters `[T]` lie."""
        begin, end = self.span(phase)
        part = np.asarray(counters, dtype=np.float64) / self.ends[phase]  # 1.0 at the end
        return begin + (end - begin) * part

    def ticks(self, phase: Phase) -> list[tuple[float, str]]:
        """Return a phase's ticks and their labels; the offline ones keep clear of online's 0."""
        from matplotlib.ticker import EngFormatter, MaxNLocator

        locator = MaxNLocator(nbins=4 if self.handover else 6, steps=[1, 2, 2.5, 5, 10])
        counters = np.asarray(locator.tick_values(0, self.ends[phase]))
        counters = counters[(counters >= 0) & (counters <= self.ends[phase])]
        if self.handover and phase == "offline":
            clear = counters < 0.85 * self.ends[phase]
            counters = counters[clear | (counters == self.ends[phase])]
        label = EngFormatter(sep="")
        places = self.place(phase, counters).tolist()
        return [(x, label(counter)) for x, counter in zip(places, counters.tolist(), strict=True)]


# -- parts of the figure


def _draw_methods(
    axes: Axes, axis: TwoPartAxis, curves_by_method: Mapping[str, PhaseCurves]
) -> dict[str, Any]:
    """Draw each method's lines and bands; return a handle for each in the legend."""
    entries: dict[str, Any] = {}
    for i, (method, curves) in enumerate(curves_by_method.items()):
        style = {
            "color": OKABE_ITO[i % len(OKABE_ITO)],
            "marker": MARKERS[i % len(MARKERS)],
            "ls": DASHES[i % len(DASHES)],
            "zorder": 3 - 0.01 * i,
        }
        for curve in curves.values():
            entries[method] = _draw_curve(axes, axis, curve, style)
    return entries


def _draw_curve(axes: Axes, axis: TwoPartAxis, curve: Curve, style: dict[str, Any]) -> Any:
    x = axis.place(curve.phase, curve.counters)
    mean, std = mean_over_seeds(curve.returns), std_over_seeds(curve.returns)
    axes.fill_between(x, mean - std, mean + std, color=style["color"], alpha=0.15, lw=0, zorder=2)
    (line,) = axes.plot(
        x,
        mean,
        lw=1.7,
        ms=4.5,
        mec="white",
        mew=0.6,
        markevery=max(1, -(-len(x) // MOST_MARKERS)),
        clip_on=False,
        **style,
    )
    return line


def _draw_frame(axes: Axes, axis: TwoPartAxis, title: str) -> None:
    """Draw axes, their names, and the hand-over."""
    from matplotlib.transforms import blended_transform_factory

    across = blended_transform_factory(axes.transData, axes.transAxes)
    axes.set_xlim(0, 1)
    axes.set_title(title, loc="left", fontsize=11, pad=20 if axis.handover else 8)
    axes.grid(axis="y", color="#e6e6e6", lw=0.7)
    axes.set_axisbelow(True)
    if axis.handover:
        axes.axvspan(0, axis.handover, color="#f5f5f5", lw=0, zorder=0)
        axes.axvline(axis.handover, ymin=-0.085, color=INK, lw=1.1, zorder=2.5, clip_on=False)
        axes.text(axis.handover, 1.015, "hand-over", transform=across, ha="center", va="bottom")
    _draw_ticks(axes, axis)
    for phase in axis.ends:
        middle = sum(axis.span(phase)) / 2
        axes.text(middle, -0.1, AXIS_NAMES[phase], transform=across, ha="center", va="top")


def _draw_ticks(axes: Axes, axis: TwoPartAxis) -> None:
    """Label each phase's ticks in its unit; at the hand-over, one label on either side."""
    ticks: dict[float, str] = {}
    before = (axis.handover or 0.0) - 1e-9  # two labels need two places
    for phase in axis.ends:
        for x, label in axis.ticks(phase):
            if x != axis.handover:
                ticks[x] = label
            elif phase == "offline":
                ticks[before] = f"{label}{NBSP}"
            else:
                ticks[x] = f"{NBSP}{label}"
    axes.set_xticks(list(ticks), list(ticks.values()))
    for x, text in zip(ticks, axes.get_xticklabels(), strict=True):
        if x in (before, axis.handover):
            text.set_horizontalalignment("right" if x == before else "left")


def _draw_dataset(axes: Axes, dataset_return: float) -> None:
    """Mark the dataset's mean return, named right of the axes, where it hides nothing."""
    axes.axhline(dataset_return, color=FAINT, lw=1, ls=(0, (4, 3)), zorder=1.5)
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


def _draw_legend(figure: Figure, entries: dict[str, Any]) -> None:
    """Put the legend below the axes: in one row where the names leave room for it."""
    widths = [len(method) + 8 for method in entries]  # in characters, with the line before it
    columns = len(widths) if sum(widths) <= LEGEND_WIDTH else LEGEND_WIDTH // max(widths)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=max(1, columns),
        frameon=False,
        handlelength=2.8,
        borderpad=0,
        borderaxespad=0.3,
    )


def _over_seeds(curves: Sequence[Curve]) -> str:
    """Say what lines and bands are, and over how many seeds."""
    counts = {len(curve.seeds) for curve in curves}
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "1 seed"
    return f"mean ± std over {most if fewest == most else f'{fewest}–{most}'} seeds"


def _save(figure: Figure, out_dir: Path, stem: str) -> tuple[Path, Path]:
    from baq_cli.engine.files import disk_errors, replace_file  # imports torch

    png, svg = out_dir / f"{stem}.png", out_dir / f"{stem}.svg"
    with disk_errors(f"write the figure {png}"):
        out_dir.mkdir(parents=True, exist_ok=True)
        for path, metadata in ((png, {}), (svg, {"Date": None})):
            content = io.BytesIO()
            figure.savefig(content, format=path.suffix[1:], metadata=metadata)
            replace_file(path, content.getvalue())
    return png, svg

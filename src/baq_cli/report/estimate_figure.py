"""The figure of an estimate: values beside the data's own return, and critics held against it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baq_cli.report.names import wrapped
from baq_cli.report.style import (
    FAINT,
    INK,
    OKABE_ITO,
    WIDE,
    draw_legend,
    look,
    new_figure,
    save,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 3.4
STEM = "estimate"
NAMES = {"critics": "the method's critics", "fitted": "fitted Q"}


def draw_estimate(assessment: Mapping[str, Any], out: Path, title: str) -> tuple[Path, Path]:
    """Draw an assessment, as JSON has it, to `estimate.png` and `.svg`; return both paths.

    Left: the estimated value of each seed's policy, with its interval over start states, and the
    band of the data's own discounted return. Right, a panel for each kind of critics: tenths of the
    predicted values of logged actions against the returns that were realised from there.
    Raises DataError when the files can't be written.
    """
    known = {k: found for k, found in assessment["calibration"].items() if found is not None}
    with styled(WIDE):
        figure = new_figure(WIDE, HEIGHT)
        panels = figure.subplots(1, 1 + len(known), squeeze=False)[0]
        entries = _draw_values(panels[0], assessment)
        for axes, (kind, found) in zip(panels[1:], sorted(known.items()), strict=True):
            _draw_calibration(axes, found, NAMES[kind])
        draw_legend(figure, entries)
        figure.suptitle(wrapped(title, 85, lines=2), fontsize=11, x=0.01, ha="left")
    return save(figure, out, STEM)


def _draw_values(axes: Axes, assessment: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the values of the seeds' policies and the data's own; return what a legend names."""
    found = assessment["estimate"]
    behavior = found["behavior"]
    if behavior["low"] is not None:
        axes.axhspan(behavior["low"], behavior["high"], color=FAINT, alpha=0.25, lw=0)
    own = axes.axhline(behavior["value"], color=FAINT, lw=1.2, ls=(0, (4, 3)))
    style = look(0) | {"ls": "none"}
    for place, of_seed in enumerate(found["seeds"]):
        if of_seed["low"] is not None:
            axes.plot([place, place], [of_seed["low"], of_seed["high"]], color=style["color"])
        (dot,) = axes.plot([place], [of_seed["value"]], **style)
    axes.set_xticks(range(len(found["seeds"])), [str(seed) for seed in assessment["seeds"]])
    axes.set_xlim(-0.6, len(found["seeds"]) - 0.4)
    axes.set_xlabel("seed")
    axes.set_ylabel(f"discounted return, γ = {found['discount']:g}")
    axes.set_title("values at start states", fontsize=9, color=INK)
    axes.grid(axis="y")
    return {"estimate of the policy": dot, "the data's own episodes": own}


def _draw_calibration(axes: Axes, found: Mapping[str, Any], name: str) -> None:
    predicted, realised = found["predicted_bins"], found["realised_bins"]
    ends = [min(*predicted, *realised), max(*predicted, *realised)]
    axes.plot(ends, ends, color=FAINT, lw=1, ls=(0, (4, 3)))
    axes.plot(predicted, realised, "o-", color=OKABE_ITO[1], mec="white")
    axes.set_title(f"{name}, {found['episodes']} episodes", fontsize=9, color=INK)
    axes.set_xlabel("predicted of the policy")
    axes.set_ylabel("realised by the behaviour")
    axes.grid()

"""The figures of a comparison, from its document: for a paper, and for report.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baq_cli.report.across_figures import (
    aggregates_figure,
    efficiency_figure,
    improvement_figure,
    profiles_figure,
    shown_pairs,
)
from baq_cli.report.curves import PhaseCurves, curves_of
from baq_cli.report.figure import curves_figure
from baq_cli.report.names import file_stems
from baq_cli.report.page_view import dataset_mean
from baq_cli.report.style import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_figures(document: dict[str, Any], folder: Path) -> list[Path]:
    """Draw a comparison's figures to PNG and SVG in a folder; return the files, in their order.

    `curves-<task>` for every task with an evaluation, and where the document has aggregates,
    `aggregates`, `profiles`, `efficiency` and `improvement`.
    Raises DataError when the files can't be written.
    """
    return [path for stem, figure in each_figure(document) for path in save(figure, folder, stem)]


def each_figure(document: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Yield the figures that a document has, each with its file's stem."""
    stems = curves_stems(document)
    for task in document["tasks"]:
        curves = curves_of(task, document["methods"])
        if any(curves.values()):
            yield stems[task["name"]], task_figure(document, task, curves)
    of = document["aggregates"]
    if of is None:
        return
    yield "aggregates", aggregates_figure(document)
    if of["profile"] and of["profile"]["thresholds"]:
        yield "profiles", profiles_figure(document)
    if of["efficiency"] and of["efficiency"]["x"]:
        yield "efficiency", efficiency_figure(document)
    if shown_pairs(document):
        yield "improvement", improvement_figure(document)


def curves_stems(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the stem of the file that shows each task's curves, by the task's name."""
    stems = file_stems(task["name"] for task in document["tasks"])
    return {name: f"curves-{stem}" for name, stem in stems.items()}


def task_figure(
    document: Mapping[str, Any], task: Mapping[str, Any], curves: Mapping[str, PhaseCurves]
) -> Figure:
    """Return the figure of a task's curves, the dataset's mean return among them."""
    title = " · ".join(filter(None, (task["name"], task["environment"])))
    indices = {method: i for i, method in enumerate(document["methods"])}
    return curves_figure(curves, title, task["unit"], dataset_mean(task), indices)

"""In which order cells start: the dearest first, so that no core idles at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from baq_cli.bench.cost import run_operations
from baq_cli.data.episodes import Episodes
from baq_cli.engine.updates.device import on_threads
from baq_cli.launch.cell_runs import recipe_of
from baq_cli.launch.cells import Cell


def update_costs(cells: Sequence[Cell], data: Mapping[str, Episodes]) -> list[float]:
    """Return what all updates of each cell cost, in operations; `data` has each task's dataset.

    Counted, not measured: it takes a fraction of a second a cell.
    """
    with on_threads(1):  # more would wait for each other at products this small
        return [_operations(cell, data[cell.task]) for cell in cells]


def dearest_first(cells: Sequence[Cell], costs: Sequence[float]) -> list[int]:
    """Return the numbers of cells by what their updates cost, those alike in the order given."""
    return sorted(range(len(cells)), key=lambda number: -costs[number])


def _operations(cell: Cell, episodes: Episodes) -> float:
    spaces = episodes.spaces
    return run_operations(recipe_of(cell), spaces.obs_dim, spaces.action_dim)

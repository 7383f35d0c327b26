"""A dataset drawn: returns and lengths of its episodes, the marginals of its actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from baq_cli.data.episodes import Episodes
from baq_cli.plain_files import replaced
from baq_cli.surroundings import refused
from baq_cli.units import amount

COLUMNS = 4
MOST_ACTIONS = 24
"""Action dimensions beyond these aren't drawn."""
COLOR = "#0072B2"
PALE = "#56B4E9"


def draw_dataset(episodes: Episodes, path: Path) -> Path:
    """Draw histograms to a PNG file, and return its path.

    Raises DataError when it can't be written.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    dims = min(episodes.spaces.action_dim, MOST_ACTIONS)
    columns = min(COLUMNS, max(2, dims))
    action_rows = -(-dims // columns)
    figure = Figure(figsize=(2.9 * columns, 3.1 + 1.7 * action_rows), layout="constrained")
    grid = figure.add_gridspec(
        1 + action_rows, 2 * columns, height_ratios=[1.6, *[1.0] * action_rows]
    )
    returns = figure.add_subplot(grid[0, :columns])
    _histogram(returns, episodes.returns, COLOR)
    mean = float(episodes.returns.mean())
    returns.axvline(mean, color="black", linewidth=1)
    returns.set(xlabel=f"return of an episode (line: mean {mean:,.1f})", ylabel="episodes")
    lengths = figure.add_subplot(grid[0, columns:])
    _histogram(lengths, episodes.lengths, COLOR)
    lengths.set(xlabel="length of an episode, env_steps", ylabel="episodes")
    action = episodes.spaces.to_env(episodes.action).astype(np.float32)
    for k in range(dims):
        row, column = divmod(k, columns)
        axes = figure.add_subplot(grid[1 + row, 2 * column : 2 * column + 2])
        _marginal(
            axes, action[:, k], (episodes.spaces.action_low[k], episodes.spaces.action_high[k])
        )
        axes.set_xlabel(f"action {k}")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{episodes.dataset_id} · {amount(len(episodes.lengths), 'episode')}, "
        f"{amount(len(episodes), 'step')}"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            figure.savefig(file, dpi=150, format="png")
    except OSError as error:
        raise refused(f"write {path}", error) from error
    return path


def _marginal(axes: Any, values: Any, bounds: tuple[float, float]) -> None:
    axes.hist(values, bins=40, range=bounds, color=PALE)
    axes.set(xlim=bounds, yticks=[])


def _histogram(axes: Any, values: Any, color: str) -> None:
    """Draw a histogram; values that are all the same get a bar of their own."""
    low, high = float(np.min(values)), float(np.max(values))
    span = (low, high) if high > low else (low - 0.5, high + 0.5)
    axes.hist(values, bins=40, range=span, color=color)

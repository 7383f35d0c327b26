"""The columns that data provide with a transition, in one table.

Each is one number wide. A row of the dataset has them from the whole recording; a row of the
online store has a stand-in until its episode ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.agents.base import Agent
from baq_cli.agents.plans import Plan
from baq_cli.data.episodes import INTERVENTION, Episodes, monte_carlo_returns, returns_to_go
from baq_cli.engine.experience.store import END, Layout
from baq_cli.engine.experience.windows import Window
from baq_cli.errors import nearest

Array = npt.NDArray[Any]
UNKNOWN_RETURN = -1e9
"""Stands for a return of a running episode: so low that no calibration binds on it, and that no
threshold admits it."""
HELD_OUT = "held_out"


@dataclass(frozen=True)
class Logged:
    """A dataset as columns are computed of it: `reward [M]` is in update units."""

    episodes: Episodes
    reward: Array
    discount: float


@dataclass(frozen=True)
class Ended:
    """An online episode of T steps that is over: `reward [T]` in update units, `raw` as the
    environment gave it.
    """

    reward: Array
    raw: Sequence[float]
    terminated: bool
    discount: float


@dataclass(frozen=True)
class Column:
    """How one column comes about.

    of_dataset: its values for a dataset's rows, `[M]`.
    running: its value while an online episode runs.
    at_end: its values for the rows of an episode that is over, `[T]`; None: `running` stays.
    made: its value in a transition that a model of the environment made.
    synthetic: its value in made-up rows; None: uniform on [0, 1).
    """

    of_dataset: Callable[[Logged], Array]
    running: float
    made: float
    at_end: Callable[[Ended], Array] | None = None
    synthetic: float | None = None


def _mc_return(logged: Logged) -> Array:
    return monte_carlo_returns(logged.episodes, logged.reward, logged.discount)


def _mc_return_at_end(ended: Ended) -> Array:
    return returns_to_go(ended.reward, ended.terminated, ended.discount)


def _episode_return(logged: Logged) -> Array:
    return logged.episodes.returns[logged.episodes.episode]


def _episode_return_at_end(ended: Ended) -> Array:
    return np.full(len(ended.raw), sum(ended.raw))


def _episode_length(logged: Logged) -> Array:
    return logged.episodes.lengths[logged.episodes.episode]


def _episode_length_at_end(ended: Ended) -> Array:
    return np.full(len(ended.raw), len(ended.raw))


def _end(logged: Logged) -> Array:
    episodes = logged.episodes
    end = np.zeros(len(episodes), dtype=np.bool_)
    end[episodes.starts + episodes.lengths - 1] = True
    return end


def _end_at_end(ended: Ended) -> Array:
    return np.arange(len(ended.raw)) == len(ended.raw) - 1


def _intervention(logged: Logged) -> Array:
    known = logged.episodes.intervention
    return np.zeros(len(logged.episodes)) if known is None else known


DATA_COLUMNS: Mapping[str, Column] = {
    # the discounted return-to-go, in update units; see `monte_carlo_returns`
    "mc_return": Column(_mc_return, UNKNOWN_RETURN, UNKNOWN_RETURN, _mc_return_at_end),
    # 1 in the episodes of the dataset that are set aside for validation
    HELD_OUT: Column(lambda logged: logged.episodes.held_out(), 0.0, 0.0, synthetic=0.0),
    # the undiscounted return of the whole episode in raw reward units, as in `on_episode_end`
    # and `Spec.return_range`, so that a threshold means the same everywhere
    "episode_return": Column(
        _episode_return, UNKNOWN_RETURN, UNKNOWN_RETURN, _episode_return_at_end
    ),
    # how many steps the whole episode has
    "episode_length": Column(_episode_length, 0.0, 0.0, _episode_length_at_end),
    # 1 where somebody acted in the policy's place; the loop writes it
    INTERVENTION: Column(_intervention, 0.0, 0.0, synthetic=0.0),
    # no method's: what a window goes by, also where a fault or a stop cut an episode
    END: Column(_end, 0.0, 1.0, _end_at_end, synthetic=0.0),
}


def columns_of(agent: Agent, plan: Plan) -> tuple[str, ...]:
    """Return the names of the data columns that a method's rows have, in their order.

    Those of a plan with windows say where episodes end, too.
    Raises ValueError for one that data don't provide.
    """
    known = [name for name in DATA_COLUMNS if name != END]
    for name in agent.data_columns:
        if name not in known:
            raise ValueError(
                f"'{agent.name}' asks the data for the column '{name}': {nearest(name, known)}"
            )
    return (*agent.data_columns, END) if Window.of(plan).rows > 1 else agent.data_columns


def data_layout(layout: Layout) -> Layout:
    """Return a layout without the columns that the method computes itself."""
    names = [name for name in layout.columns if name in DATA_COLUMNS]
    return Layout(layout.obs_dim, layout.action_dim, names)

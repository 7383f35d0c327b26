"""Episodes of a task that ends at its goal, out of a recording that went on there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from baq_cli.data.episodes import Episodes
from baq_cli.units import amount


def ended_at(episodes: Episodes, reward: float) -> tuple[Episodes, str]:
    """Return the episodes cut behind their first step of at least a reward, terminated there.

    What follows such a step in its episode is left out; an episode without one stays as it is.
    The text says how many were cut, and how many steps were left out.
    """
    reached = episodes.reward >= reward
    rows = np.arange(len(episodes))
    first = np.minimum.reduceat(np.where(reached, rows, len(episodes)), episodes.starts)
    found = first < len(episodes)
    lengths = np.where(found, first + 1 - episodes.starts, episodes.lengths)
    stops = np.repeat(episodes.starts + lengths, episodes.lengths)
    kept = rows < stops
    ends = np.zeros(len(episodes), dtype=bool)
    ends[first[found]] = True
    seen = np.insert(kept, episodes.starts, True)  # an episode's first observation goes before
    cut = replace(
        episodes,
        observations=episodes.observations[seen],
        action=episodes.action[kept],
        reward=episodes.reward[kept],
        terminated=(episodes.terminated | ends)[kept],
        truncated=(episodes.truncated & ~ends)[kept],
        lengths=lengths.astype(episodes.lengths.dtype),
        intervention=None if episodes.intervention is None else episodes.intervention[kept],
    )
    return cut, (
        f"ended at a reward of {reward:g} or more (end_at_reward): {found.sum():,} of "
        f"{amount(len(found), 'episode')}; left out behind it: {amount((~kept).sum(), 'step')}"
    )

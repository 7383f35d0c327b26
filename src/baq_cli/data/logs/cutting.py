"""Where episodes end in a log of rows: the one place that decides it for every file format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.errors import DataError

Array = npt.NDArray[Any]
Parts = dict[str, Array]


@dataclass(frozen=True)
class FlatLog:
    """Rows of a log, one a step, episodes not yet told apart.

    Shapes: N rows; observations and next_observations by part `[N, ...]`; actions `[N, ...]`;
    rewards, terminated, truncated `[N]`; episode `[N]` changes from one episode to the next; infos
    by name `[N, ...]`. None means that the file doesn't say. `lost` counts transitions that were
    left out already, for want of a next observation.
    """

    observations: Parts
    actions: Array
    rewards: Array
    terminated: Array
    truncated: Array | None = None
    episode: Array | None = None
    next_observations: Parts | None = None
    infos: dict[str, Array] = field(default_factory=dict)
    lost: int = 0


@dataclass(frozen=True)
class CutRules:
    """What decides where the file leaves it open.

    max_episode_steps: an episode ends, truncated, after so many steps; used without `truncated`.
    only_terminations: without `truncated`, terminations are the only ends.
    split_gaps: where the recorded next observation is not the next row's, a new episode begins.
    drop_last_truncated: leave out each truncated episode's last transition and the file's last
        row, as D4RL's `qlearning_dataset` does.
    """

    max_episode_steps: int | None = None
    only_terminations: bool = False
    split_gaps: bool = False
    drop_last_truncated: bool = False


@dataclass(frozen=True)
class CutLog:
    """A log cut into episodes; shapes as in a Recording. `lost` counts transitions left out.

    `episode` is the number of each of the log's rows' episode, those left out included, `[N]`;
    `rows` are the rows that the transitions were, `[M]`; `ends` marks the rows at which an episode
    may be said to end, `[N]`: its last, and where that is an observation alone, the step before it
    too.
    """

    observations: Parts
    actions: Array
    rewards: Array
    terminated: Array
    truncated: Array
    lengths: Array
    infos: dict[str, Array]
    lost: int
    episode: Array
    rows: Array
    ends: Array


def reordered(log: FlatLog, order: Array) -> FlatLog:
    """Return a log's rows in another order, `[N]`."""

    def parts(given: Parts) -> Parts:
        return {name: part[order] for name, part in given.items()}

    following = log.next_observations
    return FlatLog(
        observations=parts(log.observations),
        actions=log.actions[order],
        rewards=log.rewards[order],
        terminated=log.terminated[order],
        truncated=None if log.truncated is None else log.truncated[order],
        episode=None if log.episode is None else log.episode[order],
        next_observations=None if following is None else parts(following),
        infos=parts(log.infos),
        lost=log.lost,
    )


def cut(log: FlatLog, rules: CutRules) -> CutLog:
    """Tell the episodes of a log apart.

    An episode ends where `episode` changes, or, without it, at `terminated`, at `truncated`, at
    the time limit and at the last row. Its last transition is kept where the next observation is
    recorded, or doesn't matter because it terminated. Otherwise the last row's observation is the
    previous step's next one, and the last row's action and reward are lost.
    Raises DataError when the file doesn't say where episodes end, or contradicts itself.
    """
    if not len(log.rewards):
        raise DataError("the log holds no rows")
    bare = bare_rows(log)
    log, all_last, rows = _without_bare_rows(log, bare)
    terminated, truncated, last = _ends(log, rules)
    all_last = last if all_last is None else all_last
    stops = np.flatnonzero(last) + 1
    lengths = np.diff(stops, prepend=0)
    keep = np.ones(len(last), dtype=np.bool_)
    if log.next_observations is None:
        keep[last & ~terminated] = False
    if rules.drop_last_truncated:
        keep[last & truncated] = False
        keep[-1] = False
    ends = last & keep
    before = np.flatnonzero(last & ~keep) - 1
    inside = before[before >= 0]
    ends[inside[~last[inside]]] = True  # an episode ends a step earlier than its dropped one
    truncated = np.where(ends & ~last, True, truncated)
    kept = np.add.reduceat(keep.astype(np.int64), stops - lengths)
    return CutLog(
        observations=_with_finals(log, last, keep, ends, kept),
        actions=log.actions[keep],
        rewards=log.rewards[keep],
        terminated=terminated[keep],
        truncated=truncated[keep],
        lengths=kept[kept > 0],
        infos={name: info[keep] for name, info in log.infos.items()},
        lost=log.lost + int((~keep).sum()),
        episode=np.cumsum(all_last) - all_last,
        rows=rows[keep],
        ends=all_last | moved_back(all_last, bare),
    )


def bare_rows(log: FlatLog) -> Array:
    """Return the rows that hold an observation and neither action nor reward, `[N]` bool.

    There are none where next observations are recorded.
    """
    rows = len(log.rewards)
    if log.next_observations is not None:
        return np.zeros(rows, dtype=np.bool_)
    flat = log.actions.reshape(rows, -1).astype(np.float64)
    return np.asarray(np.isnan(log.rewards.astype(np.float64)) & np.isnan(flat).all(1))


def moved_back(flags: Array, bare: Array) -> Array:
    """Return flags `[N]` as bool, those of bare rows moved to the steps before them."""
    known = np.asarray(np.nan_to_num(flags.astype(np.float64)) != 0)
    known[:-1] |= known[1:] & bare[1:]
    return np.asarray(known & ~bare)


def _without_bare_rows(log: FlatLog, bare: Array) -> tuple[FlatLog, Array | None, Array]:
    """Take rows that hold an observation and nothing else as the end of their episode.

    Logs often write the last observation with neither action nor reward; such a row is no step.
    Where an episode ends in such a row, its last step has a next observation; where it doesn't,
    it is cut as logs without such rows are. Return the log, each episode's last row, `[N]`
    bool, of those that were given (None where there are no such rows), and which rows are kept.
    """
    if not bare.any():
        return log, None, np.arange(len(bare))
    if bare[0] or (bare[1:] & bare[:-1]).any():
        raise DataError("a row without action and reward has no step before it")
    terminated, truncated = _moved(log.terminated, bare), _moved(log.truncated, bare)
    last = np.zeros(len(bare), dtype=np.bool_)
    last[-1] = True
    if log.episode is not None:
        last[:-1] |= log.episode[1:] != log.episode[:-1]
    else:
        ends = terminated if truncated is None else terminated | truncated
        unmarked = bare[1:-1] & ~ends[:-2]
        if unmarked.any():
            raise DataError(
                f"row {int(unmarked.argmax()) + 1} (from 0) has neither action nor reward, but no "
                "end is marked there: fill it, or say where episodes end with terminated, "
                "truncated or episode numbers"
            )
        last |= bare | ends
        last[:-1] &= bare[:-1] | ~bare[1:]  # the bare row behind an end is the end
    unfinished = last & ~bare & ~terminated
    first = np.append(True, last[:-1])
    steps = ~bare & ~unfinished
    if not steps.any():
        raise DataError("no row has an action, a reward and a next observation")
    row = np.arange(len(bare))
    following = np.where(last, row, row + 1)
    whole = FlatLog(
        observations={name: part[steps] for name, part in log.observations.items()},
        actions=log.actions[steps],
        rewards=log.rewards[steps],
        terminated=terminated[steps],
        truncated=None if truncated is None else _moved(truncated, unfinished & ~first)[steps],
        episode=(np.cumsum(last) - last)[steps],
        next_observations={name: part[following[steps]] for name, part in log.observations.items()},
        infos={name: info[steps] for name, info in log.infos.items()},
        lost=int(unfinished.sum()),
    )
    return whole, last, np.flatnonzero(steps)


def _moved(flags: Any, rows: Array) -> Any:
    """Move the flags of some rows to the rows before them."""
    if flags is None:
        return None
    known = np.asarray(np.nan_to_num(flags.astype(np.float64)) != 0)
    known[:-1] |= known[1:] & rows[1:]
    return known


def _ends(log: FlatLog, rules: CutRules) -> tuple[Array, Array, Array]:
    """Return terminated, truncated and last, `[N]` bool: last marks the end of each episode."""
    rows = len(log.rewards)
    terminated = log.terminated.astype(np.bool_)
    final = np.zeros(rows, dtype=np.bool_)
    final[-1] = True
    if log.episode is not None:
        last = final.copy()
        last[:-1] |= log.episode[1:] != log.episode[:-1]
        said = log.truncated
        truncated = last & ~terminated if said is None else said.astype(np.bool_)
        gaps = _gaps(log, last, rules.split_gaps)
        return terminated, truncated | gaps, last | gaps
    truncated = _truncations(log, rules, terminated)
    gaps = _gaps(log, terminated | truncated, rules.split_gaps)
    last = terminated | truncated | gaps | final
    return terminated, truncated | (last & ~terminated), last


def _truncations(log: FlatLog, rules: CutRules, terminated: Array) -> Array:
    if log.truncated is not None:
        return log.truncated.astype(np.bool_)
    truncated = np.zeros(len(terminated), dtype=np.bool_)
    if rules.only_terminations:
        return truncated
    if rules.max_episode_steps is None:
        raise DataError("the log doesn't say where episodes end, and no limit is given")
    start = 0
    for stop in [*(np.flatnonzero(terminated) + 1).tolist(), len(terminated)]:
        truncated[start + rules.max_episode_steps - 1 : stop : rules.max_episode_steps] = True
        start = stop
    return truncated


def _gaps(log: FlatLog, ends: Array, split: bool) -> Array:
    """Mark the rows whose recorded next observation is not the next row's."""
    gaps = np.zeros(len(ends), dtype=np.bool_)
    if log.next_observations is None or len(ends) == 1:
        return gaps
    for name, following in log.next_observations.items():
        width = (len(ends) - 1, -1)
        recorded = following[:-1].reshape(width)
        gaps[:-1] |= ~np.isclose(
            recorded, log.observations[name][1:].reshape(width), rtol=0, atol=0, equal_nan=True
        ).all(1)
    gaps &= ~ends
    if gaps.any() and not split:
        raise DataError(
            f"in {int(gaps.sum())} of {len(ends)} rows, first in row {int(gaps.argmax())}, the "
            "recorded next observation is not the next row's, though no episode ends there. "
            "Rows are missing, or an end isn't marked: --split-gaps begins a new episode at each."
        )
    return gaps


def _with_finals(log: FlatLog, last: Array, keep: Array, ends: Array, kept: Array) -> Parts:
    """Return the observations of the kept steps, each episode's final one behind them.

    A final observation is the recorded next one; without one it is the dropped row's, and after
    a termination, where it is never used, the last one again.
    """
    places = np.cumsum(kept[kept > 0])  # after how many kept steps each final one goes
    rows = np.flatnonzero(keep)
    finals = np.flatnonzero(ends)
    out = {}
    for name, part in log.observations.items():
        if log.next_observations is not None:
            final = log.next_observations[name][finals]
        else:
            following = np.minimum(finals + 1, len(part) - 1)
            final = part[np.where(last[finals], finals, following)]
        out[name] = np.insert(part[rows], places, final, axis=0)
    return out

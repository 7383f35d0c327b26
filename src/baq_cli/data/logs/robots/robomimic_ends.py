"""What robomimic's `dones` say: a task's end, or only that a recording stopped.

Its writer (scripts/dataset_states_to_obs.py) marks every row in which the task is done
(`--done_mode 0`), each demonstration's last row whatever came of it (1), or both (2).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.ends.roles import Said, way
from baq_cli.errors import DataError

Array = npt.NDArray[np.bool_]
DONES, REWARDS = "dones", "rewards"


def terminations(
    dones: Array | None, rewards: npt.NDArray[np.float64], starts: Array, said: Said
) -> tuple[Array | None, str | None]:
    """Return the rows `[N]` in which the task was done, and the column that says so.

    dones, rewards `[N]`; `starts` marks each demonstration's first row. `said` comes first; None
    where nothing says it, or the user that `dones` doesn't.
    Raises DataError, with the option for each meaning, where `dones` could mean either.
    """
    column = next(iter(said.get("terminated", ())), None)
    if column == REWARDS:
        return rewards > 0, REWARDS
    if column not in (None, DONES) or dones is None:
        return None, None
    if column is None and any(DONES in given for given in said.values()):
        return None, None
    if column is None and dones.any() and not _are_terminations(dones, rewards, starts):
        count = int(np.add.reduceat(dones, np.flatnonzero(starts)).astype(bool).sum())
        raise DataError(
            f"'{DONES}' marks an end in each of {count:,} demonstrations, and the rewards don't "
            "show that the task was done there: it may mark where recordings stop. Say which: "
            f"{way('terminated', DONES)} (the task was done), {way('unused', DONES)} (recordings "
            f"stopped) or {way('terminated', REWARDS)} (it was done where there is a reward)"
        )
    return dones, DONES


def _are_terminations(dones: Array, rewards: npt.NDArray[np.float64], starts: Array) -> bool:
    """Tell whether `dones` marks what only a task's end marks.

    It leaves a demonstration unmarked, or marks nothing but rows with the one reward there is.
    """
    marked = np.add.reduceat(dones.astype(np.int64), np.flatnonzero(starts)) > 0
    values = np.unique(rewards)
    sparse = len(values) == 2 and values[0] == 0 and values[1] > 0
    return not marked.all() or (sparse and bool((rewards[dones] > 0).all()))


def until_done(done: Array, starts: Array) -> Array:
    """Return the rows `[N]` to keep: of each demonstration those up to the first that is done."""
    before: npt.NDArray[np.int64] = np.cumsum(done) - done
    first = np.flatnonzero(starts)
    lengths = np.diff(np.append(first, len(done)))
    return np.asarray(before == np.repeat(before[first], lengths))

"""Columns of a log held against each other: numbers, and as many rows as there are rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import FlatLog
from baq_cli.errors import DataError, listed

Array = npt.NDArray[Any]
Parts = dict[str, Array]


def checked_log(observations: Parts, following: Parts | None, **single: Any) -> FlatLog:
    """Check that every column has numbers, and as many rows as there are rewards.

    Raises DataError for one that hasn't, and for next observations of other parts.
    """
    rewards = np.asarray(single["rewards"])
    rows = len(rewards) if rewards.ndim else 0
    if rows == 0:
        raise DataError("the log holds no rows")
    if following is not None and following.keys() != observations.keys():
        here, there = (listed(sorted(p)) or "none" for p in (observations, following))
        raise DataError(
            f"next observations have the parts {there}, observations {here}: expected the same"
        )
    for name, array in [
        *((f"observations {n}".strip(), a) for n, a in observations.items()),
        *((f"next observations {n}".strip(), a) for n, a in (following or {}).items()),
        *((n, a) for n, a in single.items() if a is not None),
    ]:
        _check(name, array, rows)
    column = {n: _column(n, a, rows) for n, a in single.items() if n != "actions" and a is not None}
    return FlatLog(
        observations=_two_axes(observations),
        actions=single["actions"].reshape(rows, -1),
        rewards=column["rewards"],
        terminated=column.get("terminated", np.zeros(rows, dtype=np.bool_)),
        truncated=column.get("truncated"),
        episode=column.get("episode"),
        next_observations=None if following is None else _two_axes(following),
    )


def _two_axes(parts: Parts) -> Parts:
    """Give every part rows; a matrix a row is flattened where it is the whole observation."""
    return {
        name: a.reshape(len(a), -1) if a.ndim == 1 or (a.ndim == 3 and not name) else a
        for name, a in parts.items()
    }


def _check(name: str, array: Any, rows: int) -> None:
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name} are of type {array.dtype}; expected numbers")
    if array.ndim == 0 or len(array) != rows:
        raise DataError(f"{name} have the shape {list(array.shape)} beside {rows} rewards")


def _column(name: str, array: Array, rows: int) -> Array:
    if array.size != rows:
        raise DataError(f"{name} have the shape {list(array.shape)}; expected one number a row")
    return array.reshape(rows)

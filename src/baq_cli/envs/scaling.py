"""Actions between [−1, 1] and the bounds of an action space, in the space's own type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.errors import DataError

Array = npt.NDArray[Any]


class ActionScale:
    """The scaling between [−1, 1] and `low` to `high`, `[action_dim]` each.

    Actions for the environment are of `dtype` and never outside the bounds, which are float64
    and need not be numbers of that type. −1 and 1 give the bounds themselves, or where the type
    lacks them the nearest numbers inside.
    Raises DataError when there is no number of that type between the bounds.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], dtype: str):
        self._dtype = np.dtype(dtype)
        first, last = inner_bounds(low, high, dtype)
        bottom, top = np.asarray(low, np.float64), np.asarray(high, np.float64)
        with np.errstate(over="ignore"):
            # A range that is too large for a number is measured in halves.
            self._unit = np.where(np.isfinite(top - bottom), 1.0, 0.5)
        self._low, self._high = bottom * self._unit, top * self._unit
        self._range = self._high - self._low
        self._first, self._last = first * self._unit, last * self._unit
        self._falls_short = bool((self._low + self._range < self._high).any())

    def to_env(self, action: Array) -> Array:
        """Scale actions `[..., action_dim]`, clipped to [−1, 1], to a new array of the type."""
        clipped = np.minimum(np.maximum(action, -1.0), 1.0)
        scaled = self._low + (clipped + 1.0) * 0.5 * self._range
        if self._falls_short:  # by a rounding
            scaled = np.where(clipped >= 1.0, self._high, scaled)
        scaled = np.minimum(np.maximum(scaled, self._first), self._last)
        # These ends are numbers of the type: rounding to it can't pass them any more.
        return (scaled / self._unit).astype(self._dtype)

    def nearest(self, action: Array) -> Array:
        """Return the numbers of the type nearest to actions within the bounds, as float64."""
        first, last = self._first / self._unit, self._last / self._unit
        typed = np.minimum(np.maximum(action, first), last).astype(self._dtype)
        return np.asarray(typed.astype(np.float64))

    def from_env(self, action: Array) -> Array:
        """Scale actions `[..., action_dim]` from the bounds to [−1, 1], float32."""
        with np.errstate(over="ignore"):  # what is far outside is found by the checks
            share = (action * self._unit - self._low) / self._range
            return np.asarray(2.0 * share - 1.0, dtype=np.float32)


def inner_bounds(low: Sequence[float], high: Sequence[float], dtype: str) -> tuple[Array, Array]:
    """Return the first and last number of a type between bounds, as float64, `[action_dim]` each.

    Raises DataError when there is none.
    """
    kind: Any = np.dtype(dtype).type
    bottom, top = np.asarray(low, np.float64), np.asarray(high, np.float64)
    with np.errstate(over="ignore"):
        first, last = bottom.astype(dtype), top.astype(dtype)
    first = np.where(first < bottom, np.nextafter(first, kind(np.inf)), first).astype(np.float64)
    last = np.where(last > top, np.nextafter(last, kind(-np.inf)), last).astype(np.float64)
    if (first > last).any():
        at = int(np.flatnonzero(first > last)[0])
        raise DataError(
            f"the bounds of action {at}, {float(bottom[at])!r} and {float(top[at])!r}, have no "
            f"{dtype} number between them: give the action space wider ones"
        )
    return first, last


def holds(dtype: str, bounds: Sequence[float]) -> bool:
    """Return whether every bound is a number of a type."""
    given = np.asarray(bounds, np.float64)
    with np.errstate(over="ignore"):
        return bool((given.astype(dtype) == given).all())

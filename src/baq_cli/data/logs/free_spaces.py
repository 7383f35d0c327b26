"""Spaces of a log that names no environment: its observations' parts, and bounds of its actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import FlatLog
from baq_cli.errors import DataError

Array = npt.NDArray[Any]
Bounds = tuple[Sequence[float], Sequence[float]]
MOST_SAID, DIGITS = 32, 4
"""Dimensions of actions whose range is said; digits of it, rounded outwards."""


def free_space(log: FlatLog) -> gym.Space[Any]:
    """Return a space of observations without bounds, in the parts that a log's have.

    Raises DataError for parts that can't stand beside each other.
    """
    boxes = {
        name: gym.spaces.Box(-np.inf, np.inf, part.shape[1:], _float(part.dtype))
        for name, part in log.observations.items()
    }
    if list(boxes) == [""]:
        return boxes[""]
    nested: dict[str, Any] = {}
    for name, box in boxes.items():
        *parents, key = name.split("/")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise DataError(f"the log has the parts '{name}' and '{parent}': one must go")
        if key in inner:
            raise DataError(f"the log has '{name}' and parts below it: one must go")
        inner[key] = box
    return _dict_space(nested)


def _dict_space(nested: dict[str, Any]) -> gym.spaces.Dict:
    return gym.spaces.Dict(
        {k: _dict_space(v) if isinstance(v, dict) else v for k, v in nested.items()}
    )


def _float(dtype: Any) -> Any:
    return dtype if np.issubdtype(dtype, np.floating) else np.float64


def action_box(log: FlatLog, bounds: Bounds) -> gym.spaces.Box:
    """Return a space of actions with a lower and an upper bound, one for all or one for each.

    Raises DataError for bounds that are none, or of another number than the actions' dimensions.
    """
    width = int(np.prod(log.actions.shape[1:]))
    found = []
    for name, values in zip(("low", "high"), bounds, strict=True):
        array = np.asarray(values, dtype=np.float64).reshape(-1)
        if len(array) not in (1, width):
            raise DataError(
                f"--action-{name} has {len(array)} numbers for {width} action dimensions: "
                "expected one for all or one for each"
            )
        found.append(np.broadcast_to(array, (width,)).astype(_float(log.actions.dtype)))
    low, high = found
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise DataError(
            f"action bounds from {low.tolist()} to {high.tolist()}: expected finite numbers, the "
            "low ones below the high ones"
        )
    return gym.spaces.Box(low, high, dtype=low.dtype.type)


def used_bounds(actions: Array) -> str:
    """Say from where to where actions `[N, ...]` go, by dimension; empty where that can't be."""
    flat = actions.reshape(len(actions), -1).astype(np.float64)
    flat = flat[np.isfinite(flat).all(1)]
    if not len(flat) or flat.shape[1] > MOST_SAID:
        return ""
    largest = np.maximum(np.abs(flat).max(0), 1e-6)
    step = 10.0 ** (np.floor(np.log10(largest)) + 1 - DIGITS)
    low = np.floor(flat.min(0) / step) * step
    high = np.maximum(np.ceil(flat.max(0) / step) * step, low + step)
    words = [",".join(f"{bound + 0:.{DIGITS + 2}g}" for bound in ends) for ends in (low, high)]
    return f" Its actions go from {words[0]} to {words[1]}"

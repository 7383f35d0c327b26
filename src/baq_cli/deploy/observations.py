"""Observations as a user's program has them: an array, or a mapping of an environment's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError

Array = npt.NDArray[Any]


def read_observations(given: npt.ArrayLike | Mapping[str, Any], spaces: Spaces) -> Array:
    """Return observations as a new float32 array, `[obs_dim]`, or `[B, obs_dim]` of a batch.

    Raises DataError for what is no such numbers, and for those that float32 doesn't hold.
    """
    obs: Any = given
    if type(obs) is not np.ndarray:
        obs = _flatten(obs, spaces) if isinstance(obs, Mapping) else _array(obs)
    if obs.dtype.kind not in "fiub":
        raise DataError(f"an observation of the type {obs.dtype}: expected numbers")
    if obs.shape[-1:] != (spaces.obs_dim,) or obs.ndim > 2:
        raise DataError(
            f"an observation of the shape {list(obs.shape)}: expected [{spaces.obs_dim}], or "
            f"[B, {spaces.obs_dim}] for a batch of B"
        )
    with np.errstate(over="ignore"):  # what overflows is told of in words
        raw = np.array(obs, dtype=np.float32, order="C")
    if not np.isfinite(raw).all():
        at = np.argwhere(~np.isfinite(raw))[0].tolist()
        raise DataError(
            f"the observation has {raw[tuple(at)]} at {at}: expected finite numbers, in the range "
            "of float32"
        )
    return raw


def _flatten(obs: Mapping[str, Any], spaces: Spaces) -> Array:
    """Lay the parts of a `Dict` observation side by side, as the environment's wrapper does.

    Parts of `B · size` numbers with a leading axis B are a batch. For B = 1 every part must have
    that axis, and one another besides: else it is a single observation.
    """
    sizes = dict(spaces.obs_layout)
    if not sizes:
        raise DataError(
            f"the policy's observations are one array of {spaces.obs_dim} numbers, not a dict"
        )
    parts = {name: _array(_part(obs, name)) for name in sizes}
    count = _batch_of(parts, sizes)
    rows = 1 if count is None else count
    flat = np.concatenate([part.reshape(rows, sizes[n]) for n, part in parts.items()], axis=1)
    return flat[0] if count is None else flat


def _array(values: Any) -> Array:
    if np.ma.is_masked(values):  # what lies behind the mask was said to be no measurement
        raise DataError("the observation has numbers that are masked: expected all of them")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # PyTorch has all three
        raise DataError(f"an observation that is no array of numbers: {error}") from error


def _part(obs: Mapping[str, Any], name: str) -> Any:
    """Return the part of a nested observation that a path such as 'arm/joints' names."""
    found: Any = obs
    for key in name.split("/"):
        if not isinstance(found, Mapping) or key not in found:
            raise DataError(f"the observation has no part '{name}': it has {sorted(map(str, obs))}")
        found = found[key]
    return found


def _batch_of(parts: dict[str, Array], sizes: dict[str, int]) -> int | None:
    """Return how many observations the parts hold, None for a single one without such an axis."""
    alone = all(part.size == sizes[name] for name, part in parts.items())
    has_axis = all(part.ndim and len(part) == 1 for part in parts.values())
    if alone and not (has_axis and any(part.ndim > 1 for part in parts.values())):
        return None
    counts = {len(part) if part.ndim else -1 for part in parts.values()}
    count = counts.pop()
    if counts or any(part.size != count * sizes[name] for name, part in parts.items()):
        shapes = {name: list(part.shape) for name, part in parts.items()}
        raise DataError(
            f"the parts of the observation have the shapes {shapes}: expected {sizes} numbers, or "
            "as many for each of a batch along the first axis"
        )
    return count

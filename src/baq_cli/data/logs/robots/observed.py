"""Which of a robot log's observations are taken, what they are called, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.dimensions import ENTRY
from baq_cli.data.logs.mapping import Mapping, expand
from baq_cli.errors import DataError, UsageError, clipped, listed

Array = npt.NDArray[Any]
CONTROL_HZ = "control_hz"
"""The entry of a dataset's metadata that keeps how many steps were taken a second."""
MOST_HZ = 1e6


def control_hz(value: Any) -> float | None:
    """Return a rate as a file gives it, in steps a second; None for what can't be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value <= MOST_HZ else None


def observed_note(widths: dict[str, int]) -> str:
    """Say which observations are taken: their keys in order, each with how many numbers it has."""
    parts = [f"{clipped(name)} ({width})" for name, width in widths.items()]
    return f"the observation is {', '.join(parts)}, in this order (--obs-keys chooses others)"


def chosen(mapping: Mapping | None, usual: Sequence[str], every: Sequence[str]) -> list[str]:
    """Return the keys of the observations to take: those asked for, else the usual ones.

    Raises UsageError for one that isn't there, DataError where there are none to take.
    """
    asked = None if mapping is None else mapping.obs_keys
    if asked is not None:
        try:
            return expand(asked, list(every))
        except UsageError as error:
            raise UsageError(f"--obs-keys: {error}") from error
    if not usual:
        raise DataError(
            f"it has no observations that are numbers, found {listed(list(every)) or 'none'}: "
            "pictures are not read"
        )
    return list(usual)


def side_by_side(parts: Sequence[Array]) -> Array:
    """Lay arrays `[N, ...]` side by side, `[N, D]`, as the type that holds them all."""
    flat = [part.reshape(len(part), -1) for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)


def names_of(observation: list[str], action: list[str], reward: str | None) -> dict[str, Any]:
    """Return the entry of a dataset's metadata that names its dimensions."""
    rewards = [] if reward is None else [reward]
    return {ENTRY: {"observations": {"": observation}, "actions": action, "rewards": rewards}}


def numbered_names(key: str, width: int) -> list[str]:
    """Return names for dimensions that have none."""
    return [key] if width == 1 else [f"{key}[{k}]" for k in range(width)]

"""Which spaces are supported, and the scaling between an environment's actions and [−1, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.errors import DataError, EnvironmentMismatch

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Spaces:
    """Flat observations of `obs_dim` numbers and actions between `action_low` and `action_high`."""

    obs_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]

    @property
    def action_dim(self) -> int:
        return len(self.action_low)

    @classmethod
    def of(cls, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Spaces:
        """Read two Gymnasium spaces.

        Raises DataError for spaces that are not supported, by name.
        """
        low, high = _action_bounds(action_space)
        return cls(_obs_dim(observation_space), low, high)

    def to_env(self, action: Array) -> Array:
        """Scale actions `[..., action_dim]` from [−1, 1] to the environment's bounds."""
        low, high = np.asarray(self.action_low), np.asarray(self.action_high)
        scaled = low + (np.clip(action, -1.0, 1.0) + 1.0) * 0.5 * (high - low)
        return scaled.astype(np.float32)

    def from_env(self, action: Array) -> Array:
        """Scale actions `[..., action_dim]` from the environment's bounds to [−1, 1]."""
        low, high = np.asarray(self.action_low), np.asarray(self.action_high)
        return np.asarray(2.0 * (action - low) / (high - low) - 1.0, dtype=np.float32)

    def check_same(self, other: Spaces, mine: str, theirs: str) -> None:
        """Raise EnvironmentMismatch unless the other spaces are the same."""
        for name in ("obs_dim", "action_low", "action_high"):
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                raise EnvironmentMismatch(
                    f"{theirs} has {name} {_short(there)}, but {mine} has {_short(here)}. "
                    "Choose an environment with the same spaces, or another dataset or checkpoint."
                )


def _short(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _action_bounds(space: gym.Space[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if (
        not isinstance(space, gym.spaces.Box)
        or len(space.shape) != 1
        or not np.issubdtype(space.dtype, np.floating)
    ):
        raise DataError(
            f"actions of the space {space} are not supported: expected a flat Box of finite bounds "
            "(continuous actions). Discrete actions have no method here."
        )
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise DataError(
            f"the action space {space} has infinite bounds: expected finite ones, "
            "as gymnasium.wrappers.RescaleAction gives."
        )
    if not (space.low < space.high).all():
        raise DataError(
            f"the action space {space} has a dimension whose bounds are equal: there is nothing to "
            "choose in it. Remove it with a gymnasium.ActionWrapper."
        )
    return tuple(map(float, space.low)), tuple(map(float, space.high))


def _obs_dim(space: gym.Space[Any]) -> int:
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        kind = "images" if isinstance(space, gym.spaces.Box) else type(space).__name__
        raise DataError(
            f"observations of the space {space} ({kind}) are not supported: expected a flat Box "
            "of numbers, as gymnasium.wrappers.FlattenObservation gives."
        )
    return int(space.shape[0])

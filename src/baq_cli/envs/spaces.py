"""Which spaces are supported, and the scaling between an environment's actions and [−1, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.errors import DataError, EnvironmentMismatch

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Spaces:
    """Flat observations of `obs_dim` numbers and actions between `action_low` and `action_high`.

    `obs_layout` names the parts of a flattened `Dict` observation in their order, each with how
    many numbers it has; it is empty for a flat Box.
    """

    obs_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    obs_layout: tuple[tuple[str, int], ...] = ()

    @property
    def action_dim(self) -> int:
        return len(self.action_low)

    @classmethod
    def of(cls, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Spaces:
        """Read two Gymnasium spaces.

        Raises DataError for spaces that are not supported, by name.
        """
        low, high = _action_bounds(action_space)
        parts = observation_parts(observation_space)
        sizes = tuple((name, int(np.prod(box.shape))) for name, box in parts.items())
        if not sum(size for _, size in sizes):
            raise DataError(f"the observation space {observation_space} has no numbers in it")
        layout = sizes if isinstance(observation_space, gym.spaces.Dict) else ()
        return cls(sum(size for _, size in sizes), low, high, layout)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Spaces:
        """Read what `dataclasses.asdict` made, after a way through JSON."""
        return cls(
            int(fields["obs_dim"]),
            tuple(map(float, fields["action_low"])),
            tuple(map(float, fields["action_high"])),
            tuple((str(name), int(size)) for name, size in fields.get("obs_layout", ())),
        )

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
        for name in ("obs_dim", "obs_layout", "action_low", "action_high"):
            here, there = getattr(self, name), getattr(other, name)
            same = here == there
            if name.startswith("action") and len(here) == len(there):
                same = np.allclose(here, there, rtol=1e-6)  # one may have been kept as float32
            if not same:
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
    if not space.shape[0]:
        raise DataError(f"the action space {space} has no dimension: there is nothing to choose")
    if not (space.low < space.high).all():
        raise DataError(
            f"the action space {space} has a dimension whose bounds are equal: there is nothing to "
            "choose in it. Remove it with a gymnasium.ActionWrapper."
        )
    return tuple(map(float, space.low)), tuple(map(float, space.high))


def observation_parts(space: gym.Space[Any]) -> dict[str, gym.spaces.Box]:
    """Return the boxes of an observation space by name, in the order Gymnasium flattens them.

    A flat Box has one part, named ''; nested `Dict` spaces have paths for names, as 'arm/joints'.
    Raises DataError for spaces that are not supported, by name.
    """
    if isinstance(space, gym.spaces.Dict) and space.spaces:
        clashing = [key for key in space.spaces if "/" in str(key)]
        if clashing:
            raise DataError(
                f"observations with the part '{clashing[0]}' are not supported: '/' separates the "
                "names of nested parts. Rename it."
            )
        return {
            f"{key}/{name}" if name else str(key): box
            for key, part in space.spaces.items()
            for name, box in _inner_parts(part).items()
        }
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return {"": space}
    raise _unsupported(space)


def _inner_parts(space: gym.Space[Any]) -> dict[str, gym.spaces.Box]:
    """As above, for a part of a Dict: scalars and matrices are flattened too, images aren't."""
    if isinstance(space, gym.spaces.Box) and len(space.shape) < 3:
        return {"": space}
    return observation_parts(space)


def _unsupported(space: gym.Space[Any]) -> DataError:
    kind = type(space).__name__
    if isinstance(space, gym.spaces.Box):
        kind = "images" if len(space.shape) > 2 else f"a Box of {len(space.shape)} axes"
    return DataError(
        f"observations of the space {space} ({kind}) are not supported: expected a flat Box of "
        "numbers or a Dict of boxes; gymnasium.wrappers.FlattenObservation flattens others."
    )


def flatten_parts(parts: Mapping[str, Array]) -> Array:
    """Lay the parts of N observations, each `[N, ...]`, side by side, `[N, obs_dim]`.

    The same numbers in the same order as `gymnasium.spaces.flatten` gives for each observation.
    """
    flat = [part.reshape(len(part), -1) for part in parts.values()]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)


def split_parts(flat: Array, space: gym.Space[Any]) -> dict[str, Array]:
    """Undo `flatten_parts` for the observations `[N, obs_dim]` of a space."""
    boxes = observation_parts(space)
    stops = np.cumsum([int(np.prod(box.shape)) for box in boxes.values()])
    columns = np.split(flat, stops[:-1], axis=1)
    return {
        name: part.reshape(len(flat), *box.shape)
        for (name, box), part in zip(boxes.items(), columns, strict=True)
    }

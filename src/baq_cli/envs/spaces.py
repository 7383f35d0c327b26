"""Which spaces are supported, and what is known of them everywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.envs.scaling import ActionScale, holds
from baq_cli.errors import DataError, EnvironmentMismatch

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Spaces:
    """Flat observations of `obs_dim` numbers and actions between `action_low` and `action_high`.

    `obs_layout` names the parts of a flattened `Dict` observation in their order, each with how
    many numbers it has; it is empty for a flat Box. `action_dtype` is the type of actions in the
    environment's units: float16, float32 or float64.
    """

    obs_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    obs_layout: tuple[tuple[str, int], ...] = ()
    action_dtype: str = "float32"

    @property
    def action_dim(self) -> int:
        return len(self.action_low)

    @cached_property
    def scale(self) -> ActionScale:
        """The scaling between [−1, 1] and the bounds."""
        return ActionScale(self.action_low, self.action_high, self.action_dtype)

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
        kind = np.dtype(action_space.dtype)
        dtype = kind.name if kind.itemsize <= 8 else "float64"  # which any wider type contains
        return cls(sum(size for _, size in sizes), low, high, layout, dtype)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Spaces:
        """Read what `dataclasses.asdict` made, after a way through JSON.

        What was written before actions had a type has float32 ones, unless the bounds are none.
        """
        low = tuple(map(float, fields["action_low"]))
        high = tuple(map(float, fields["action_high"]))
        before = "float32" if holds("float32", low + high) else "float64"
        return cls(
            int(fields["obs_dim"]),
            low,
            high,
            tuple((str(name), int(size)) for name, size in fields.get("obs_layout", ())),
            str(fields.get("action_dtype", before)),
        )

    def to_env(self, action: Array) -> Array:
        """Scale actions `[..., action_dim]` from [−1, 1] to actions that the space contains."""
        return self.scale.to_env(action)

    def from_env(self, action: Array) -> Array:
        """Scale actions `[..., action_dim]` from the environment's bounds to [−1, 1]."""
        return self.scale.from_env(action)

    def nearest(self, action: Array) -> Array:
        """Return actions within the bounds as numbers of the space's type, in float64."""
        return self.scale.nearest(action)

    def unscaled(self, action: Array) -> Array:
        """Scale actions `[..., action_dim]` from [−1, 1] back, in float64 and not clipped."""
        low, high = np.asarray(self.action_low), np.asarray(self.action_high)
        return np.asarray(low + (action.astype(np.float64) + 1.0) * 0.5 * (high - low))

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
            "(continuous actions). Discrete actions have no method here, nor have whole numbers; "
            "gymnasium.wrappers.TransformAction puts a flat Box of floats before others."
        )
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise DataError(
            f"the action space {space} has infinite bounds: expected finite ones. Give it those "
            "that actions may have, with gymnasium.wrappers.TransformAction(env, lambda a: a, "
            "gymnasium.spaces.Box(low, high, shape)) where the environment is registered."
        )
    if not space.shape[0]:
        raise DataError(f"the action space {space} has no dimension: there is nothing to choose")
    if not (space.low < space.high).all():
        raise DataError(
            f"the action space {space} has a dimension whose bounds are equal: there is nothing to "
            "choose in it. Remove it with a gymnasium.ActionWrapper."
        )
    return _inside(space.low, 1), _inside(space.high, -1)


def _inside(bounds: Array, direction: int) -> tuple[float, ...]:
    """Return bounds as float64, those of a wider type rounded in a direction."""
    found = bounds.astype(np.float64)
    outside = (bounds - found) * direction > 0
    return tuple(map(float, np.where(outside, np.nextafter(found, direction * np.inf), found)))


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

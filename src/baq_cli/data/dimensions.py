"""What the dimensions of a dataset are called, and what is said of those that lose their digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from baq_cli.data.digits import Loss
from baq_cli.data.episodes import Finding
from baq_cli.envs.spaces import observation_parts
from baq_cli.errors import clipped

ENTRY = "columns"
"""The entry of a dataset's metadata that keeps the names of the log's columns."""
WAYS = {
    "observations": (
        "Subtract {offset} from it in the log and, alike, where a policy will get it from (a "
        "gymnasium.wrappers.TransformObservation about the environment, the robot's own code), "
        "or leave it out with --mapping.",
        "No offset makes up for it: leave it out with --mapping, or log it as differences or as "
        "several columns, in the environment alike.",
    ),
    "actions": (
        "Give bounds that are closer to what is used (--action-low and --action-high, and the "
        "environment's action space alike).",
    )
    * 2,
    "rewards": (
        "Subtract {offset} from every reward, in the log and in the environment alike.",
        "No offset makes up for it: log rewards of fewer digits.",
    ),
}


@dataclass(frozen=True)
class Names:
    """What dimensions are called: by the log's columns, else by parts and numbers."""

    observations: tuple[str, ...]
    actions: tuple[str, ...]
    rewards: tuple[str, ...] = ("reward",)

    @classmethod
    def of(cls, about: dict[str, Any], space: gym.Space[Any], action_dim: int) -> Names:
        """Read them from metadata, where they fit the spaces; these may come from anybody."""
        parts = observation_parts(space)
        sizes = {name: int(np.prod(box.shape)) for name, box in parts.items()}
        said = about.get(ENTRY)
        said = said if isinstance(said, dict) else {}
        columns = said.get("observations")
        columns = columns if isinstance(columns, dict) else {}
        if list(columns) == [""]:  # side by side, in the order of the space
            observations = _fitting(columns[""], sum(sizes.values()))
        else:
            laid = [_fitting(columns.get(name), size) for name, size in sizes.items()]
            observations = tuple(n for part in laid if part for n in part) if all(laid) else None
        unnamed = [
            f"{name or 'observation'}[{k}]" for name, size in sizes.items() for k in range(size)
        ]
        return cls(
            observations or tuple(unnamed),
            _fitting(said.get("actions"), action_dim)
            or tuple(f"action[{k}]" for k in range(action_dim)),
            _fitting(said.get("rewards"), 1) or ("reward",),
        )


def _fitting(names: Any, count: int) -> tuple[str, ...] | None:
    if not isinstance(names, list) or len(names) != count:
        return None
    return tuple(map(clipped, names)) if all(isinstance(name, str) for name in names) else None


def lost_digits(array: str, losses: Sequence[Loss], names: Names, first: int = 0) -> list[Finding]:
    """Return a warning for each loss in `observations`, `actions` or `rewards`.

    Their dimensions count from `first`.
    """
    called = getattr(names, array)[first:]
    return [
        Finding("warning", "digits", _told(array, called[loss.dimension], loss)) for loss in losses
    ]


def _told(array: str, name: str, loss: Loss) -> str:
    way = WAYS[array][loss.offset is None].format(offset=_plain(loss.offset))
    return (
        f"{array}: '{name}' loses digits in float32, in which training reads it: of "
        f"{loss.values:,} different values {loss.left:,} remain. They are moved by up to "
        f"{loss.rounding:.3g}; a usual change between rows is {loss.step:.3g}, the spread "
        f"{loss.spread:.3g}. {way}"
    )


def _plain(offset: float | None) -> str:
    """Return a number with all of its digits, whole ones without a point."""
    return str(int(offset)) if offset is not None and offset.is_integer() else repr(offset)

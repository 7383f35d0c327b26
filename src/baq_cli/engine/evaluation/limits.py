"""A recipe's limits as numbers: in the units of an action space, about the data's observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.envs.safety import Envelope, Rules
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import UsageError
from baq_cli.recipes.safety import EnvelopeConfig, SafetyConfig

Array = npt.NDArray[Any]
VARIES = 1e-6
"""Of a dimension's mean: one whose standard deviation is less is constant in the data, up to the
digits of float32, and any other value would lie infinitely far outside."""


def rules_of(
    config: SafetyConfig | None, spaces: Spaces, statistics: Mapping[str, Sequence[float]] | None
) -> Rules | None:
    """Return the limits of a recipe, None where it has none.

    `statistics` are the data's `mean` and `std`, `[obs_dim]` each, where there are data. Raises
    UsageError for limits that don't fit the spaces, and for an envelope without data.
    """
    if config is None:
        return None
    watchdog, envelope = config.watchdog, config.observation_envelope
    return Rules(
        _each("max_action_change", config.max_action_change, spaces, np.inf),
        _action("rest_action", config.rest_action, spaces),
        _action("hold_action", config.hold_action, spaces),
        None if envelope is None else _about(envelope, statistics),
        None if watchdog is None else watchdog.max_late_seconds,
        "hold" if watchdog is None else watchdog.then,
    )


def rules_of_document(document: Mapping[str, Any], spaces: Spaces) -> Rules | None:
    """Return the limits that hold in evaluations of a checkpoint's run, see `Rules.apart`."""
    kept = document["recipe"].get("safety")
    if kept is None:
        return None
    config = SafetyConfig.model_validate(kept)
    rules = rules_of(config, spaces, (document["dataset"] or {}).get("observations"))
    return None if rules is None else rules.apart()


def constant_dimensions(rules: Rules) -> list[int]:
    """Return the dimensions of observations that an envelope says nothing of."""
    envelope = rules.envelope
    return [] if envelope is None else np.flatnonzero(np.isinf(envelope.std)).tolist()


def _about(config: EnvelopeConfig, statistics: Mapping[str, Sequence[float]] | None) -> Envelope:
    if statistics is None:
        raise UsageError(
            "safety.observation_envelope is about the observations of data, and there are none: "
            "give --dataset ID ('baq data list')"
        )
    mean, std = (np.asarray(statistics[name], dtype=np.float64) for name in ("mean", "std"))
    std = np.where(std > VARIES * np.abs(mean), std, np.inf)
    return Envelope(mean, std, config.sigmas, config.then, config.after_steps)


def _each(name: str, given: tuple[float, ...] | None, spaces: Spaces, without: float) -> Array:
    """Return a number of each action, `[action_dim]` float64; one that is given is for all."""
    count = spaces.action_dim
    values = (without,) if given is None else given
    if len(values) not in (1, count):
        raise UsageError(
            f"recipe key 'safety.{name}' has {len(values)} numbers: expected one for each of the "
            f"{count} actions, or one for all"
        )
    return np.broadcast_to(np.asarray(values, dtype=np.float64), (count,)).copy()


def _action(name: str, given: tuple[float, ...] | None, spaces: Spaces) -> Array:
    """Return an action in the type of the action space, as float64; NaN where none is given."""
    action = _each(name, given, spaces, np.nan)
    low, high = np.asarray(spaces.action_low), np.asarray(spaces.action_high)
    if given is not None and not ((action >= low) & (action <= high)).all():
        at = int(np.flatnonzero((action < low) | (action > high))[0])
        raise UsageError(
            f"recipe key 'safety.{name}': action {at} is {action[at]:g}, expected {low[at]:g} to "
            f"{high[at]:g}, the bounds of the action space"
        )
    return action if given is None else spaces.nearest(action)

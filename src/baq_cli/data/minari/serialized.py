"""Spaces and specs of environments in the text that Minari writes of them; nothing is imported."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import gymnasium as gym
import numpy as np

from baq_cli.untrusted import parse_json

NUMBER_TYPES = {np.dtype(code).name for code in np.typecodes["AllInteger"] + "efd?"}


def parse_space(text: str) -> gym.Space[Any]:
    """Read a space that Minari wrote, the parts of a `Dict` in the order they have there.

    Minari's own reader sorts them, and the environment's flattened observations follow its order.
    Raises ValueError for anything that isn't one.
    """
    from minari.serialization import deserialize_space

    try:
        fields = parse_json(text)
        _check_space(fields)
        if fields["type"] != "Dict":
            return deserialize_space(text)
        parts = fields["subspaces"].items()
        return gym.spaces.Dict(OrderedDict((k, parse_space(json.dumps(v))) for k, v in parts))
    except Exception as error:  # Gymnasium and Minari assert and raise many kinds here
        raise ValueError(f"not a space: {error}") from error


def _check_space(fields: dict[str, Any]) -> None:
    """Raise ValueError for a space that would take more memory than its text."""
    if fields.get("dtype", "float32") not in NUMBER_TYPES:
        raise ValueError(f"numbers of the type {fields['dtype']!r}")
    if fields["type"] == "Box":
        shape = tuple(fields["shape"])
        for name in ("low", "high"):
            if np.asarray(fields[name], fields["dtype"]).shape != shape:
                raise ValueError(f"its {name} has not the shape {list(shape)}")
    parts = fields.get("subspaces", ())
    for part in parts.values() if isinstance(parts, dict) else parts:
        _check_space(part)


def parse_spec(text: str) -> gym.envs.registration.EnvSpec:
    """Read an environment's spec. Nothing is imported for it.

    Raises ValueError for anything that isn't one.
    """
    try:
        fields = parse_json(text)
        dropped = ("apply_api_compatibility", "autoreset")  # of Gymnasium before 1.0
        kept = json.dumps({k: v for k, v in fields.items() if k not in dropped})
        spec = gym.envs.registration.EnvSpec.from_json(kept)
    except Exception as error:  # Gymnasium raises many kinds here
        raise ValueError(f"not an environment's spec: {error}") from error
    limit = spec.max_episode_steps
    if not (isinstance(spec.id, str) and isinstance(spec.kwargs, dict)):
        raise ValueError("not an environment's spec: its id or keyword arguments")
    if not (limit is None or (type(limit) is int and limit > 0)):
        raise ValueError(f"not an environment's spec: max_episode_steps {limit!r}")
    return spec

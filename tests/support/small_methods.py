"""Settings with which any method does all that it does within a few updates."""

from __future__ import annotations

import json
from typing import Any

from baq_cli.agents.registry import METHODS, online_draws_from_data
from baq_cli.recipes.closed import AgentConfig

LARGE = 32
"""A method's own count above this is one of steps or rows, and becomes FEW."""
FEW, WARMUP, CHUNK = 6, 4, 3


def own_sizes(algo: str, width: int, few: int) -> dict[str, Any]:
    """Return a method's own layers and large counts in small: none is listed here by name."""
    return {
        name: [width] * min(len(value), 2) if isinstance(value, tuple) else few
        for name, value in own_defaults(algo).items()
        if isinstance(value, tuple) or (type(value) is int and value > LARGE)
    }


def own_defaults(algo: str) -> dict[str, Any]:
    """Return the defaults of the keys that a method has beside those of all methods."""
    config = METHODS[algo].Config
    own = config.model_fields.keys() - AgentConfig.model_fields.keys() - config.unused
    return {name: config.model_fields[name].default for name in own}


def needs_data(algo: str) -> bool:
    """Return whether a method by its defaults draws from a dataset, in either phase."""
    method = METHODS[algo]
    return method.learns_offline or online_draws_from_data(algo, method.Config())


def small(algo: str) -> dict[str, Any]:
    """Return a method's settings in small, for runs of a few updates."""
    method = METHODS[algo]
    found = own_sizes(algo, 8, FEW)
    found |= {name: 2 for name in own_defaults(algo) if name.endswith("_actions")}
    for name in {"utd", "critics"} - method.Config.unused:
        found[name] = min(method.Config.model_fields[name].default, 3)
    if "chunk" in own_defaults(algo):
        found["chunk"] = CHUNK  # as long as the episodes of the tests, which are short
    if method.learns_online and "warmup_env_steps" not in method.Config.unused:
        found["warmup_env_steps"] = WARMUP
    return found


def small_words(algo: str) -> list[str]:
    """Return a method's own settings in small, as overrides of a command."""
    return [f"{algo}.{key}={json.dumps(value)}" for key, value in small(algo).items()]

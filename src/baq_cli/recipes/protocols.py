"""Protocols of a comparison: as each method was published, or with all that methods share equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baq_cli.errors import UsageError
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.load import SHARED, Layer, Methods, comparison_of
from baq_cli.recipes.method_files import named
from baq_cli.recipes.schema import ProtocolName, Recipe

MATCHED: Mapping[str, Any] = {
    "hidden": [256, 256],
    "policy_hidden": None,
    "initialization": "uniform",
    "policy_initialization": None,
    "last_layer_gain": None,
    "critics": 4,
    "layer_norm": True,
    "policy_layer_norm": False,
    "discount": 0.99,
    "tau": 0.005,
    "learning_rate": 3e-4,
    "policy_learning_rate": 3e-4,
    "batch_size": 256,
    "normalize_observations": True,
    "reward_scale": 1.0,
    "reward_shift": 0.0,
    "utd": 1,
    "warmup_env_steps": 1_000,
    "online_share": 0.5,
    "capacity": 1_000_000,
}
"""What all methods have under `matched`, where they have it at all. A recipe's `shared` section
and overrides of `shared` say other values, for all of them."""


def matched_keys(model: type[AgentConfig]) -> frozenset[str]:
    """Return the keys of a method that `matched` sets: those it has, less those that make it."""
    return frozenset(MATCHED) & frozenset(model.model_fields) - model.unused - frozenset(model.own)


def under(protocol: ProtocolName | None, layers: Sequence[Layer], methods: Methods) -> list[Layer]:
    """Return a recipe's layers as a protocol has them; without one, as they are.

    published: `shared` and methods' sections are dropped, but for those that the recipe says are
    the authors' for its kind of task (`compare.published`). matched: no section sets a matched key.
    """
    if protocol is None:
        return list(layers)
    said = {"protocol": protocol}
    if protocol == "published":
        return [*(_authors(layer, methods) for layer in layers), said]
    base = {
        name: {key: MATCHED[key] for key in MATCHED if key in matched_keys(model)}
        for name, model in methods.items()
    }
    return [base, *(_stripped(layer, methods) for layer in layers), said]


def _authors(layer: Layer, methods: Methods) -> Layer:
    """Return a layer with those sections alone that are their methods' authors'."""
    theirs = set(named(comparison_of(layer).published))
    aside = {SHARED, *methods} - theirs
    return {key: value for key, value in layer.items() if key not in aside}


def _stripped(layer: Layer, methods: Methods) -> Layer:
    """Return a layer whose methods' sections set no matched key."""
    found = dict(layer)
    for name, model in methods.items():
        if isinstance(section := layer.get(name), dict):
            keys = matched_keys(model)
            found[name] = {key: value for key, value in section.items() if key not in keys}
    return found


def check_matched(recipes: Mapping[str, Recipe]) -> None:
    """Refuse recipes, by method, that say another value of a matched key.

    Raises UsageError that names the key and the methods.
    """
    seen: dict[str, tuple[str, Any]] = {}
    for method, recipe in recipes.items():
        for key in sorted(matched_keys(type(recipe.method))):
            value = getattr(recipe.method, key)
            first, expected = seen.setdefault(key, (method, value))
            if value != expected:
                raise UsageError(
                    f"--protocol matched: '{key}' is {expected} of '{first}' and {value} of "
                    f"'{method}'. Set {SHARED}.{key} for all of them, or leave --protocol out."
                )

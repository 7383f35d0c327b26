"""Protocols of a comparison: as each method was published, or with all that methods share equal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from baq_cli.errors import UsageError
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.load import SHARED, Layer, Methods, comparison_of, read_layer, resolve
from baq_cli.recipes.method_files import named
from baq_cli.recipes.names import recipe_names
from baq_cli.recipes.schema import ProtocolName, Recipe
from baq_cli.recipes.shipped import EXTENDS, find_recipe, open_recipe

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
and overrides of `shared` say other values, for all of them that don't have it as their own."""


def matched_keys(model: type[AgentConfig]) -> frozenset[str]:
    """Return the keys of a method that `matched` sets: those it has, less those that make it."""
    return frozenset(MATCHED) & frozenset(model.model_fields) - model.unused - frozenset(model.own)


def opened(protocol: ProtocolName | None, name: str, methods: Methods) -> Layer:
    """Read a recipe for a protocol.

    published: what a shipped recipe says is its methods' authors' holds of its own sections, not of
    what a file that extends it changes in them, unless that says itself which are published.
    Raises UsageError as `open_recipe` does.
    """
    layer = open_recipe(name)
    if protocol != "published" or name in recipe_names():
        return layer
    own = read_layer(find_recipe(name))
    if own.get(EXTENDS) is None or "published" in comparison_of(own).model_fields_set:
        return layer
    theirs = open_recipe(own[EXTENDS])
    aside = {SHARED, *methods}
    kept = {key: value for key, value in layer.items() if key not in aside}
    return kept | {key: value for key, value in theirs.items() if key in aside}


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


def resolved(layers: Sequence[Layer], methods: Methods) -> Recipe:
    """Resolve layers that `under` made; under `matched`, with what is a method's own left as it is.

    Keys of `own` are no layer's `shared` to set. A method that is built on another has its base as
    that is by itself under the same layers: the keys that are the base's own, how it is pessimistic
    and its section; so the two differ by what the one adds. What stands behind the protocol
    (overrides, a grid) may say another value of these, of the method alone.
    Raises UsageError as `resolve` does.
    """
    recipe = resolve(layers, methods)
    said = {"protocol": recipe.run.protocol}
    if recipe.run.protocol != "matched" or said not in layers:
        return recipe
    kept = {*type(recipe.method).own, *_own_of_base(recipe.method, methods)}
    layers = [_sharing_none(layer, kept) for layer in layers]
    base = base_of(recipe.method, methods)
    if base is not None:
        alone = resolved([*layers, {"algo": base}], methods)
        at = layers.index(said) + 1
        layers = [*layers[:at], _as_alone(recipe, alone), *layers[at:]]
    return resolve(layers, methods)


def base_of(method: AgentConfig, methods: Methods) -> str | None:
    """Return the name of the method that one is built on, None where it stands by itself."""
    base = getattr(method, "base", None)
    return base if isinstance(base, str) and base in methods else None


def _own_of_base(method: AgentConfig, methods: Methods) -> frozenset[str]:
    base = base_of(method, methods)
    return frozenset() if base is None else frozenset(methods[base].own) - frozenset(method.own)


def _sharing_none(layer: Layer, keys: Collection[str]) -> Layer:
    """Return a layer whose `shared` sets none of some keys."""
    if not isinstance(shared := layer.get(SHARED), dict):
        return layer
    return layer | {SHARED: {key: value for key, value in shared.items() if key not in keys}}


def _as_alone(recipe: Recipe, alone: Recipe) -> Layer:
    """Return a layer that gives a method its base as that is by itself."""
    method, base = recipe.method, alone.run.algo
    inside = type(getattr(method, base))
    shared = frozenset(AgentConfig.model_fields)
    theirs = (shared - frozenset(MATCHED) | frozenset(alone.method.own)) - frozenset(method.own)
    in_section = frozenset(inside.model_fields) - shared - inside.unused
    values = alone.method.model_dump(mode="json")
    own = {key: values[key] for key in values if key in theirs - method.unused}
    section = {key: values[key] for key in values if key in in_section}
    return {recipe.run.algo: own | {base: section}}


def check_matched(recipes: Mapping[str, Recipe], methods: Methods) -> None:
    """Refuse recipes, by method, that say another value of a matched key.

    Nor may a method on another have another value of what is that one's own.
    Raises UsageError that names the key and the methods.
    """
    seen: dict[str, tuple[str, Any]] = {}
    for method, recipe in recipes.items():
        of_base = _own_of_base(recipe.method, methods)
        for key in sorted(matched_keys(type(recipe.method)) - of_base):
            value = getattr(recipe.method, key)
            first, expected = seen.setdefault(key, (method, value))
            if value != expected:
                raise UsageError(
                    f"--protocol matched: '{key}' is {expected} of '{first}' and {value} of "
                    f"'{method}'. Set {SHARED}.{key} for all of them, or leave --protocol out."
                )
        base = base_of(recipe.method, methods)
        alone = [other.method for other in recipes.values() if other.run.algo == base]
        for key in sorted(of_base):
            value, known = getattr(recipe.method, key), [getattr(each, key) for each in alone]
            if known and value not in known:
                raise UsageError(
                    f"--protocol matched: '{key}' is {known[0]} of '{base}' and {value} of "
                    f"'{method}', which is built on it. Set {base}.{key} for both of them, or "
                    "leave --protocol out."
                )

"""The keys of a recipe, as a user may set them: type, default, range, meaning."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from baq_cli.recipes.closed import AgentConfig, Closed

Schema = dict[str, Any]
_TYPES = {
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
    "object": "mapping",
}
REQUIRED = "required"
_SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Key:
    """A key below its method's section, as `td3_bc.alpha`.

    default: as JSON has it, REQUIRED where there is none. type, range: in words; range is empty
    where the type says all.
    """

    name: str
    type: str
    default: Any
    range: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """A mapping of a recipe by its name, as `safety.watchdog`: what it is, and its keys.

    optional: whether a recipe without it has no such section.
    """

    name: str
    meaning: str
    keys: list[Key]
    optional: bool = False


def sections_of(config: type[Closed], name: str = "", optional: bool = False) -> list[Section]:
    """Return a configuration's own keys, and after them the sections inside it, in order."""
    schema = config.model_json_schema()["properties"]
    keys, inside = [], []
    for key, field in config.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        nested = [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, Closed)]
        if nested:
            within = f"{name}.{key}" if name else key
            inside += sections_of(nested[0], within, optional=type(None) in kinds)
        else:
            default = REQUIRED if field.is_required() else field.default
            keys.append(_key_of(config, key, key, default, schema[key]))
    said = inspect.cleandoc(config.__doc__ or "").split("\n\n")[0]
    return [Section(name, " ".join(said.split()), keys, optional), *inside]


def keys_of(config: type[AgentConfig]) -> list[Key]:
    """Return the keys of a method's section, in order; those of sections inside it come last."""
    return list(_keys(config, config(), "", frozenset()))


def _keys(
    config: type[AgentConfig], values: AgentConfig, prefix: str, aside: frozenset[str]
) -> Iterator[Key]:
    schema = config.model_json_schema()["properties"]
    inside = []
    for name in config.model_fields:
        value = getattr(values, name)
        if name in config.unused or name in aside:
            continue
        if isinstance(value, AgentConfig):
            inside.append((name, value))
            continue
        yield _key_of(config, name, prefix + name, value, schema[name])
    shared = frozenset(AgentConfig.model_fields)  # set in the method's own section
    for name, value in inside:
        yield from _keys(type(value), value, f"{prefix}{name}.", shared)


def _key_of(config: type[BaseModel], name: str, shown: str, default: Any, of: Schema) -> Key:
    default = list(default) if isinstance(default, tuple) else default
    bounds = ", ".join(dict.fromkeys(_bounds(of)))
    return Key(shown, _type(of), default, bounds, meaning_of(config, name))


def meaning_of(config: type[BaseModel], name: str) -> str:
    """Return a key's description; a class that only changes a default needn't repeat it."""
    for model in config.__mro__:
        field = model.model_fields.get(name) if issubclass(model, BaseModel) else None
        if field is not None and field.description:
            return field.description
    return ""


def _type(of: Schema) -> str:
    *first, last = _kinds(of)
    return f"{', '.join(first)} or {last}" if first else last


def _kinds(of: Schema) -> list[str]:
    """Return what a value may be, each in a word or a few."""
    if "anyOf" in of:
        return [kind for part in of["anyOf"] for kind in _kinds(part)]
    if "enum" in of or "const" in of:
        return list(of.get("enum", [of.get("const")]))
    if of.get("type") == "array":
        return [f"list of {_type(of['items'])}s" if of.get("items") else "list"]
    return [_TYPES[of["type"]] if "type" in of else "any value"]


def _bounds(of: Schema) -> Iterator[str]:
    for name, sign in _SIGNS.items():
        if name in of:
            yield f"{sign} {of[name]:g}"
    for part in (*of.get("anyOf", ()), *([of["items"]] if "items" in of else ())):
        yield from _bounds(part)

"""The keys of a method's section, as a user may set them: type, default, range, meaning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from baq_cli.recipes.closed import AgentConfig

Schema = dict[str, Any]
_TYPES = {
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
}
_SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Key:
    """A key below its method's section, as `td3_bc.alpha`.

    default: as JSON has it. type, range: in words; range is empty where the type says all.
    """

    name: str
    type: str
    default: Any
    range: str
    meaning: str


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
        default = list(value) if isinstance(value, tuple) else value
        of = schema[name]
        bounds = ", ".join(dict.fromkeys(_bounds(of)))
        yield Key(prefix + name, _type(of), default, bounds, meaning_of(config, name))
    shared = frozenset(AgentConfig.model_fields)  # set in the method's own section
    for name, value in inside:
        yield from _keys(type(value), value, f"{prefix}{name}.", shared)


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
    if of["type"] == "array":
        return [f"list of {_type(of['items'])}s"]
    return [_TYPES[of["type"]]]


def _bounds(of: Schema) -> Iterator[str]:
    for name, sign in _SIGNS.items():
        if name in of:
            yield f"{sign} {of[name]:g}"
    for part in (*of.get("anyOf", ()), *([of["items"]] if "items" in of else ())):
        yield from _bounds(part)

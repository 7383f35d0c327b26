"""The page of a recipe's keys, from the schema."""

from __future__ import annotations

import json

from markdown_tables import code, plain, table

from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.keys import REQUIRED, Key, Section, keys_of, sections_of
from baq_cli.recipes.schema import CompareConfig, RunConfig, TuneConfig


def tables() -> str:
    """Return the sections of a recipe, each with its keys."""
    parts = _shown(sections_of(RunConfig), "A run")
    parts += ["## A method's section", _OF_METHODS, keys_table(keys_of(AgentConfig))]
    parts += _shown(sections_of(CompareConfig, "compare"), "")
    parts += _shown(sections_of(TuneConfig, "tune"), "")
    return "\n\n".join(parts)


_OF_METHODS = (
    "Every method has these keys, unless its card leaves one out; a method may have another "
    "default, and has keys of its own: see [the cards](methods/index.md)."
)


def _shown(sections: list[Section], title: str) -> list[str]:
    parts = []
    for section in sections:
        parts.append(f"## {f'`{section.name}`' if section.name else title}")
        absent = " A recipe has it where it is wanted." if section.optional else ""
        parts += [plain(section.meaning + absent), keys_table(section.keys)]
    return parts


def keys_table(keys: list[Key]) -> str:
    """Return keys as a table."""
    rows = (
        (code(key.name), _default(key), plain(key.meaning), plain(key.type), _range(key))
        for key in keys
    )
    return table(("key", "default", "meaning", "type", "range"), rows)


def _range(key: Key) -> str:
    """Return a key's range, in which a line never breaks between a sign and its number."""
    return plain(key.range).replace(" ", "\u00a0").replace(",\u00a0", ", ")


def _default(key: Key) -> str:
    if key.default is REQUIRED:
        return REQUIRED
    shown = key.default if isinstance(key.default, str) else json.dumps(key.default)
    return code(shown)

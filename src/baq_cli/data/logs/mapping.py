"""Which columns of a log mean what: a small YAML beside the log."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from baq_cli.errors import UsageError, listed, nearest
from baq_cli.recipes.closed import Closed
from baq_cli.untrusted import read_yaml

Names = str | tuple[str, ...]
MOST_PATTERNS = 100
"""Of one field: each is compared with every column."""


class Mapping(Closed):
    """A mapping. Names may be patterns (`joint_*`), which stand for columns in the file's order."""

    observation: Names | dict[str, Names] = Field(
        description="columns of the observation; by part for a Dict observation"
    )
    action: Names
    reward: str
    terminated: str | None = None
    truncated: str | None = None
    episode: str | None = None
    next_observation: Names | dict[str, Names] | None = None
    env: str | None = None
    action_low: float | tuple[float, ...] | None = None
    action_high: float | tuple[float, ...] | None = None


def read_mapping(path: Path) -> Mapping:
    """Read a mapping file.

    Raises UsageError when it isn't one, with the nearest key for an unknown one.
    """
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the mapping {path}: {error}") from error
    return parse_mapping(content, str(path))


def parse_mapping(content: Any, name: str) -> Mapping:
    """Check what a mapping file holds."""
    if not isinstance(content, dict):
        raise UsageError(f"the mapping {name} is not a mapping of keys to columns")
    unknown = [key for key in content if key not in Mapping.model_fields]
    if unknown:
        known = list(Mapping.model_fields)
        raise UsageError(
            f"the mapping {name} has the unknown key '{unknown[0]}'; "
            f"{nearest(str(unknown[0]), known)}"
        )
    try:
        return Mapping.model_validate(content)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in error.errors()]
        raise UsageError(f"the mapping {name} can't be used: {'; '.join(lines)}") from error


def expand_one(name: str, columns: list[str]) -> str:
    """Return the one column that a name or pattern stands for.

    Raises UsageError when it stands for several, or none.
    """
    found = expand(name, columns)
    if len(found) > 1:
        raise UsageError(f"'{name}' stands for {len(found)} columns ({listed(found)}), not one")
    return found[0]


def expand(names: Names, columns: list[str]) -> list[str]:
    """Return the columns that names and patterns stand for, in order.

    Raises UsageError when one stands for none.
    """
    found: dict[str, None] = {}
    known, patterns = set(columns), 0
    for pattern in (names,) if isinstance(names, str) else names:
        if pattern in known:
            found[pattern] = None
            continue
        patterns += 1
        if patterns > MOST_PATTERNS:
            raise UsageError(f"a mapping has {MOST_PATTERNS} patterns a field at most: join them")
        matches = [column for column in columns if fnmatchcase(column, pattern)]
        if not matches:
            raise UsageError(f"the log has no column '{pattern}'; {nearest(pattern, columns)}")
        found |= dict.fromkeys(matches)
    return list(found)

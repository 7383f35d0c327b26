"""Which columns of a log mean what: a small YAML beside the log."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat, ValidationError, field_validator, model_validator

from baq_cli.data.logs.ends.roles import Said, check_roles
from baq_cli.errors import UsageError, listed, nearest
from baq_cli.recipes.closed import Closed
from baq_cli.untrusted import read_yaml

Names = str | tuple[str, ...]
MOST_PATTERNS = 100
"""Of one field: each is compared with every column."""


class Constant(Closed):
    """A number that stands in every row."""

    constant: FiniteFloat


class Marks(Closed):
    """A column of success marks that rewards are made of; see `success.py`."""

    success: str


class TextForm(Closed):
    """How a table is written as text, where that can be read in two ways."""

    delimiter: str | None = Field(None, description="what stands between cells: one letter")
    decimal: Literal[".", ","] | None = None
    units_row: bool | None = Field(None, description="the row below the header holds units")
    columns: tuple[str, ...] | None = Field(
        None, description="the columns' names, for a file without a header"
    )

    @field_validator("delimiter")
    @classmethod
    def _divides(cls, letter: str | None) -> str | None:
        if letter is not None and (len(letter) != 1 or letter.isalnum() or letter in '"+-.\r\n'):
            raise ValueError("expected one letter that no number has, as ';'")
        return letter


class Mapping(TextForm):
    """A mapping. Names may be patterns (`joint_*`), which stand for columns in the file's order.

    One that names neither observation nor action names no columns at all: they are known by
    custom, and it says the rest.
    """

    observation: Names | dict[str, Names] | None = Field(
        None, description="columns of the observation; by part for a Dict observation"
    )
    action: Names | None = None
    reward: str | Constant | Marks | None = None
    terminated: str | None = None
    truncated: str | None = None
    episode: str | None = None
    next_observation: Names | dict[str, Names] | None = None
    ends: dict[str, Names] = Field({}, description="columns by role, as --ends gives them")
    last_row: Literal["step", "observation"] | None = Field(
        None, description="what the last row of each episode is; an observation has no step"
    )
    env: str | None = None
    action_low: float | tuple[float, ...] | None = None
    action_high: float | tuple[float, ...] | None = None
    format: Literal["lerobot", "robomimic"] | None = Field(
        None, description="whose layout the log has, where that isn't to be told by its content"
    )
    obs_keys: Names | None = Field(
        None, description="which observations of a robot's log are taken, in this order"
    )
    mask: str | None = Field(None, description="the filter key of the demonstrations to take")

    @field_validator("observation", "action", "next_observation")
    @classmethod
    def _names_something(
        cls, names: Names | dict[str, Names] | None
    ) -> Names | dict[str, Names] | None:
        for part in (names, *names.values()) if isinstance(names, dict) else (names,):
            if part is not None and not part:
                raise ValueError("it names no column: expected one, or a list of them")
        return names

    @model_validator(mode="after")
    def _all_columns_or_none(self) -> Mapping:
        asked = {field: getattr(self, field) for field in COLUMN_FIELDS}
        if isinstance(self.reward, Constant | Marks):
            del asked["reward"]
        missing = [name for name in ("observation", "action") if asked[name] is None]
        if missing and any(value is not None for value in asked.values()):
            raise ValueError(f"it names columns, but none of the {' and the '.join(missing)}")
        return self

    @property
    def names_columns(self) -> bool:
        """Whether columns are known by this mapping, and not by custom."""
        return self.observation is not None

    @property
    def constant_reward(self) -> float | None:
        """The reward of every step, where it is said and not read; of marks 0 until it is cut."""
        if isinstance(self.reward, Marks):
            return 0.0
        return self.reward.constant if isinstance(self.reward, Constant) else None

    @property
    def success(self) -> str | None:
        """The column of success marks that rewards are made of."""
        return self.reward.success if isinstance(self.reward, Marks) else None

    @property
    def said(self) -> Said:
        """The columns by role, of the roles that `--ends` has."""
        return {r: (c,) if isinstance(c, str) else tuple(c) for r, c in self.ends.items()}


def with_ends(mapping: Mapping | None, said: Said) -> Mapping | None:
    """Put roles of columns over those that a mapping gives; of `unused` both hold.

    Raises UsageError for an unknown role, or roles that contradict each other.
    """
    if not said and (mapping is None or not mapping.ends):
        return mapping
    base = mapping or Mapping()
    both = base.said.get("unused", ()) + said.get("unused", ())
    merged = {**base.said, **said, **({"unused": tuple(dict.fromkeys(both))} if both else {})}
    return base.model_copy(update={"ends": check_roles(merged)})


COLUMN_FIELDS = (
    *("reward", "terminated", "truncated", "episode"),
    *("observation", "action", "next_observation"),
)
"""The fields that name columns."""


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


def asked_names(mapping: Mapping) -> list[str]:
    """Return every name and pattern that a mapping has for columns."""
    found: list[str] = []
    for field in COLUMN_FIELDS:
        asked = getattr(mapping, field)
        for part in asked.values() if isinstance(asked, dict) else (asked,):
            if part is not None and not isinstance(part, Constant | Marks):
                found += [part] if isinstance(part, str) else part
    return found


def has_patterns(mapping: Mapping, columns: list[str]) -> bool:
    """Return whether a mapping names a column by anything but its own name."""
    return not set(asked_names(mapping)) <= set(columns)


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

    Brackets are a choice of letters, or where no column fits that stand for themselves.
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
        if not matches and "[" in pattern:  # `q[*]`, of columns that are called q[0] and q[1]
            plain = pattern.replace("[", "[[]")
            matches = [column for column in columns if fnmatchcase(column, plain)]
        if not matches:
            raise UsageError(f"the log has no column '{pattern}'; {nearest(pattern, columns)}")
        found |= dict.fromkeys(matches)
    return list(found)


def observed_too(mapping: Mapping | None, columns: list[str]) -> tuple[str, ...]:
    """Say which columns of the observation are something else as well, as a pattern has it."""
    if mapping is None or mapping.observation is None:
        return ()
    observation = mapping.observation
    parts = observation.values() if isinstance(observation, dict) else (observation,)
    observed = {name for part in parts for name in expand(part, columns)}
    found: dict[str, str] = {}
    for field in COLUMN_FIELDS:
        asked = getattr(mapping, field)
        if field == "observation" or asked is None or isinstance(asked, Constant | Marks):
            continue
        for part in asked.values() if isinstance(asked, dict) else (asked,):
            found |= {name: field for name in expand(part, columns) if name in observed}
    if not found:
        return ()
    named = listed([f"{name} ({field})" for name, field in found.items()])
    return (
        f"the observation holds {named} of the same row: will a policy see that before it acts?",
    )


def column_names(mapping: Mapping, columns: list[str]) -> dict[str, Any]:
    """Return the columns that observations (by part), actions and rewards are made of, if said."""
    observation, action, reward = mapping.observation, mapping.action, mapping.reward
    if observation is None or action is None:
        return {}
    parts = observation if isinstance(observation, dict) else {"": observation}
    return {
        "observations": {name: expand(part, columns) for name, part in parts.items()},
        "actions": expand(action, columns),
        "rewards": [expand_one(reward, columns)] if isinstance(reward, str) else [],
    }

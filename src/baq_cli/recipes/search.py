"""What a search may set: ranges and choices of a recipe's keys, held against the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from baq_cli.errors import UsageError, clipped, listed
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.load import SHARED, Layer, Methods, merged, resolve
from baq_cli.recipes.schema import RunConfig
from baq_cli.untrusted import parse_yaml

MOST_CHOICES = 1_000
OF_THE_RUN = ("critic_updates", "guard")
"""Keys outside a method's section that change how it learns and not what runs are compared by."""
FORMS = "KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=VALUE,VALUE,…"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(:log)?")

Settings = dict[str, Any]
"""A value for each key that is searched."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both among them; whole ones, or by their logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        return (self.low, self.high)

    def as_text(self) -> str:
        low, high = (repr(end).removesuffix(".0") for end in self.ends)
        return f"{low}..{high}{':log' if self.log else ''}"

    def holds(self, value: Any) -> bool:
        """Return whether a value lies in it."""
        kinds = (int,) if self.whole else (int, float)
        return type(value) in kinds and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """Some values, of any kind that a recipe has."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.values

    def as_text(self) -> str:
        return ",".join(json.dumps(value, separators=(",", ":")) for value in self.values)

    def holds(self, value: Any) -> bool:
        """Return whether a value is one of them."""
        return json.dumps(value) in map(json.dumps, self.values)


Space = Mapping[str, Range | Choices]
"""What is searched, by a recipe's key."""


def parse_search(words: Sequence[str]) -> dict[str, str | list[Any]]:
    """Read `KEY=LOW..HIGH[:log]` and `KEY=VALUE,VALUE` words as the section `tune` has them.

    Raises UsageError for a word of another form, and for a key that is given twice.
    """
    found: dict[str, str | list[Any]] = {}
    for word in words:
        key, _, text = word.partition("=")
        if not all(key.split(".")) or not text:
            raise UsageError(f"--search {clipped(word)}: expected {FORMS}")
        if key in found:
            raise UsageError(f"--search {clipped(key)}: it is given twice; expected one of them")
        found[key] = text if ".." in text else _values(word, text)
    return found


def layer_of(settings: Mapping[str, Any]) -> Layer:
    """Return settings as a layer of a recipe."""
    layer: Layer = {}
    for key, value in settings.items():
        inside: Any = value
        for part in reversed(key.split(".")):
            inside = {part: inside}
        layer = merged(layer, inside)
    return layer


def space_of(
    said: Mapping[str, str | Sequence[Any]], base: Sequence[Layer], algo: str, methods: Methods
) -> Space:
    """Return what is searched around a recipe's layers, which name the method `algo`.

    Raises UsageError for a key that is unknown or no method's, for a value or an end of a range
    that the schema refuses, and for what is no range or list of choices.
    """
    if not said:
        raise UsageError(
            "nothing to search: give --search KEY=LOW..HIGH (repeatable), or 'search' in the "
            "recipe's section 'tune'"
        )
    for key in said:
        _check_searchable(key, said, algo, methods)
    space = {key: _part(key, spec, algo, methods) for key, spec in said.items()}
    for key in space:
        _check_values(key, space, base, methods)
    return space


def _values(word: str, text: str) -> list[Any]:
    try:
        values = parse_yaml(f"[{text}]")
    except ValueError:
        values = None
    if not isinstance(values, list):
        raise UsageError(f"--search {clipped(word)}: expected {FORMS}")
    return values


def _check_searchable(key: str, said: Mapping[str, Any], algo: str, methods: Methods) -> None:
    """Refuse keys that no trial of the method may differ in, once they are known to be keys."""
    section, _, rest = key.partition(".")
    if rest and section in (SHARED, algo):
        if section == SHARED and f"{algo}.{rest}" in said:
            raise UsageError(f"--search {key}: '{algo}.{rest}' is the same key; expected one")
        return
    if section in OF_THE_RUN:
        return
    can = [f"{algo}.…", f"{SHARED}.…", *OF_THE_RUN]
    if section in methods or section == SHARED or section in RunConfig.model_fields:
        raise UsageError(
            f"--search {clipped(key)} can't be searched: trials are of '{algo}' and share data, "
            f"budgets and evaluation; expected {listed(can)}"
        )
    resolve([layer_of({key: None}) | {"algo": algo}], methods)  # names the nearest key
    raise UsageError(f"--search {clipped(key)}: expected {listed(can)}")


def _part(key: str, spec: str | Sequence[Any], algo: str, methods: Methods) -> Range | Choices:
    if isinstance(spec, str):
        return _range(key, spec, algo, methods)
    kind = _number_kind(key, algo, methods)
    different = {json.dumps(_number(value) if kind else value) for value in spec}
    if not 2 <= len(different) == len(spec) <= MOST_CHOICES:
        raise UsageError(
            f"--search {key}={clipped(list(spec))}: expected 2 to {MOST_CHOICES:,} different values"
        )
    return Choices(tuple(_number(value) if kind is float else value for value in spec))


def _number(value: Any) -> Any:
    """Return a number that YAML has for a word, as 1e-4, as one."""
    if isinstance(value, str) and re.fullmatch(_NUMBER, value):
        return float(value)
    return value


def _range(key: str, text: str, algo: str, methods: Methods) -> Range:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise UsageError(f"--search {key}={clipped(text)}: expected {FORMS}")
    kind = _number_kind(key, algo, methods)
    if kind is None:
        raise UsageError(
            f"--search {key}={text}: '{key}' is no number: expected choices, {key}=VALUE,VALUE,…"
        )
    low, high = float(found[1]), float(found[2])
    log, whole = bool(found[3]), kind is int
    if whole and not (low.is_integer() and high.is_integer()):
        raise UsageError(f"--search {key}={text}: '{key}' is a whole number; expected such ends")
    if not low < high < float("inf"):
        raise UsageError(f"--search {key}={text}: expected LOW below HIGH")
    if log and low <= 0:
        raise UsageError(f"--search {key}={text}: a logarithm needs a LOW above 0")
    return Range(int(low), int(high), log, True) if whole else Range(low, high, log)


def _number_kind(key: str, algo: str, methods: Methods) -> type | None:
    """Return int or float where a key may be such a number, None for other and unknown keys."""
    section, *parts = key.split(".")
    model: Any = methods[algo] if section == algo else AgentConfig
    if section in OF_THE_RUN:
        model, parts = RunConfig, [section, *parts]
    for part in parts:
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return float  # it is refused by name when its ends are
        leaves = list(_leaves(fields[part].annotation))
        model = next((leaf for leaf in leaves if _is_section(leaf)), leaves)
    if not isinstance(model, list):
        return None
    return float if float in model else int if int in model else None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _leaves(annotation: Any) -> Iterator[Any]:
    inside = get_args(annotation)
    if not inside or getattr(annotation, "__origin__", None) is tuple:
        yield annotation
    for each in inside:
        if getattr(annotation, "__origin__", None) is not tuple:
            yield from _leaves(each)


def _check_values(key: str, space: Space, base: Sequence[Layer], methods: Methods) -> None:
    """Refuse ends and choices that the schema refuses, whatever the other searched keys are.

    Some values fit others alone (as many elites as members at most): they pass beside the recipe's
    own, or beside the first or the last values of the other keys.
    """
    others = [name for name in space if name != key]
    beside: list[Settings] = [
        {},
        {name: space[name].ends[0] for name in others},
        {name: space[name].ends[-1] for name in others},
    ]
    for value in space[key].ends:
        refusals = []
        for settings in beside:
            try:
                resolve([*base, layer_of(settings | {key: value})], methods)
                break
            except UsageError as error:
                refusals.append(error)
        else:
            raise UsageError(f"--search {key}={space[key].as_text()}: {refusals[0]}")

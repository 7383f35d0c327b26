"""Recipes in and out: YAML layers, overrides, errors with the nearest key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import yaml  # to write; what is read goes through `untrusted`
from pydantic import BaseModel, ValidationError

from baq_cli.errors import MOST_SHOWN, UsageError, clipped, nearest
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.schema import CompareConfig, Recipe, RunConfig, TuneConfig
from baq_cli.surroundings import UNANSWERED, refused
from baq_cli.untrusted import parse_yaml, read_yaml

Layer = dict[str, Any]
Methods = Mapping[str, type[AgentConfig]]
SHARED, COMPARE, TUNE = "shared", "compare", "tune"
OF_ENVIRONMENT = ("env_args", "max_episode_steps")
NO_ENV = "no_env"
MOST_ERRORS = 20
MOST_PARTS = 8
"""Parts of an override's key; recipes have three at most."""


def resolve(layers: Sequence[Layer], methods: Methods) -> Recipe:
    """Merge layers (later ones win) and validate them into a recipe.

    A layer has a run's keys, a section a method, and `shared`: keys that hold for every method
    that has them, unless a section of the same or a later layer sets them. Sections of other
    methods, `compare` and `tune` are validated and dropped. A layer that names an environment names
    it whole: its arguments and its limit in earlier layers don't hold for it, nor does that there
    is none; a layer that says so drops what earlier ones say of any.

    Raises UsageError for unknown keys or methods, naming the nearest, and for values that don't
    fit.
    """
    run: Layer = {}
    sections: dict[str, Layer] = {}
    for layer in layers:
        aside = (SHARED, COMPARE, TUNE, *methods)
        own = {key: value for key, value in layer.items() if key not in aside}
        _check_published(comparison_of(layer).published, methods)
        tuning_of(layer)
        run = {key: value for key, value in run.items() if key not in outdated(own)}
        run = merged(run, own)
        shared = _mapping(layer, SHARED)
        _check_shared(shared)
        for name, model in methods.items():
            fits = {key: value for key, value in shared.items() if key not in model.unused}
            section = merged(fits, _mapping(layer, name))
            sections[name] = merged(sections.get(name, {}), section)
    algo = run.get("algo")
    if not isinstance(algo, str):
        raise UsageError("the recipe names no method: give --algo NAME or 'algo: NAME'")
    if algo not in methods:
        raise UsageError(f"unknown algorithm '{clipped(algo)}'; {nearest(algo, list(methods))}")
    parsed = {
        name: _validate(methods[name], section, f"{name}.")
        for name, section in sections.items()
        if section or name == algo
    }
    keys = [key for key in methods[algo].model_fields if key not in methods[algo].unused]
    beside = dict.fromkeys((SHARED, COMPARE, TUNE, *methods), ()) | {algo: keys}
    return Recipe(run=_validate(RunConfig, run, "", beside), method=parsed[algo])


def outdated(layer: Layer) -> tuple[str, ...]:
    """Return the keys of earlier layers that hold no longer beside what a layer says of its own."""
    if layer.get(NO_ENV):
        return ("env", *OF_ENVIRONMENT)
    if "env" not in layer:
        return ()
    return OF_ENVIRONMENT if layer["env"] is None else (NO_ENV, *OF_ENVIRONMENT)


def reopen(written: Layer, methods: Methods) -> Recipe:
    """Resolve a recipe that a run wrote down; what it lacks means what it did when that was made.

    Raises UsageError as `resolve` does.
    """
    algo = str(written.get("algo"))
    if algo not in methods:
        return resolve([written], methods)
    model = methods[algo]
    meant = {key: value for key, value in model.former.items() if key not in model.unused}
    return resolve([written | {algo: meant | _mapping(written, algo)}], methods)


def as_begun(recipe: Recipe, begun: Recipe) -> Recipe:
    """Return a recipe for the resume of a run that may have begun with other defaults.

    A key that the recipe leaves to its default keeps the former default where the run has that.
    """
    method, was = recipe.method, begun.method
    if type(method) is not type(was):
        return recipe
    fields = was.model_dump(mode="json")
    kept = {
        key: getattr(was, key)
        for key, value in method.former.items()
        if key in fields and fields[key] == value and key not in method.model_fields_set
    }
    return Recipe(recipe.run, method.model_copy(update=kept))


def comparison_of(layer: Layer) -> CompareConfig:
    """Return a layer's section `compare`.

    Raises UsageError as `resolve` does.
    """
    config: CompareConfig = _validate(CompareConfig, _mapping(layer, COMPARE), f"{COMPARE}.")
    return config


def tuning_of(layer: Layer) -> TuneConfig:
    """Return a layer's section `tune`.

    Raises UsageError as `resolve` does.
    """
    config: TuneConfig = _validate(TuneConfig, _mapping(layer, TUNE), f"{TUNE}.")
    return config


def _mapping(layer: Layer, name: str) -> Layer:
    section = layer.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise UsageError(
            f"recipe key '{name}': expected a mapping of keys to values, found {clipped(section)}"
        )
    return section


def _check_published(said: Sequence[str], methods: Methods) -> None:
    for word in said:
        if word != "all" and word not in methods:
            raise UsageError(
                f"recipe key '{COMPARE}.published': unknown algorithm '{clipped(word)}'; "
                f"{nearest(word, list(methods))}"
            )


def _check_shared(shared: Layer) -> None:
    known = list(AgentConfig.model_fields)
    for key in shared:
        if key not in known:
            raise UsageError(
                f"unknown recipe key '{SHARED}.{clipped(key)}'; {nearest(str(key), known)}"
            )


def read_layer(path: Path) -> Layer:
    """Read a recipe file.

    Raises UsageError when it isn't there, isn't YAML, or isn't a mapping, and DataError when the
    disk doesn't give it.
    """
    try:
        content = read_yaml(path)
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno in UNANSWERED:
            raise refused(f"read the recipe {path}", error) from error
        raise UsageError(f"cannot read the recipe {path}: {error}") from error
    except ValueError as error:
        raise UsageError(f"the recipe {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"the recipe {path} is not a mapping of keys to values")
    return content


def parse_overrides(overrides: Sequence[str]) -> Layer:
    """Turn `key.sub=value` words into a layer; values are YAML.

    Raises UsageError for a word of another form.
    """
    layer: Layer = {}
    for word in overrides:
        key, equals, text = word.partition("=")
        parts = key.split(".")
        if not equals or not all(parts) or len(parts) > MOST_PARTS:
            raise UsageError(f"cannot read the override '{clipped(word)}': expected key.sub=value")
        try:
            value = parse_yaml(text)
        except ValueError as error:
            raise UsageError(
                f"the override '{clipped(word)}' has a value that is not YAML: {error}"
            ) from error
        for part in reversed(parts):
            value = {part: value}
        layer = merged(layer, value)
    return layer


def to_yaml(recipe: Recipe, command: str) -> str:
    """Return the resolved recipe as YAML, the command that made it on the first line."""
    command = command.replace("\n", "\\n")
    body = yaml.safe_dump(recipe.as_dict(), sort_keys=False, default_flow_style=None)
    return f"# {command}\n{body}"


FREE_ON_RESUME = (
    *("gradient_steps", "env_steps", "evaluation", "threads"),
    *(
        "keep_checkpoints",
        "keep_agents",
        "keep_transitions",
        "env_workers",
        "env_timeout_seconds",
        "env_restarts",
        "safety",
        "track",
    ),
)
"""Keys that may change when a run is resumed: how long, how watched, on what."""
FREE_IN_A_COMPARISON = tuple(key for key in FREE_ON_RESUME if key != "safety")
"""Keys that may change of a comparison's cell: limits decide what was learned and measured."""


def differences(
    saved: Layer, asked: Layer, prefix: str = "", free: Sequence[str] = FREE_ON_RESUME
) -> list[str]:
    """Say where two resolved recipes differ in what a resumed run may not change."""
    found = []
    for key in sorted({*saved, *asked}):
        before, now = saved.get(key), asked.get(key)
        if before == now or (not prefix and key in free):
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            found += differences(before, now, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key} was {before}, this command says {now}")
    return found


def merged(base: Layer, over: Layer) -> Layer:
    """Return a layer of both, with the values of `over` where they differ."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


def _validate(
    model: type[Any],
    values: Layer,
    prefix: str,
    beside: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Any:
    """Return a model of values; `beside` its keys other sections may stand, with keys of theirs."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        details = _told(error.errors())
        lines = [_explain(detail, model, prefix, beside) for detail in details[:MOST_ERRORS]]
        if len(details) > MOST_ERRORS:
            lines.append(f"and {len(details) - MOST_ERRORS:,} more")
        raise UsageError("\n".join(lines)) from error


def _told(details: Sequence[Any]) -> list[Any]:
    """Leave out that a list is too short where values of it were refused: they are said."""
    inside = {detail["loc"][:-1] for detail in details}
    return [d for d in details if d["type"] != "too_short" or d["loc"] not in inside]


EXPECTED = {
    "too_short": "a list of at least one value is expected",
    "tuple_type": "a list is expected, as [1, 2]",
    "model_type": "a mapping of keys to values is expected",
    "dict_type": "a mapping of keys to values is expected",
    "int_parsing": "a whole number is expected, written out, as 1000000",
}
"""What is said where Pydantic speaks of Python's types or of parsing, by its name for that."""


def _explain(
    detail: Any, model: type[BaseModel], prefix: str, beside: Mapping[str, Collection[str]]
) -> str:
    *parents, key = (str(part) for part in detail["loc"]) if detail["loc"] else ("",)
    path = prefix + ".".join(map(clipped, [*parents, key]))
    if detail["type"] != "extra_forbidden":
        said = EXPECTED.get(detail["type"], detail["msg"].removeprefix("Value error, "))
        found = repr(detail["input"])
        found = "" if len(found) > MOST_SHOWN or ", found " in said else f", found {found}"
        if not path:  # of keys beside each other, which it names
            return f"the recipe: {said}"
        return f"recipe key '{path.rstrip('.')}': {said}{found}"
    owner = model
    for parent in parents:
        owner = _sections(owner)[parent]
    if parents:
        return f"unknown recipe key '{path}'; {nearest(key, list(owner.model_fields))}"
    inside = {**beside, **{name: of.model_fields for name, of in _sections(owner).items()}}
    within = [f"{prefix}{name}.{key}" for name, keys in inside.items() if key in keys]
    if within:
        return f"unknown recipe key '{path}'; did you mean '{within[0]}'?"
    return f"unknown recipe key '{path}'; {nearest(key, [*owner.model_fields, *beside])}"


def _sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the models of those fields of one that hold a section, or perhaps one."""
    return {
        name: choice
        for name, field in model.model_fields.items()
        for choice in (field.annotation, *get_args(field.annotation))
        if isinstance(choice, type) and issubclass(choice, BaseModel)
    }

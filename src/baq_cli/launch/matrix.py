"""A matrix of runs: methods × tasks × what a grid sets, each cell with all its seeds."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.errors import UsageError, clipped, listed, nearest
from baq_cli.launch.cell_runs import NOT_KEPT, recipe_of
from baq_cli.launch.cells import Cell
from baq_cli.recipes.load import (
    COMPARE,
    SHARED,
    TUNE,
    Layer,
    comparison_of,
    merged,
    parse_overrides,
)
from baq_cli.recipes.method_files import learns, named
from baq_cli.recipes.protocols import check_matched, opened, resolved, under
from baq_cli.recipes.schema import CompareConfig
from baq_cli.recipes.shipped import open_recipe
from baq_cli.report.protocol import check_same_protocol, environment_asked, protocol_of
from baq_cli.units import UNITS, Phase
from baq_cli.untrusted import parse_yaml

MOST_CELLS = 10_000
PUBLISHED = "published"
"""A word of `algos`: all methods whose settings a recipe says are published for its task."""
OF_THE_MATRIX = ("algo", "dataset", "seeds", "protocol", COMPARE, TUNE)
"""Keys that no grid varies: a cell would be called what it isn't, or be another's double."""
PHASE_OF: dict[str, Phase] = {
    **{unit: phase for phase, unit in UNITS.items()},
    **{f"evaluation.every_{unit}": phase for phase, unit in UNITS.items()},
    **dict.fromkeys(("critic_updates", "guard", "intervention", "shadow", "control"), "online"),
    **dict.fromkeys(("overlap", "acting", "env_workers", "keep_transitions"), "online"),
}
"""Keys of a run that one of its phases alone reads; `test_keys_of_phases.py` watches two read."""
Grid = Mapping[str, Sequence[Any]]
"""Values to try, by a recipe's key."""


def parse_grid(words: Sequence[str]) -> dict[str, list[Any]]:
    """Read `key.sub=1,3,10` words; values are YAML.

    Raises UsageError for a word of another form, and for a key that is given twice.
    """
    grid: dict[str, list[Any]] = {}
    for word in words:
        key, _, text = word.partition("=")
        try:
            values = parse_yaml(f"[{text}]")
        except ValueError:
            values = None
        if not all(key.split(".")) or not values:
            raise UsageError(f"cannot read --grid {clipped(word)}: expected key.sub=value,value,…")
        if key in grid:
            raise UsageError(f"--grid {clipped(key)}: it is given twice; expected one of them")
        grid[key] = values
    return grid


def asked_for(recipes: Sequence[str], given: Layer) -> CompareConfig:
    """Return what is to be compared: what recipes say of it, and flags, which win.

    Raises UsageError when several recipes are given and one of them has a matrix of its own.
    """
    layers = [open_recipe(name) for name in recipes]
    own = [layer for layer in layers if comparison_of(layer).recipes]
    if own and len(recipes) > 1:
        raise UsageError(
            f"--recipe {','.join(recipes)}: one of them is a matrix of recipes: give it alone"
        )
    found: Layer = layers[0].get("compare") or {} if len(layers) == 1 else {}
    config = comparison_of({"compare": found | given})
    algos = [name for word in config.algos for name in _meant(word, layers)]
    return config.model_copy(update={"algos": tuple(named(algos))})


def _meant(word: str, layers: Sequence[Layer]) -> list[str]:
    """Return the methods that a word of `algos` stands for: a name, all, or published.

    Those published are BAQ and the methods that every recipe says are their authors'.
    Raises UsageError where there is none.
    """
    if word != PUBLISHED:
        return [word]
    said = [named(comparison_of(layer).published) for layer in layers]
    shared = [name for name in said[0] if all(name in each for each in said)] if said else []
    if not shared:
        raise UsageError(
            "--algos published: no recipe here says of a method that its settings are its "
            "authors' (compare.published). Name methods instead ('baq methods')."
        )
    return ["baq", *(name for name in shared if name != "baq")]


def tasks_of(
    asked: CompareConfig, recipes: Sequence[str], flags: Layer, overrides: Sequence[str]
) -> list[list[Layer]]:
    """Return the layers of each task: its recipe, what all share, its dataset, overrides.

    A task is a recipe; or, where one recipe or none is given, a dataset.
    Raises UsageError for a key that a grid tries and the command sets, and for a protocol among the
    overrides, which would be called one that no method is run by.
    """
    over = parse_overrides(overrides)
    _check_set_once(asked.grid, merged(flags, over))
    if over.get("protocol") is not None:
        said = clipped(str(over["protocol"]))
        raise UsageError(f"protocol={said} changes no method's settings: say --protocol {said}")
    configs = method_configs()
    shared = [opened(asked.protocol, name, configs) for name in recipes]
    if asked.recipes:
        bases = [[opened(asked.protocol, name, configs), *shared] for name in asked.recipes]
    else:
        bases = [[layer] for layer in shared] or [[]]
    bases = [under(asked.protocol, base, configs) for base in bases]
    if len(bases) > 1:
        if asked.datasets:
            raise UsageError(
                f"{len(bases)} recipes name their own datasets: expected no --dataset beside them"
            )
        return [[*base, merged(flags, over)] for base in bases]
    if not asked.datasets:
        return [[*bases[0], merged(flags, over)]]
    return [[*bases[0], merged(flags | {"dataset": name}, over)] for name in asked.datasets]


def lay_out(
    tasks: Sequence[Sequence[Layer]],
    algos: Sequence[str],
    grid: Grid,
    out: Path,
    command: str,
    ablate: Sequence[str] = (),
) -> list[Cell]:
    """Return the cells of a matrix.

    A task is the layers of its recipe, without a method; each names a dataset. A grid's key that
    begins with a method's name holds for that method alone; one of `shared`, or of a phase, holds
    for those that have it. A method of `ablate` has a cell more without each of its parts
    (`Agent.ablations`), beside those of the grid.
    Raises UsageError for what a recipe refuses, for tasks without a dataset or with the same, for
    a grid's key that no method has, for its cells that would be the same run, and for cells of one
    task that couldn't be compared.
    """
    if len(set(algos)) != len(algos):
        raise UsageError(f"--algos {','.join(algos)}: expected different methods")
    _check_ablated(ablate, algos)
    count = len(tasks) * len(algos) * math.prod(len(values) for values in grid.values())
    if count > MOST_CELLS:
        raise UsageError(f"the matrix has {count:,} cells; expected {MOST_CELLS:,} at most")
    _check_grid(grid, algos)
    cells: dict[tuple[str, str], Cell] = {}
    for layers in tasks:
        of_task = []
        for algo in algos:
            base = [*layers, {"algo": algo}]
            own = [_cell(base, algo, each, out, command) for each in _settings(grid, algo)]
            _check_different(own)
            parts = _without(algo) if algo in ablate else []
            of_task += [*own, *(_cell(base, algo, each, out, command) for each in parts)]
        if of_task[0].recipe["protocol"] == "matched":
            check_matched({cell.method: recipe_of(cell) for cell in of_task}, method_configs())
        if of_task[0].task in {task for task, _ in cells}:
            raise UsageError(f"two tasks are on dataset '{of_task[0].task}': expected one")
        protocols = {
            cell.method: protocol_of(cell.recipe) | environment_asked(cell.recipe)
            for cell in of_task
        }
        check_same_protocol(of_task[0].task, protocols)
        cells |= {(cell.task, cell.method): cell for cell in of_task}
    return list(cells.values())


def _check_set_once(grid: Grid, given: Layer) -> None:
    for key in grid:
        inside: Any = given
        for part in key.split("."):
            inside = inside.get(part) if isinstance(inside, dict) else None
        if inside is not None:
            raise UsageError(f"--grid {clipped(key)}: it is set to {inside}, too; expected one")


def _check_grid(grid: Grid, algos: Sequence[str]) -> None:
    for key in grid:
        section = key.split(".")[0]
        if section in OF_THE_MATRIX:
            raise UsageError(
                f"--grid {clipped(key)}: '{section}' says what the cells are; expected a key that "
                "changes how a method learns"
            )
        if section in METHODS and section not in algos:
            raise UsageError(
                f"--grid {key}: '{section}' is not among the methods; {nearest(section, [*algos])}"
            )
        if not any(_concerns(key, algo) for algo in algos):
            raise UsageError(
                f"--grid {clipped(key)}: no effect on {listed([*algos])}; leave it out"
            )
        if not grid[key]:
            raise UsageError(f"--grid {clipped(key)}: expected values to try, found none")


def _concerns(key: str, algo: str) -> bool:
    """Return whether a grid's key holds for a method: not what is another's, or idle in it."""
    section, _, rest = key.partition(".")
    if section == SHARED:
        return rest.partition(".")[0] not in METHODS[algo].Config.unused
    phase = PHASE_OF.get(key, PHASE_OF.get(section))
    if phase is not None:
        return learns(algo, phase)
    return section not in METHODS or section == algo


def _check_different(cells: Sequence[Cell]) -> None:
    """Raise UsageError for two cells of a grid that would be the same run."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        before = seen.setdefault(json.dumps(cell.recipe, sort_keys=True), cell)
        if before is not cell:
            raise UsageError(
                f"--grid: '{before.method}' and '{cell.method}' would be the same run; expected "
                "values that differ"
            )


def _settings(grid: Grid, algo: str) -> list[dict[str, Any]]:
    """Return every choice of a grid's values, of the keys that concern a method."""
    keys = [key for key in grid if _concerns(key, algo)]
    return [
        dict(zip(keys, values, strict=True))
        for values in itertools.product(*(grid[key] for key in keys))
    ]


def _check_ablated(ablate: Sequence[str], algos: Sequence[str]) -> None:
    can = [name for name, method in METHODS.items() if method.ablations]
    for name in ablate:
        if name not in algos or name not in can:
            raise UsageError(
                f"--ablate {clipped(name)}: expected one of --algos whose parts can be taken away: "
                f"{listed(can)}"
            )


def _without(algo: str) -> list[dict[str, Any]]:
    """Return the settings that take each of a method's parts away, one at a time."""
    parts = METHODS[algo].ablations
    return [{f"{algo}.{key}": value for key, value in settings.items()} for settings in parts]


def _cell(
    layers: Sequence[Layer], algo: str, settings: dict[str, Any], out: Path, command: str
) -> Cell:
    asked = parse_overrides([f"{key}={json.dumps(value)}" for key, value in settings.items()])
    recipe = resolved([NOT_KEPT, *layers, asked], method_configs()).as_dict()
    task = recipe["dataset"]
    if not isinstance(task, str):
        raise UsageError("a comparison needs a dataset: give --dataset ID ('baq data list')")
    names = [f"{key.removeprefix(f'{algo}.')}={_short(value)}" for key, value in settings.items()]
    method = " ".join([algo, *names])
    return Cell(task, method, out / "cells" / task / _file_name(method), recipe, command)


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _file_name(method: str) -> str:
    """Return a folder's name for a label; labels that differ must not meet in one folder."""
    return re.sub(r"[^\w.=,+\[\]-]", lambda found: f"%{ord(found.group()):02x}", method)

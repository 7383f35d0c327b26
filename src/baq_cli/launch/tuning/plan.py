"""What a search is: a method's recipe, what is tried around it, by what it chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.errors import UsageError
from baq_cli.launch.cell_runs import NOT_KEPT, recipe_of
from baq_cli.launch.cells import FILE as CELL
from baq_cli.launch.cells import Cell
from baq_cli.launch.matrix import lay_out
from baq_cli.launch.pruning import PHASE, Pruning
from baq_cli.launch.tuning.folder import trial_folder
from baq_cli.recipes.load import (
    FREE_IN_A_COMPARISON,
    OF_ENVIRONMENT,
    TUNE,
    Layer,
    differences,
    merged,
    resolve,
    tuning_of,
)
from baq_cli.recipes.schema import ChosenFrom, Recipe, TuneConfig
from baq_cli.recipes.search import OF_THE_RUN, Settings, Space, layer_of, space_of
from baq_cli.report.protocol import protocol_of

REPORT = "report"


@dataclass(frozen=True)
class Plan:
    """A search of the keys in `space` around a recipe's `layers`, in the folder `out`.

    `asked` has how many settings are tried and by what one is chosen; `command` continues it.
    """

    layers: tuple[Layer, ...]
    space: Space
    asked: TuneConfig
    out: Path
    command: str

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe around which is searched, on the seeds that choose."""
        return self._resolved({})

    @property
    def algo(self) -> str:
        return self.recipe.run.algo

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that choose; no score on them is reported."""
        return self.recipe.run.seeds

    @property
    def dataset(self) -> str:
        assert self.recipe.run.dataset is not None
        return self.recipe.run.dataset

    @property
    def plays(self) -> bool:
        """Whether trials are chosen by episodes, which cost environment steps."""
        return self.asked.chosen_from != "offline"

    @property
    def offline_only(self) -> bool:
        """Whether a trial is its pre-training alone."""
        return PHASE[self.asked.chosen_from] == "offline"

    def identity(self) -> dict[str, Any]:
        """Return what makes the search this one; how many are tried, and the budget, may change."""
        free = {"trials", "env_steps_budget", "search"}
        recipe = self.recipe.as_dict()
        return {
            "recipe": recipe,
            "protocol": protocol_of(recipe) | self._estimates(),
            "search": {key: part.as_text() for key, part in self.space.items()},
            **self.asked.model_dump(mode="json", exclude=free),
        }

    def _estimates(self) -> dict[str, Any]:
        """Return what decides estimates; it changes no score that is played."""
        updates = self.recipe.run.evaluation.estimate_updates
        return {} if self.plays else {"evaluation.estimate_updates": updates}

    def cell(self, number: int, settings: Settings, earlier: Sequence[Sequence[float]]) -> Cell:
        """Return the cell of a trial; `earlier` has the scores of trials that finished before.

        Raises UsageError where the schema refuses its settings together.
        """
        rule = Pruning(
            chosen_from=self.asked.chosen_from,
            below=self.asked.prune_below,
            earlier=[list(scores) for scores in earlier],
        )
        return Cell(
            self.dataset,
            f"{self.algo} trial {number}",
            self.folder(number),
            self._resolved(settings).as_dict(),
            self.command,
            self.offline_only,
            rule.model_dump(),
        )

    def folder(self, number: int) -> Path:
        return trial_folder(self.out, number)

    def report_cell(self, settings: Settings, name: str = REPORT) -> Cell:
        """Return the cell of chosen settings on the seeds that report, in a folder of that name."""
        seeds = {"seeds": list(self.asked.report_seeds)}
        layers = [*self.layers, merged(layer_of(settings), seeds)]
        (cell,) = lay_out([layers], [self.algo], {}, self.out / name, self.command)
        only = self.asked.chosen_from == "pretraining"
        return Cell(cell.task, cell.method, cell.folder, cell.recipe, cell.command, only)

    def report_name(self, number: int, settings: Settings) -> str:
        """Return the name of the folder in which a chosen trial is reported.

        Each has its own, for another may be chosen where more are tried; earlier versions had one.
        """
        cell = self.report_cell(settings)
        if not (cell.folder / CELL).exists():
            return f"{REPORT}-{number:04d}"
        before, now = (
            {key: value for key, value in recipe.items() if key not in ("env", *OF_ENVIRONMENT)}
            for recipe in (recipe_of(Cell.load(cell.folder)).as_dict(), cell.recipe)
        )
        changed = differences(before, now, free=FREE_IN_A_COMPARISON)
        return f"{REPORT}-{number:04d}" if changed else REPORT

    def chosen(self, settings: Settings) -> Recipe:
        """Return chosen settings as a recipe, on seeds that didn't choose."""
        seeds = {"seeds": list(self.asked.report_seeds or self.unused_seeds())}
        return resolve([*self.layers, merged(layer_of(settings), seeds)], method_configs())

    def unused_seeds(self) -> list[int]:
        """Return as many seeds as choose that aren't among them."""
        first = max(self.seeds) + 1
        return list(range(first, first + len(self.seeds)))

    def _resolved(self, settings: Mapping[str, Any]) -> Recipe:
        """Return settings as the recipe of a trial.

        Its evaluations are made by the process that trains: it stops at the one that decides.
        """
        forced: Layer = {"evaluation": {"background": False}}
        if self.asked.chosen_from == "offline":
            forced["no_env"] = True
        layers = [NOT_KEPT, *self.layers, layer_of(settings), forced]
        return resolve(layers, method_configs())


def plan_search(recipe: Layer, given: Layer, asked: Layer, out: Path, command: str) -> Plan:
    """Return the search that a recipe and a command ask for; what the command says goes first.

    Raises UsageError for what can't be: see `space_of`, a phase that the method doesn't have, no
    dataset, seeds that would choose and report.
    """
    said = tuning_of(recipe).model_dump(mode="json", exclude_unset=True)
    config = tuning_of({TUNE: said | asked})
    layers = (recipe, given)
    base = resolve(layers, method_configs())
    if base.run.dataset is None:
        raise UsageError("a search needs a dataset: give --dataset ID ('baq data list')")
    _check_phase(base.run.algo, config.chosen_from)
    _check_seeds(base.run.seeds, config)
    space = space_of(config.search, layers, base.run.algo, method_configs())
    _check_means_something(space, config.chosen_from)
    _check_given_once(config, given)
    return Plan(layers, space, config, out, command)


def check_same(before: Mapping[str, Any], plan: Plan) -> None:
    """Compare a plan with the identity of the search that its folder holds.

    Raises UsageError that names what differs.
    """
    now = plan.identity()
    was, says = ({key: said[key] for key in said if key != "recipe"} for said in (before, now))
    of_recipe = differences(before["recipe"], now["recipe"], free=FREE_IN_A_COMPARISON)
    changed = [*of_recipe, *differences(was, says)]
    if changed:
        raise UsageError(
            f"{plan.out} holds another search: {'; '.join(changed)}. Give the values it was begun "
            "with, or choose another --out."
        )


def _check_phase(algo: str, chosen_from: ChosenFrom) -> None:
    method = METHODS[algo]
    if PHASE[chosen_from] == "online" and not method.learns_online:
        raise UsageError(
            f"--from {chosen_from}: '{algo}' has no online phase to choose by; say --from "
            "pretraining or --from offline"
        )
    if PHASE[chosen_from] == "offline" and not method.learns_offline:
        raise UsageError(
            f"--from {chosen_from}: '{algo}' has no offline phase to choose by; say --from online "
            "or --from final"
        )


def _check_seeds(seeds: Sequence[int], config: TuneConfig) -> None:
    report = config.report_seeds
    both = sorted({*seeds} & {*report})
    fresh = f"{max(seeds) + 1}..{max(seeds) + max(5, len(report))}"
    if both:
        raise UsageError(
            f"seed {both[0]} would choose and report: a setting looks better than it is on the "
            f"seeds that chose it. Give --report-seeds others than {_short(seeds)}, as {fresh}"
        )
    if len(set(report)) != len(report) or any(not 0 <= seed < 2**63 for seed in report):
        raise UsageError(f"--report-seeds must differ and be 0 or more, found {_short(report)}")
    if not report and config.chosen_from != "offline":
        raise UsageError(
            "the chosen setting is reported on seeds that didn't choose it: give --report-seeds, "
            f"as {fresh}"
        )


def _check_means_something(space: Space, chosen_from: ChosenFrom) -> None:
    """Refuse keys that a pre-training doesn't have, or that change what an estimate is of."""
    for key in space:
        section, name = key.split(".")[0], key.split(".")[-1]
        if PHASE[chosen_from] == "offline" and section in OF_THE_RUN:
            raise UsageError(f"--search {key}: it has no effect before the online phase")
        if chosen_from == "offline" and name == "discount":
            raise UsageError(
                f"--search {key}: estimates are discounted returns, and those of two discounts "
                "can't be compared; say --from pretraining or --from online, which play"
            )


def _check_given_once(config: TuneConfig, given: Layer) -> None:
    """Refuse a key that the command sets and searches."""
    for key in config.search:
        inside: Any = given
        for part in key.split("."):
            inside = inside.get(part) if isinstance(inside, dict) else None
        if inside is not None:
            raise UsageError(f"'{key}' is searched, and set to {inside}: leave one of them out")


def _short(seeds: Sequence[int]) -> str:
    return ",".join(map(str, seeds[:10])) + ("…" if len(seeds) > 10 else "")

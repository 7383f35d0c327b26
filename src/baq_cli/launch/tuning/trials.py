"""What came of a search's trials, read from their folders."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from baq_cli.errors import DataError, ExitStatus
from baq_cli.launch.cells import Cell
from baq_cli.launch.journal import state_of
from baq_cli.launch.pruning import Pruning, curve_of, scores_of
from baq_cli.launch.tuning.optuna_rules import Known
from baq_cli.recipes.search import Settings
from baq_cli.report.curves import is_estimate
from baq_cli.runs.folder import read_metrics
from baq_cli.runs.log import LENGTH, Row
from baq_cli.units import UNITS, Phase

Stage = Literal["waiting", "done", "pruned", "failed"]
OUTCOMES = (ExitStatus.NON_FINITE, ExitStatus.LIMIT)
"""Failures of a trial that say something of its settings: it diverged, or a limit stopped it. Any
other ends the search, and the trial is tried again by the same command."""


@dataclass(frozen=True)
class Cost:
    """Environment steps, over all seeds: of online training, and of the episodes of evaluations."""

    training: int = 0
    evaluation: int = 0

    @property
    def total(self) -> int:
        return self.training + self.evaluation

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.training + other.training, self.evaluation + other.evaluation)

    def as_dict(self) -> dict[str, int]:
        return {"training": self.training, "evaluation": self.evaluation, "total": self.total}


@dataclass(frozen=True)
class Trial:
    """A trial: its settings, and what came of it.

    `scores` are what its score would have been after each evaluation, by the seeds that choose;
    `score` is the last of them for one that is done. `counter` is where the last evaluation was,
    in `unit`. One that is pruned has what it did until then.
    """

    number: int
    settings: Settings
    stage: Stage = "waiting"
    scores: tuple[float, ...] = ()
    counter: int | None = None
    unit: str | None = None
    cost: Cost = Cost()
    error: str | None = None

    @property
    def score(self) -> float | None:
        return self.scores[-1] if self.stage == "done" and self.scores else None

    @property
    def ended(self) -> bool:
        return self.stage != "waiting"

    def known(self) -> Known:
        """Return what proposals are made of."""
        return Known(self.settings, () if self.stage == "failed" else self.scores, self.score)


def outcome_of(number: int, settings: Settings, cell: Cell) -> Trial:
    """Return what came of a trial's cell so far.

    It is pruned where its evaluations say so, whether its process had the time to say so or not.
    Raises DataError for files that can't be read.
    """
    rule = Pruning.model_validate(cell.pruning)
    state, curve = state_of(cell.folder), curve_of(cell.folder, rule.chosen_from)
    trial = Trial(number, settings)
    cut = None if curve is None else rule.cut_of(curve, int(cell.recipe[curve.unit]))
    if curve is not None:
        scores = scores_of(curve, rule.chosen_from)
        if cut is not None:
            scores = scores[: cut + 1]
        counter = int(curve.counters[len(scores) - 1])
        trial = replace(trial, scores=tuple(scores), counter=counter, unit=curve.unit)
    if cut is not None:
        stage: Stage = "pruned" if state.stage in ("pruned", "done") else "waiting"
    elif state.stage == "done":
        stage = "done"
    else:
        failed = state.stage == "failed" and state.status in OUTCOMES
        stage = "failed" if failed else "waiting"
    cost = cost_of(cell, trial.unit, trial.counter)
    return replace(trial, stage=stage, cost=cost, error=state.error)


def cost_of(cell: Cell, unit: str | None = None, most: int | None = None) -> Cost:
    """Return what a cell cost, counted by its evaluations, those up to `most` of a unit.

    Steps that a resume repeats count once. Of one that failed online, steps are counted to the
    evaluation that it didn't come to.
    """
    rows = [row for phase in UNITS for row in _rows(cell, phase, unit, most)]
    played = [row for row in rows if not is_estimate(row)]
    lengths = sum(float(row[LENGTH]) * int(row["evaluation_episodes"]) for row in played)
    last = max((int(row["env_steps"]) for row in rows if row["phase"] == "online"), default=None)
    if last is None:
        last = 0
    elif state_of(cell.folder).stage == "failed":
        total = int(cell.recipe["env_steps"])
        every = cell.recipe["evaluation"]["every_env_steps"] or max(1, total // 10)
        last = min(last + int(every), total)
    if not math.isfinite(lengths):
        raise DataError(f"{cell.folder} is damaged: an episode's length is no number")
    return Cost(last * len(cell.recipe["seeds"]), round(lengths))


def _rows(cell: Cell, phase: Phase, unit: str | None, most: int | None) -> list[Row]:
    run = cell.folder / phase
    if not (run / "metrics.csv").exists():
        return []
    rows = [row for row in read_metrics(run) if row["phase"] == phase]
    if most is None or unit != UNITS[phase]:
        return rows
    return [row for row in rows if int(row[unit]) <= most]

"""The search itself: settings proposed in fixed batches, run as cells, until it ends.

What is proposed, and when a trial is stopped, follows from earlier batches alone; which trials run
at all, from what the ones before them cost. So neither time nor the number of workers decides
anything, and a search that was killed goes on from its folder to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from baq_cli.errors import DataError, UsageError
from baq_cli.launch.cells import Cell
from baq_cli.launch.drive import CellFailure
from baq_cli.launch.tuning.folder import read_search, write_search
from baq_cli.launch.tuning.optuna_rules import propose
from baq_cli.launch.tuning.plan import Plan, check_same
from baq_cli.launch.tuning.trials import OUTCOMES, Cost, Trial, outcome_of
from baq_cli.recipes.search import Settings
from baq_cli.runs.folder import SEARCH

Ending = Literal["trials", "budget", "space"]
"""Why a search ended: so many trials were asked for, the budget is spent, all was tried."""
Runner = Callable[[Sequence[Cell]], dict[str, CellFailure]]
"""Runs cells, and returns those that failed, by name."""


class Search:
    """A search in its folder: `proposed` has the settings of every trial so far, in order.

    `placed` gives a cell its environment; `most` is the most that a trial can cost.
    Raises UsageError where the folder holds another search, DataError where it is damaged.
    """

    def __init__(self, plan: Plan, placed: Callable[[Cell], Cell], most: int = 0):
        self.plan, self._placed, self._most = plan, placed, most
        self.proposed = _kept(plan)
        self._ended: dict[int, Trial] = {}

    def run(self, runner: Runner, told: Callable[[Trial], None]) -> list[Trial]:
        """Run trials until the search ends; return all of them. `told` hears of each that ended.

        Raises the failure of a cell that says nothing of its settings, after the cells beside it
        have finished.
        """
        heard = {trial.number for trial in self.trials() if trial.ended}
        while wave := self._wave():
            failures = runner([cell for _, cell in wave])
            for number, cell in wave:
                failure = failures.get(cell.name)
                if failure is not None and failure.status not in OUTCOMES:
                    raise failure
                if number not in heard and self._trial(number).ended:
                    told(self._trial(number))
        return self.trials()

    def trials(self) -> list[Trial]:
        """Return every trial that was proposed and is not beyond those that are asked for."""
        numbers = range(min(len(self.proposed), self.plan.asked.trials))
        return [self._trial(number) for number in numbers]

    def best(self) -> Trial:
        """Return the trial that is chosen: the highest score, the earliest of equals.

        Raises DataError where none has come to its end.
        """
        trials = self.trials()
        done = [trial for trial in trials if trial.score is not None]
        if not done:
            why = next((f": {trial.error}" for trial in trials if trial.error), "")
            raise DataError(f"nothing can be chosen: no trial has come to its end{why}")
        return max(done, key=lambda trial: (trial.score, -trial.number))

    @property
    def cost(self) -> Cost:
        """What all trials cost."""
        return sum((trial.cost for trial in self.trials()), Cost())

    @property
    def ending(self) -> Ending:
        """Why nothing more is tried."""
        trials, budget = self.trials(), self.plan.asked.env_steps_budget
        if len(trials) >= self.plan.asked.trials and all(trial.ended for trial in trials):
            return "trials"
        return "space" if budget is None or self.cost.total < budget else "budget"

    def _wave(self) -> list[tuple[int, Cell]]:
        """Return the trials that run next, side by side; none at the end of the search."""
        waits = any(not trial.ended for trial in self.trials())
        if waits or (len(self.proposed) < self.plan.asked.trials and self._propose()):
            return list(self._admitted())
        return []

    def _admitted(self) -> Iterator[tuple[int, Cell]]:
        """Yield the trials of a batch that may run whatever those before them come to cost.

        A trial runs where all before it cost less than the budget: so that is exceeded by one
        trial at most. Where what an earlier trial left is lost, later batches wait for it: theirs
        are pruned by its scores.
        """
        budget, spent, batch = self.plan.asked.env_steps_budget, 0, None
        for trial in self.trials():
            if trial.ended:
                spent += trial.cost.total
                continue
            batch = self._batch_of(trial.number) if batch is None else batch
            over = budget is not None and spent >= budget
            if over or self._batch_of(trial.number) != batch:
                return
            spent += self._most
            cell = self._cell(trial.number)
            assert not isinstance(cell, UsageError)  # it would have ended
            yield trial.number, cell

    def _propose(self) -> bool:
        """Add a batch of settings; return whether there is one."""
        spent, budget = self.cost.total, self.plan.asked.env_steps_budget
        if self._is_exhausted or (budget is not None and spent >= budget):
            return False
        known = [self._trial(number).known() for number in range(len(self.proposed))]
        asked = self.plan.asked
        found = propose(self.plan.space, known, asked.at_once, asked.sampler_seed)
        self.proposed += found
        _keep(self.plan, self.proposed)
        return bool(found)

    @property
    def _is_exhausted(self) -> bool:
        """Whether the last batch had fewer settings than were asked for: there are no more."""
        return len(self.proposed) % self.plan.asked.at_once != 0

    def _trial(self, number: int) -> Trial:
        if number in self._ended:
            return self._ended[number]
        settings, cell = self.proposed[number], self._cell(number)
        if isinstance(cell, UsageError):
            trial = Trial(number, settings, "failed", error=f"refused: {cell}")
        else:
            trial = outcome_of(number, settings, cell)
        if trial.ended:
            self._ended[number] = trial
        return trial

    def _batch_of(self, number: int) -> int:
        """Return the first trial of those that are proposed with a trial."""
        return number - number % self.plan.asked.at_once

    def _cell(self, number: int) -> Cell | UsageError:
        """Return a trial's cell, or why its settings don't go together."""
        before = (self._trial(earlier) for earlier in range(self._batch_of(number)))
        scores = [trial.scores for trial in before if trial.score is not None]
        try:
            return self._placed(self.plan.cell(number, self.proposed[number], scores))
        except UsageError as error:
            return error


def _kept(plan: Plan) -> list[Settings]:
    """Return the settings that the search in a folder has proposed; none where none was begun."""
    file = plan.out / SEARCH
    if not file.exists():
        return []
    content = read_search(plan.out)
    try:
        check_same(content["search"], plan)
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is damaged: it doesn't say which search it is") from error
    for settings in content["trials"]:
        fits = settings.keys() == plan.space.keys()
        if not fits or not all(plan.space[key].holds(v) for key, v in settings.items()):
            raise DataError(f"{file} is damaged: a trial's settings lie outside of the search")
    return list(content["trials"])


def _keep(plan: Plan, proposed: Sequence[Settings]) -> None:
    write_search(plan.out, plan.identity(), proposed)

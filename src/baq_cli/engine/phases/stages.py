"""What a method does beside its main updates: stages before them, routines between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import Plan, Stage
from baq_cli.engine.experience.reader import StoreReader
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.stores import Stores, odds_of
from baq_cli.engine.experience.windows import Window
from baq_cli.engine.phases.run import METRICS_EVERY, Run
from baq_cli.engine.phases.timing import Pace
from baq_cli.engine.updates.updater import Updater
from baq_cli.runs.events import Note, Progress
from baq_cli.units import amount

SAVES = 10
"""Checkpoints of a stage before a phase, evenly spaced; a signal asks for one at any update."""


class Stages:
    """The stages and routines of a phase.

    Their random numbers come from the stream `routine/<phase>`. A routine is atomic: it runs once
    before the update or environment step whose number is a multiple of its `every`, zero among
    them, however often that step is tried.
    """

    def __init__(self, run: Run, plan: Plan, stores: Stores):
        self._run, self._plan, self._stores = run, plan, stores
        self._discount = run.learner.discount
        self._odds, self._window = odds_of(run.agent, plan), Window.of(plan)
        self.reader = StoreReader(
            run.agent, stores.by_name(), self._discount, self._odds, self._window
        )
        self._updaters: dict[Stage, Updater] = {}
        self._done, self._steps = 0, 0
        self._routines: int | None = None

    @property
    def under_way(self) -> bool:
        """Whether stages before the phase are left to do."""
        return self._done < len(self._plan.first)

    def first(self, save: Callable[[], None], stop_if_asked: Callable[[], None]) -> None:
        """Make the updates of the stages before the phase that are left; save now and then."""
        while self.under_way:
            stage = self._plan.first[self._done]
            every = max(1, stage.steps // SAVES)

            def pause(steps: int, stage: Stage = stage, every: int = every) -> None:
                self._steps = steps
                if steps == stage.steps:
                    self._done, self._steps = self._done + 1, 0
                if steps % every == 0 or self._run.interruption.requested:
                    save()
                    stop_if_asked()

            self._make(stage, self._steps, pause)
            self._say(stage)
            self._run.laps.lap("stage")
            self._run.going.pace.count_from(0, self._run.learner.gradient_steps)

    def fit(self, updater: Updater, begun: int, stop: Callable[[], bool]) -> int:
        """Make the updates of critics alone that the plan asks for after the warm-up.

        The first `begun` were made before. Return how many are made: all, unless `stop` said so
        between two.
        """
        stage = self._plan.fit
        assert stage is not None
        pace = Pace(begun, begun)
        for steps in range(begun + 1, stage.steps + 1):
            if stop():
                return steps - 1
            self._after_update(stage, updater.step(), steps, pace)
        self._say(stage)
        return stage.steps

    def routines(self, done: int, total: int) -> None:
        """Do the routines that are due after `done` of a phase's steps, in the plan's order.

        The clock says so, whether the run has just been resumed or not.
        """
        if done == self._routines:
            return  # the step behind them failed, and is tried again
        self._routines = done
        run, learner = self._run, self._run.learner
        due = [routine for routine in self._plan.routines if done % routine.every == 0]
        if due:
            learner.env_steps, learner.share = run.env_steps, done / total
            learner.prepare()
        for routine in due:
            for stage in routine.stages:
                self._make(stage, 0, lambda _: None)
            run.agent.refresh(routine.name, self.reader, run.streams["routine"])
            run.laps.lap("routine")

    def _make(self, stage: Stage, begun: int, pause: Callable[[int], None]) -> None:
        updater = self._updaters.get(stage) or self._updater(stage)
        if begun == 0:
            self._run.agent.begin_stage(stage.name, self.reader)
        pace = Pace(begun, begun)
        for steps in range(begun + 1, stage.steps + 1):
            batch = updater.step()
            self._after_update(stage, batch, steps, pace)
            every = stage.assess_every or stage.steps
            if steps % every == 0 or steps == stage.steps:
                self._run.agent.assess(self.reader, stage.name)
            pause(steps)

    def _after_update(self, stage: Stage, batch: Batch, steps: int, pace: Pace) -> None:
        """Look at the losses of a stage's update, and report progress by its name.

        Raises NonFiniteError when a loss has become NaN or infinite.
        """
        run, learner = self._run, self._run.learner
        last = steps == stage.steps
        if run.spec.device.type == "cpu" or steps % METRICS_EVERY == 0 or last:
            run.faults.check_losses(learner.metrics, batch, learner.gradient_steps)
        if pace.is_due(last):
            _, rate, left = pace.at(steps, stage.steps, steps)
            counts = steps, stage.steps, learner.gradient_steps
            run.observer(Progress(run.phase, *counts, rate, left, stage.name))
            pace.count_from(steps, steps)

    def _updater(self, stage: Stage) -> Updater:
        run, stream = self._run, self._run.streams["routine"]
        rows = stage.rows or run.recipe.method.batch_size
        of_batches = stream, rows, self._discount, self._odds, self._window
        replay = Replay(stage.draws, self._stores.by_name(), *of_batches)
        capture = run.recipe.run.capture
        updater = Updater(run.learner, replay, capture, stage=stage, noise=stream)
        self._updaters[stage] = updater
        return updater

    def _say(self, stage: Stage) -> None:
        losses = {
            name.removeprefix("loss_"): float(value.mean())
            for name, value in self._run.learner.metrics.items()
            if name.startswith("loss_")
        }
        words = ", ".join(f"loss of {name} {value:.4g}" for name, value in losses.items())
        self._run.observer(Note(f"{stage.name}: {amount(stage.steps, 'update')}; {words}"))

    # -- checkpoints

    def state(self) -> dict[str, Any]:
        """Return which stage before the phase is under way, and which routines are over."""
        if not (self._plan.first or self._plan.routines):
            return {}
        kept = {"done": self._done, "steps": self._steps, "routines": self._routines}
        return {"stages": kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was made; one of earlier versions was made after all stages."""
        kept = state.get("stages") or {"done": len(self._plan.first), "steps": 0}
        self._done, self._steps = int(kept["done"]), int(kept["steps"])
        self._routines = kept.get("routines")

"""Fine-tuning on the wall clock: another process acts, and this one learns from what it logs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import save

from baq_cli.engine.phases.timing import Pace
from baq_cli.engine.phases.turns import ClockedLearner
from baq_cli.engine.robot.acting import ActingConfig, NotFinite
from baq_cli.engine.robot.chooser import MakeChooser
from baq_cli.engine.robot.process import ActingProcess
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.errors import UsageError, listed
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Limited, Note, Progress

IDLE_SECONDS = 1e-3
"""Between two looks at the log where there is nothing to learn from it."""
SYNC_SECONDS = 1.0
"""Between two times that the disk is asked to hold the logs: what a failure of power may cost."""
KEPT_SHARE = 0.8
"""Of the time between two actions, what deciding on one may take; the rest is the environment's."""


def check_clocked(recipe: Recipe) -> None:
    """Raise UsageError for what can't be on the wall clock."""
    run = recipe.run
    if run.control is not None and len(run.seeds) > 1:
        raise UsageError(
            f"--control-hz steps one robot, and there are {len(run.seeds)} seeds ("
            f"{listed([str(seed) for seed in run.seeds])}): give one of them, as in --seeds "
            f"{run.seeds[0]},"
        )


class ClockedLoop:
    """A run whose environment another process steps, while this one learns."""

    def __init__(self, learner: ClockedLearner, chooser: MakeChooser):
        self._learner, self._run = learner, learner.run
        self._chooser = chooser
        self._latency_ms: tuple[float, float] | None = None
        self._synced = time.monotonic()
        self._pace = Pace(self._run.env_steps, learner.updates)

    def finetune(self, resume_command: str) -> None:
        """Learn until the robot has made the recipe's `env_steps`, or the guard stops it.

        Raises Interrupted, NonFiniteError, EnvironmentMismatch and UsageError.
        """
        learner, run = self._learner, self._run
        self.repeat(resume_command)
        if learner.logged >= run.recipe.run.env_steps:
            learner.take_the_rest()  # of a robot that was done
            self._save()
        if self._over:
            return
        run.stop_if_asked(resume_command)
        learner.intake.stages.first(learner.save, lambda: run.stop_if_asked(resume_command))
        if not run.env_steps:
            learner.save()  # what `--repeat` and a resume before the next checkpoint begin with
        while not self._over:
            try:
                with self._acting() as robot:
                    self._learn_beside(robot)
            except EnvironmentFault as fault:
                learner.take_the_rest()
                if not run.interruption.requested:
                    run.faults.failed(fault, run.env_steps)
            except NotFinite as odd:
                learner.take_the_rest()
                run.faults.check_transition(odd.parts, run.env_steps + 1)
            stopped = run.interruption.requested or run.guard.stopped
            self._save(always=bool(stopped))
            if not self._over:
                run.stop_if_asked(resume_command)

    @property
    def _over(self) -> bool:
        run = self._run
        return run.env_steps >= run.recipe.run.env_steps or run.guard.stopped

    def repeat(self, resume_command: str) -> None:
        """Make the turns again that the logs have and the checkpoint doesn't know."""
        learner, run = self._learner, self._run
        if learner.left:
            run.observer(Note(f"repeating {learner.left:,} turns of training from the logs"))
        while learner.left:
            learner.repeat()
            self._tick()
            if learner.due or run.interruption.requested:
                learner.save()
                run.stop_if_asked(resume_command)

    @contextmanager
    def _acting(self) -> Iterator[ActingProcess]:
        """Start the acting process where the log ends; it is let go of when the block ends."""
        run, learner = self._run, self._learner
        spec = replace(run.spec, device=torch.device("cpu"))
        random = learner.intake.plan.warmup_env_steps if run.from_scratch else 0
        config = ActingConfig(
            *(run.recipe, spec, save(run.inputs.tensors()), run.origin.acts_in, learner.log_path),
            *(run.recipe.run.env_steps, random, self._chooser, run.origin.rules),
        )
        with closing(ActingProcess(config, run.agent, learner.publish())) as robot:
            self._check_latency(robot)
            run.interruption.heard = robot.stop
            try:
                if run.interruption.requested:  # before anybody listened
                    robot.stop()
                robot.go()
                yield robot
            finally:
                run.interruption.heard = None

    def _check_latency(self, robot: ActingProcess) -> None:
        """Raise UsageError where the policy can't keep the rate, before anything has moved."""
        control = self._run.recipe.run.control
        assert control is not None
        found = 1e3 * robot.latency()
        if self._latency_ms is not None:
            return  # it is another one, of a run that goes on
        period = 1e3 / control.hz
        median, worse = (float(np.percentile(found, share)) for share in (50, 99))
        self._latency_ms = median, worse
        measured = f"{median:.3g} ms (99th percentile {worse:.3g} ms)"
        if median > KEPT_SHARE * period:
            kept = KEPT_SHARE * 1e3 / median
            raise UsageError(
                f"the policy can't keep {control.hz:g} actions a second here: deciding on one "
                f"takes {measured} of {period:.3g} ms, as measured; nothing has moved. Give "
                f"--control-hz {_rounded_down(kept):g} or less."
            )
        seldom = "" if worse < period else ", so that some will be late on a machine this busy"
        self._run.observer(
            Note(
                f"deciding on an action takes {measured} of {period:g} ms between two{seldom}. No "
                "episodes are played apart: returns are those of the robot's own"
            )
        )

    def _learn_beside(self, robot: ActingProcess) -> None:
        """Learn while the robot acts, until it has ended and all that it did is stored."""
        learner, run = self._learner, self._run
        limit = run.recipe.run.env_timeout_seconds
        while not robot.ended:
            moved = learner.turn()
            for event in robot.heard():
                if isinstance(event, Limited):
                    told = event.trips, event.env_steps
                    run.counts.limited.tell(*told, run.interruption, run.observer)
                else:
                    run.observer(event)
            if learner.publishes:
                robot.publish(learner.publish())
            self._save()
            self._keep()
            if run.guard.stopped:
                robot.stop()
            if limit is not None:
                robot.check_alive(limit)
            if not moved:
                time.sleep(IDLE_SECONDS)
        learner.take_the_rest()
        run.interruption.requested = run.interruption.requested or robot.stopped_by or None

    def save(self) -> None:
        """Write a checkpoint."""
        self._learner.save()

    def _save(self, always: bool = False) -> None:
        """Write a checkpoint where one is due, and say how the clock was kept."""
        if self._learner.due:
            self._say()
        if self._learner.due or always:
            self._learner.save()

    def _keep(self) -> None:
        """Report now and then, and have the disk hold the logs."""
        self._tick()
        now = time.monotonic()
        if now - self._synced > SYNC_SECONDS:
            self._synced = now
            self._learner.sync()

    def _tick(self) -> None:
        """Report progress twice a second."""
        run, learner = self._run, self._learner
        if not self._pace.is_due():
            return
        done, total = run.env_steps, run.recipe.run.env_steps
        counts = self._pace.at(done, total, learner.updates)
        run.observer(
            Progress(
                *(run.phase, done, total, *counts),
                taken_over=run.counts.taken.share(done),
                late=learner.lateness().share,
                utd=learner.utd,
            )
        )

    def _say(self) -> None:
        learner = self._learner
        target = learner.intake.plan.utd
        self._run.observer(
            Note(
                f"{self._run.env_steps:,} env_steps: {learner.lateness()}; {learner.utd:.2f} of "
                f"{target} updates a step"
            )
        )

    def facts(self) -> dict[str, object]:
        """Return what a run's manifest says of its clock."""
        control, learner = self._run.recipe.run.control, self._learner
        assert control is not None
        return {
            "control": {
                "hz": control.hz,
                "returns": "of the episodes that ended since the row before",
                **learner.lateness().facts(),
                "tolerance_ms": control.tolerance_ms,
                **self._measured(),
                "utd": learner.intake.plan.utd,
                "utd_reached": round(learner.utd, 4),
                "versions": learner.version,
            }
        }

    def _measured(self) -> dict[str, float]:
        """Return what deciding on an action took, where anything has acted."""
        names = ("decides_median_ms", "decides_p99_ms")
        found = self._latency_ms or ()
        return {name: round(ms, 3) for name, ms in zip(names, found, strict=False)}


def _rounded_down(rate: float) -> float:
    """Return a rate of two digits that is no higher."""
    step = 10.0 ** (np.floor(np.log10(rate)) - 1)
    return float(np.floor(rate / step) * step)

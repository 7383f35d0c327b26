"""A run in progress: its parts, its counters, and what happens at every evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Batch, Spec
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.phases.busy import Busy
from baq_cli.engine.phases.counts import Counts
from baq_cli.engine.phases.diagnostics import Diagnostics
from baq_cli.engine.phases.evaluations import Evaluating, Evaluations, Pending, player_of
from baq_cli.engine.phases.faults import Faults
from baq_cli.engine.phases.going import Going
from baq_cli.engine.phases.guard import Guard
from baq_cli.engine.phases.origin import Origin
from baq_cli.engine.phases.outlook import Outlook
from baq_cli.engine.phases.timing import Laps
from baq_cli.engine.updates.learner import Learner
from baq_cli.errors import Interrupted
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Evaluated, Observer
from baq_cli.runs.folder import RunDirectory
from baq_cli.runs.history import History
from baq_cli.runs.interrupt import Interruption
from baq_cli.runs.log import Log, Row
from baq_cli.runs.trackers.hub import Trackers
from baq_cli.units import Phase

METRICS_EVERY = 100
"""Gradient steps between two readings of the metrics: each one waits for the device."""

Array = npt.NDArray[Any]


@dataclass
class Run:
    """One phase of S seeds, on its way.

    The `estimator` measures policies in the place of episodes where there is no environment. An
    online run `from_scratch` continues no checkpoint, so its warm-up acts at random.
    Counters: `gradient_steps` of the learner (over both phases), `env_steps` and `episodes [S]`
    of the online phase.
    """

    recipe: Recipe
    phase: Phase
    origin: Origin
    agent: Agent
    inputs: Inputs
    learner: Learner
    directory: RunDirectory
    observer: Observer
    interruption: Interruption
    estimator: Evaluating | None = None
    history: History = field(default_factory=History)
    env_steps: int = 0
    from_scratch: bool = False

    def __post_init__(self) -> None:
        spec = self.agent.spec
        self.streams = {
            name: SeedStream(spec.seeds, f"{name}/{self.phase}", spec.device)
            for name in ("batch", "explore")
        }
        plan = self.learner.plan
        if plan.first or plan.routines:
            self.streams["routine"] = SeedStream(spec.seeds, f"routine/{self.phase}", spec.device)
        self.episodes = np.zeros(len(spec.seeds), dtype=np.int64)
        self.counts = Counts(self.recipe, self.phase, self.origin.rules)
        restarts = self.recipe.run.env_restarts
        self.faults = Faults(
            *(self.directory.path, self.phase, spec.seeds, restarts), self.observer
        )
        evaluator = self.estimator or player_of(
            *(self.recipe, self.phase, self.agent, self.origin, self.inputs),
            self.observer,
        )
        self.evaluations = Evaluations(
            *(self.phase, self.agent, evaluator, self.faults),
            stop=lambda: self.interruption.requested is not None,
        )
        self.guard = Guard(self.recipe.run.guard, self.learner, self.observer)
        self.laps = Laps()
        self.diagnostics = Diagnostics(spec.seeds)
        self.trackers = Trackers(self.recipe, self.directory.path, self.observer)
        self.last_saved: Path | None = None
        self._batch: Batch | None = None
        of_run = self.recipe, self.phase, self.agent, self.origin, self.evaluations.in_background
        busy = Busy(self.recipe, self.spec, self.phase)
        steps = self.learner.gradient_steps
        self.going = Going(*(self.phase, self.laps, steps, Outlook(*of_run), busy), self.observer)

    @property
    def spec(self) -> Spec:
        return self.agent.spec

    # -- between updates

    def after_update(self, batch: Batch) -> None:
        """Read metrics now and then.

        Raises NonFiniteError when a loss has become NaN or infinite.
        """
        self._batch = batch
        steps = self.learner.gradient_steps
        if self.spec.device.type == "cpu" or steps % METRICS_EVERY == 0:
            self.faults.check_losses(self.learner.metrics, batch, steps)
        if steps % METRICS_EVERY:
            return
        found = {**self.learner.metrics, **self.agent.diagnose(batch)}
        self.diagnostics.add(found)

    def tick(self, done: int, total: int) -> None:
        """Report progress twice a second."""
        steps, taken_over = self.learner.gradient_steps, self.counts.taken.share(done)
        self.going.tick(done, total, steps, taken_over)

    # -- at evaluations

    def evaluate(self, done: int, wait: bool = True) -> None:
        """Evaluate all seeds, log the rows, tell the observer.

        With `wait=False` and a background evaluator the rows come later: with the next evaluation,
        or before the next checkpoint of other parameters. When the run is asked to stop meanwhile,
        they come once it goes on.
        Raises NonFiniteError when a loss has become NaN or infinite.
        """
        if self._batch is not None:
            self.faults.check_losses(self.learner.metrics, self._batch, self.learner.gradient_steps)
        self.collect()
        self.evaluations.begin(done, self.counters())
        self.log_diagnostics()
        if wait or self.guard.is_on or not self.evaluations.in_background:
            self.collect()

    def collect(self) -> None:
        """Wait for the evaluations that have begun, and log them."""
        while found := self.evaluations.end():
            self.log_evaluation(*found)

    def counters(self) -> list[Row]:
        """Return what is known of an evaluation before its episodes, a row a seed."""
        return [
            {
                "phase": self.phase,
                "seed": seed,
                "gradient_steps": self.learner.gradient_steps,
                "env_steps": self.env_steps,
                "episodes": int(self.episodes[i]),
                "wall_seconds": round(self.laps.in_all, 3),
            }
            for i, seed in enumerate(self.spec.seeds)
        ]

    def log_evaluation(self, pending: Pending, returns: Array, lengths: Array | None) -> None:
        rows = self.history.add(pending.counters, returns, lengths)
        self._log("metrics", rows)
        self.observer(Evaluated(self.phase, pending.done, returns, lengths is None))
        if self.phase == "online":
            self.guard.evaluated(pending.done, returns)

    def inherit_history(self, rows: list[Row]) -> None:
        """Begin with the evaluations of the checkpoint that this run fine-tunes."""
        self._log("metrics", self.history.inherit(rows, self.spec.seeds))

    def log_diagnostics(self) -> None:
        counters = {
            "phase": self.phase,
            "gradient_steps": self.learner.gradient_steps,
            "env_steps": self.env_steps,
        }
        self.counts.taken.note(self.env_steps)
        rows = [counters | row for row in (*self.diagnostics.take(), *self.counts.rows())]
        self._log("diagnostics", rows)

    def _log(self, log: Log, rows: list[Row]) -> None:
        self.directory.append(log, rows)
        self.trackers.log(log, rows)

    # -- at the end

    def finish(self, facts: Mapping[str, Any] | None = None) -> None:
        """Note the end of the run, and these facts of it."""
        seconds = {name: round(spent, 3) for name, spent in self.laps.seconds.items()}
        found = self.guard.facts() | self.counts.facts(self.env_steps) | dict(facts or {})
        share = self.laps.evaluated_share
        spent = {"seconds_of_last_session": seconds, "evaluations_share_of_last_session": share}
        self.directory.finish(spent | found)
        self.trackers.close(done=True)

    def close(self) -> None:
        """Let go of the evaluation's environments and the trackers, done or not."""
        self.evaluations.close()
        self.trackers.close(done=False)

    def stop_if_asked(self, resume_command: str) -> None:
        """Raise Interrupted or LimitReached, after the checkpoint was written, when it is asked."""
        if self.interruption.requested:
            self.counts.limited.stop_if_reached(self.directory, self.env_steps, resume_command)
            raise Interrupted(
                f"stopped by {self.interruption.requested}; everything is saved. "
                f"Continue with:\n  {resume_command}"
            )

"""The transitions of an online phase, on their way to the run's folder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.filecard import card_of_env
from baq_cli.engine.checkpoints.folder import Checkpoint
from baq_cli.engine.collection.from_run import RECORDED_IN
from baq_cli.engine.evaluation.evaluator import env_seed
from baq_cli.engine.phases.episodes import RunningEpisodes
from baq_cli.engine.phases.run import Run
from baq_cli.errors import DataError, Unreadable
from baq_cli.runs.checkpoints import DAMAGED, free_name
from baq_cli.runs.events import Note
from baq_cli.runs.files import disk_errors
from baq_cli.runs.transitions import NAME, Layout, TransitionLog

Array = npt.NDArray[Any]
STATE = "transitions"
WAIT_SECONDS, MOST_STEPS = 1.0, 1_000
"""Steps wait in memory so long, or until they are so many, before they are written together."""

_ARRAYS = (
    *("episode", "obs", "action", "proposed", "reward", "next_obs"),
    *("terminated", "truncated", "intervention", "success", "limits"),
)
"""The fields of a step that have a row a seed."""


class _Step(NamedTuple):
    """A step of S seeds, as the loop had it; the names are those of a record's fields."""

    env_step: int
    policy_version: int
    episode: Array
    obs: Array
    action: Array
    executed: Array | None
    proposed: Array
    reward: Array
    next_obs: Array
    terminated: Array
    truncated: Array
    intervention: Array
    success: Array
    limits: Array


class Recorder:
    """Keeps what S environments did in the run's `transitions.bin`, a record a seed and step.

    What is on disk is what the environments gave and were given: raw observations and rewards,
    actions in the environment's own digits where it did other than it was asked to. A checkpoint
    knows how many records there were, and a resume cuts what came after. Without the recipe's
    `keep_transitions` nothing is kept.
    """

    def __init__(self, run: Run, episodes: RunningEpisodes):
        self._run, self._episodes = run, episodes
        spec, self._path = run.spec, run.directory.path / NAME
        self._layout = Layout(spec.obs_dim, spec.action_dim, spec.seeds)
        self._log: TransitionLog | None = None
        self._left: int | None = None
        self._waiting: list[_Step] = []
        self._since = time.monotonic()
        self._episode = np.full(len(spec.seeds), -1, dtype=np.int64)
        self._steps = np.zeros(len(spec.seeds), dtype=np.int64)
        self.proposed: Array | None = None
        """What the policy asked for in the step under way, `[S, action_dim]`, where it is known."""

    def begin(self) -> None:
        """Start the file."""
        if self._run.recipe.run.keep_transitions:
            card = card_of_env(self._episodes.pool.made)
            self._run.directory.add_to_manifest({RECORDED_IN: card})
            self._log = TransitionLog.create(self._path, self._layout)

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint, whose episodes are running again.

        Where it knows of no transitions, or the file is gone or damaged, one is begun, which is
        said. A run that keeps no more of them leaves those that it has kept.
        """
        run, known = self._run, saved.state.get(STATE)
        there = known is not None and self._reopened(known)
        self._episode, self._steps = run.episodes.copy(), self._episodes.lengths
        if not run.recipe.run.keep_transitions:
            self._left = known if there else None
            self.close()
        elif not there:
            self.begin()
            if run.env_steps:
                what = f"it has no transitions of the first {run.env_steps:,} env_steps"
                run.observer(Note(f"{self._path} is begun here: {what}"))

    def _reopened(self, count: int) -> bool:
        """Go on with the file's first records, so many; return whether it has them.

        One that hasn't is put aside: the run needs it for nothing.
        """
        if not self._path.exists():
            return False
        try:
            self._log = TransitionLog.open(self._path, self._layout)
            self._log.cut(count)
            return True
        except Unreadable:  # it may be whole
            raise
        except DataError as error:
            self.close()
            aside = free_name(self._path.with_name(f"{DAMAGED}{self._path.name}"))
            with disk_errors(f"rename {self._path}"):
                os.rename(self._path, aside)
            self._run.observer(Note(f"{error} It is kept as {aside}"))
            return False

    def add(
        self,
        asked: Array,
        reward: Array,
        ends: tuple[Array, Array],
        by: Array,
        marks: Array | None = None,
    ) -> None:
        """Keep the pool's last step, before the episodes that it ends are closed.

        asked `[S, action_dim]`: what the environments were asked to do; reward `[S]` raw; ends:
        terminated and truncated, `[S]`; by `[S]`: who decided, and marks `[S]` of success, as
        `runs/transitions.py` has them.
        """
        if self._log is None:
            return
        run, pool = self._run, self._episodes.pool
        self._waiting.append(
            _Step(
                *(run.env_steps - 1, run.learner.gradient_steps, run.episodes.copy()),
                *(pool.before, pool.last.action, pool.last.executed),
                *(asked if self.proposed is None else self.proposed, reward, pool.given, *ends),
                *(by, np.zeros_like(by, dtype=np.int8) if marks is None else marks.copy()),
                pool.last.limits_acted,
            )
        )
        self.proposed = None
        full = len(self._waiting) >= MOST_STEPS
        if full or time.monotonic() - self._since > WAIT_SECONDS:
            self._write()

    def state(self) -> dict[str, int]:
        """Return how many records the disk has, for a checkpoint, once it has them all."""
        if self._log is None:
            return {} if self._left is None else {STATE: self._left}
        self._write()
        self._log.sync()
        return {STATE: self._log.count}

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        if self._log is not None:
            self._write()
            self._log.close()
            self._log = None

    def _write(self) -> None:
        waiting, self._waiting, self._since = self._waiting, [], time.monotonic()
        if self._log is not None and waiting:
            self._log.extend(self._records(waiting).reshape(-1))

    def _records(self, steps: Sequence[_Step]) -> Array:
        """Return the records of N steps, `[N, S]`."""
        records = np.zeros((len(steps), len(self._layout.seeds)), self._layout.record)
        for name in ("env_step", "policy_version"):
            records[name] = [[getattr(step, name)] for step in steps]
        for name in _ARRAYS:
            records[name] = np.stack([getattr(step, name) for step in steps])
        unsaid = np.full_like(records["executed"][0], np.nan)
        records["executed"] = [unsaid if s.executed is None else s.executed for s in steps]
        records["seed_index"] = np.arange(len(self._layout.seeds))
        self._number(records)
        return records

    def _number(self, records: Array) -> None:
        """Fill in where in their episodes steps are, and where those started."""
        episode = records["episode"]
        row = np.arange(len(episode))[:, None]
        new = episode != np.concatenate([self._episode[None], episode[:-1]])
        first = np.maximum.accumulate(np.where(new, row, -1), axis=0)
        steps = np.where(first < 0, self._steps + row, row - first)
        records["step_in_episode"] = steps
        self._episode, self._steps = episode[-1].copy(), steps[-1] + 1
        for i, seed in enumerate(self._layout.seeds):
            numbers, which = np.unique(episode[:, i], return_inverse=True)
            starts = np.array([env_seed(seed, "env", number) for number in numbers.tolist()])
            records["start_seed"][:, i] = starts[which]

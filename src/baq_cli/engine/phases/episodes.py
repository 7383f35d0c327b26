"""The episodes that a fine-tuning is in, and the environments that they are in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.engine.checkpoints.folder import Checkpoint
from baq_cli.engine.evaluation.acting import ActionQueue
from baq_cli.engine.evaluation.evaluator import env_seed
from baq_cli.engine.experience.store import Store
from baq_cli.engine.phases.endings import Endings
from baq_cli.engine.phases.repeating import RunningEpisode, repeat_actions
from baq_cli.engine.phases.run import Run
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.envs.pool import EnvPool, seconds_a_step
from baq_cli.errors import Interrupted
from baq_cli.machine import usable_cores
from baq_cli.runs.events import Note

Array = npt.NDArray[Any]
Result = TypeVar("Result")
SLOW_STEP_SECONDS = 2e-3
"""All seeds' steps one after the other, from which handing them to processes pays."""


class RunningEpisodes:
    """The episodes that S seeds are in, stepped together, and the environments they are in.

    `obs [S, obs_dim]` is where they are, NaN where an environment waits to be reset. `action
    [S, action_dim]` was chosen there and led to nothing that is stored yet; None when none was.
    `queue` holds what was decided on ahead.
    Environments that fail are made anew; raises EnvironmentMismatch when they do so too often, and
    NonFiniteError for a first observation that is not finite.
    """

    def __init__(self, run: Run, online: Store):
        self._run, self._endings = run, Endings(run, online)
        self._running: list[RunningEpisode] = []
        self.pool = make_pool(run)
        self.obs: Array = np.empty(0)
        self.action: Array | None = None
        spec = run.spec
        self.queue = ActionQueue(len(spec.seeds), run.agent.chunk, spec.action_dim)

    @property
    def have_begun(self) -> bool:
        return bool(self._running)

    @property
    def lengths(self) -> Array:
        """How many steps each episode has taken, `[S]`."""
        return np.array([len(episode.actions) for episode in self._running])

    def start(self) -> None:
        """Reset every environment for its first episode.

        Raises Interrupted when they fail while the run is being stopped.
        """
        self._running = self._next()
        self.obs = self._insist(self._reset)

    def append(self, action: Array, reward: Array, next_obs: Array, slot: int) -> None:
        """Go on to where the pool's last step led, which did `action [S, action_dim]`.

        The transition lies in a slot of the online store.
        """
        for i, episode in enumerate(self._running):
            episode.append(action[i], self.pool.last.executed_by(i), float(reward[i]), slot)
        self.obs, self.action = next_obs, None
        self.queue.done()
        self._see_limits(self._run.env_steps + 1)

    def end(self, over: Array, terminated: Array, cut: bool = False) -> None:
        """End the episodes that are over, `[S]`, all or some `cut` short, and begin others."""
        if not over.any():
            return
        short = over & (self.pool.last.cut | cut)
        self._close(short, terminated, cut=True)
        self._close(over & ~short, terminated, cut=False)
        try:
            self.obs = self._reset(over)
        except EnvironmentFault as fault:
            self.begin_anew(fault)

    def begin_anew(self, fault: EnvironmentFault) -> None:
        """Make environments that failed anew.

        The step that failed leaves no transition. Which environment broke is not always known, so
        every running episode ends where it was stored, as if truncated, and another begins. Not so
        while the run is being stopped: a signal that ended the environments too costs no episode,
        for the run that is resumed repeats them.
        """
        begun = self._begun()
        try:
            _refuse_while_stopping(self._run, fault)
            self.action = None
            self.queue.drop()
            self._close(begun, np.zeros_like(begun), cut=True)
            self.pool = _renewed(self._run, self.pool, fault)
            self.obs = self._insist(self._reset)
        except Interrupted as stopped:
            self._run.observer(Note(str(stopped)))

    def _insist(self, act: Callable[[], Result]) -> Result:
        """Return what a call returns; environments that fail are made anew before the next try."""
        while True:
            try:
                return act()
            except EnvironmentFault as fault:
                self.pool = _renewed(self._run, self.pool, fault)

    def _begun(self) -> Array:
        """Return which episodes have taken a step, `[S]`."""
        return self.lengths > 0

    def _close(self, over: Array, terminated: Array, cut: bool) -> None:
        """Let those who care see what ended, and note the episodes that take their place."""
        if not over.any():
            return
        self._endings.note(self._running, over, terminated, cut)
        self.queue.drop(over)
        self._running = [
            new if o else old for new, old, o in zip(self._next(), self._running, over, strict=True)
        ]
        self.obs = np.where(over[:, None], np.nan, self.obs)

    def _next(self) -> list[RunningEpisode]:
        pairs = zip(self._run.spec.seeds, self._run.episodes.tolist(), strict=True)
        return [RunningEpisode(env_seed(seed, "env", number)) for seed, number in pairs]

    def _reset(self, mask: Array | None = None) -> Array:
        """Return observations, `[S, obs_dim]`, after resetting the masked environments, or all."""
        obs = self.pool.reset([episode.start_seed for episode in self._running], mask)
        self._run.faults.check_transition({"observation": obs}, self._run.env_steps)
        self._see_limits(self._run.env_steps)
        return obs

    def _see_limits(self, env_steps: int) -> None:
        run = self._run
        if self.pool.limits is not None:
            told = self.pool.limits.take(), env_steps
            run.counts.limited.tell(*told, run.interruption, run.observer)

    def close(self) -> None:
        """Let go of the environments."""
        self.pool.close()

    # -- checkpoints

    def state(self) -> list[dict[str, Any]]:
        """Return where each episode started and is stored, for a checkpoint."""
        return [episode.state() for episode in self._running]

    def tensors(self) -> dict[str, Tensor]:
        """Return where the episodes are, and the actions that led there."""
        tensors = {"obs": torch.from_numpy(self.obs), **self.queue.tensors()}
        if self.action is not None:
            tensors["action"] = torch.from_numpy(self.action)
        for i, episode in enumerate(self._running):
            tensors |= {f"running.{i}.{name}": t for name, t in episode.tensors().items()}
        return tensors

    def limits_state(self) -> dict[str, Any]:
        """Return how near the environments are to their limits, for a checkpoint."""
        return {} if self.pool.limits is None else {"limits_near": self.pool.limits.state()}

    def restore(self, saved: Checkpoint) -> None:
        """Go on with the episodes of a checkpoint, whose transitions are in the store.

        An episode is rebuilt by resetting with its seed and repeating its actions, because a
        simulator's inner state can't be read in general. One that doesn't come to the same
        observation ends where it was stored, as if truncated, and another begins.
        Raises Interrupted when the environments fail while the run is being stopped.
        """
        for i, kept in enumerate(saved.state["running"]):
            prefix = f"running.{i}."
            own = {
                n.removeprefix(prefix): t for n, t in saved.replay.items() if n.startswith(prefix)
            }
            self._running.append(RunningEpisode.restored(kept, own))
        if "action" in saved.replay:
            self.action = saved.replay["action"].numpy()
        self.queue.restore(saved.replay)
        self.obs, stray = self._insist(lambda: repeat_actions(self.pool, self._running))
        if self.pool.limits is not None:
            last = np.stack([episode.last_done(self.pool.spaces) for episode in self._running])
            self.pool.limits.restore(saved.state.get("limits_near"), last)
        before = saved.replay["obs"].numpy()
        self._end_strays(stray | ((self.obs != before) & ~np.isnan(before)).any(axis=1))

    def _end_strays(self, stray: Array) -> None:
        """End the episodes whose environment is not where it was, and say so."""
        if not stray.any():
            return
        self.action = None
        self.queue.drop(stray)
        seeds = [seed for seed, s in zip(self._run.spec.seeds, stray, strict=True) if s]
        self._run.observer(
            Note(
                f"'{self.pool.env.id}' doesn't repeat itself: with the same seed and actions it "
                f"came elsewhere (seeds {seeds}). Their episodes end here, new ones begin."
            )
        )
        begun = stray & self._begun()  # of the others the start is all that differs
        self.end(begun, np.zeros_like(begun), cut=True)


def make_pool(run: Run) -> EnvPool:
    """Make the environments of a run, one a seed."""
    timeout = run.recipe.run.env_timeout_seconds
    return EnvPool(
        *(run.origin.acts_in, len(run.spec.seeds), _in_workers(run), timeout), run.origin.rules
    )


def _renewed(run: Run, pool: EnvPool, fault: EnvironmentFault) -> EnvPool:
    """Return environments in place of some that failed.

    Raises EnvironmentMismatch when that has happened too often, and Interrupted when they failed
    while everything was being stopped.
    """
    while True:
        _refuse_while_stopping(run, fault)
        run.faults.failed(fault, run.env_steps)
        pool.abandon()
        try:
            return pool.again()
        except EnvironmentFault as again:
            fault = again


def _refuse_while_stopping(run: Run, fault: EnvironmentFault) -> None:
    """Raise Interrupted when environments failed while the run is being stopped."""
    if run.interruption.requested:
        raise Interrupted(
            f"stopped by {run.interruption.requested}, and the environments ended with it "
            f"({fault}). --resume goes on from the last checkpoint in {run.directory.path}."
        )


def _in_workers(run: Run) -> bool:
    """Whether the environments step in processes: as the recipe says, or when they are slow."""
    asked, seeds = run.recipe.run.env_workers, len(run.spec.seeds)
    if run.recipe.run.env_timeout_seconds is not None:
        return True  # only another process can be given up
    if asked is not None:
        return asked
    if usable_cores() == 1 or (seeds == 1 and not run.recipe.run.overlap):
        return False
    return seeds * seconds_a_step(run.origin.acts_in) > SLOW_STEP_SECONDS

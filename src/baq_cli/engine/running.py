"""The episodes that a fine-tuning is in, and the environments that they are in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.engine.run import Run
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.envs.pool import EnvPool, seconds_a_step
from baq_cli.errors import Interrupted

Array = npt.NDArray[Any]
SLOW_STEP_SECONDS = 2e-3
"""All seeds' steps one after the other, from which handing them to processes pays."""


@dataclass
class RunningEpisode:
    """The episode that one seed is in: where it started, what was done, where it is stored."""

    start_seed: int
    actions: list[Array] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)


def repeat_actions(pool: EnvPool, running: Sequence[RunningEpisode]) -> tuple[Array, Array]:
    """Step all environments until the longest running episode is where it was.

    Shorter episodes start later, so that every environment ends at its own last step. Returns
    the observations there, `[S, obs_dim]`, and which episodes were over before that, `[S]`: their
    environments don't repeat themselves.
    """
    lengths = np.array([len(episode.actions) for episode in running])
    longest = int(lengths.max())
    seeds = [episode.start_seed for episode in running]
    idle = np.zeros(pool.spaces.action_dim, dtype=np.float32)
    obs = pool.reset(seeds)
    stray = np.zeros(len(running), dtype=np.bool_)
    for t in range(longest):
        begin = lengths == longest - t
        if begin.any():
            obs = pool.reset(seeds, begin)
        at = t - (longest - lengths)
        action = np.stack(
            [e.actions[k] if k >= 0 else idle for e, k in zip(running, at, strict=True)]
        )
        obs, _, terminated, truncated = pool.step(action)
        over = terminated | truncated
        stray |= over & (at >= 0)  # the others were idle, and fell over
        if over.any():
            obs = pool.reset(seeds, over)
    if longest and (lengths == 0).any():
        obs = pool.reset(seeds, lengths == 0)
    return obs, stray


def make_pool(run: Run) -> EnvPool:
    """Make the environments of a run, one a seed."""
    timeout = run.recipe.run.env_timeout_seconds
    return EnvPool(run.origin.env_id, len(run.spec.seeds), _in_workers(run), timeout)


def renewed(run: Run, pool: EnvPool, fault: EnvironmentFault) -> EnvPool:
    """Return environments in place of some that failed.

    Raises EnvironmentMismatch when that has happened too often, and Interrupted when they failed
    while everything was being stopped.
    """
    while True:
        if run.interruption.requested:
            raise Interrupted(
                f"stopped by {run.interruption.requested}, and the environments ended with it "
                f"({fault}). --resume goes on from the last checkpoint in {run.directory.path}."
            )
        run.faults.failed(fault, run.env_steps)
        pool.abandon()
        try:
            return make_pool(run)
        except EnvironmentFault as again:
            fault = again


def _in_workers(run: Run) -> bool:
    """Whether the environments step in processes: as the recipe says, or when they are slow."""
    asked, seeds = run.recipe.run.env_workers, len(run.spec.seeds)
    if run.recipe.run.env_timeout_seconds is not None:
        return True  # only another process can be given up
    if asked is not None:
        return asked
    if (os.cpu_count() or 1) == 1 or (seeds == 1 and not run.recipe.run.overlap):
        return False
    return seeds * seconds_a_step(run.origin.env_id) > SLOW_STEP_SECONDS

"""An evaluation by several processes, where it is long enough to be worth starting them."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.agents.base import Agent
from baq_cli.engine.evaluation.background import (
    BackgroundEvaluator,
    Setting,
    SnapshotEvaluator,
    acting_tensors,
)
from baq_cli.envs.limits import DEFAULT_LIMIT
from baq_cli.envs.pool import seconds_a_step
from baq_cli.machine import usable_cores
from baq_cli.runs.events import Observer

Array = npt.NDArray[Any]
WORTH_SECONDS, WORTH_STEPS = 20.0, 5_000
"""What an evaluation takes at most on one core, from which others are started for it."""


def processes_for(setting: Setting, limit: int | None) -> int:
    """Return how many processes an evaluation is worth here: one, or one a usable CPU.

    Its episodes end after `limit` env_steps, where the environment says one.
    """
    cores, episodes = usable_cores(), setting.recipe.run.evaluation.episodes
    steps = len(setting.spec.seeds) * episodes * (limit or DEFAULT_LIMIT)
    if cores == 1 or steps < WORTH_STEPS:
        return 1
    return cores if steps * seconds_a_step(setting.env) > WORTH_SECONDS else 1


def evaluate_together(
    setting: Setting, agent: Agent, number: str, processes: int, observer: Observer
) -> tuple[Array, Array]:
    """Return what `Evaluator.evaluate` does, by so many processes, this one among them."""
    acting = acting_tensors(agent)
    with ExitStack() as stack:
        players: list[BackgroundEvaluator | SnapshotEvaluator] = [
            stack.enter_context(closing(BackgroundEvaluator(one, observer)))
            for one in (replace(setting, share=(i, processes)) for i in range(1, processes))
        ]
        own = SnapshotEvaluator(replace(setting, share=(0, processes)))
        players.insert(0, stack.enter_context(closing(own)))  # the one that is waited for first
        found = []
        for player in players:
            player.begin(acting, number)
        for player in players:
            played = player.end(lambda: False)
            assert played is not None
            found.append(played)
    returns, lengths = (np.sum(parts, axis=0) for parts in zip(*found, strict=True))
    return returns, lengths

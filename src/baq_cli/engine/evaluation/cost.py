"""About how long evaluations take, from a short measurement of their parts."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from baq_cli.agents.base import Agent
from baq_cli.nets.streams import EpisodeNoise
from baq_cli.recipes.schema import Recipe
from baq_cli.units import Phase

EVALUATIONS, WIDTH = 10, 10
"""A phase's evaluations where a recipe doesn't say, and how many episodes are side by side."""
MEASURED_SECONDS = 0.1
"""How long a part is measured: long enough for a guess, short enough where there are many."""


def interval(recipe: Recipe, phase: Phase) -> int:
    """Return after how many steps of the phase's unit its policy is evaluated."""
    run, evaluation = recipe.run, recipe.run.evaluation
    every, total = evaluation.every_env_steps, run.env_steps
    if phase == "offline":
        every, total = evaluation.every_gradient_steps, run.gradient_steps
    return every or max(1, total // EVALUATIONS)


def evaluations_left(done: int, total: int, every: int) -> int:
    """Return how many evaluations come after `done` of a phase's `total`, the last one at its end.

    One that is due at `done` itself has been made.
    """
    return 0 if done >= total else -(-total // every) - done // every


def evaluation_seconds(
    recipe: Recipe,
    agent: Agent,
    step_seconds: float,
    length: float,
    measured: float = MEASURED_SECONDS,
) -> float:
    """Return the seconds of an evaluation: all seeds' episodes of `length` env_steps.

    Acting is measured for `measured` seconds.
    """
    episodes, seeds = recipe.run.evaluation.episodes, len(recipe.run.seeds)
    width = min(WIDTH, episodes)
    turns = -(-episodes // width)
    return length * (
        episodes * seeds * step_seconds + turns * acting_seconds(agent, width, measured)
    )


def acting_seconds(agent: Agent, width: int, seconds: float = MEASURED_SECONDS) -> float:
    """Return the seconds in which an agent decides for `width` episodes of each seed."""
    spec = agent.spec
    obs = torch.zeros(len(spec.seeds), width, spec.obs_dim, device=spec.device)
    noise = EpisodeNoise(spec.seeds, width, "act/estimate", spec.device)
    with torch.no_grad():
        return seconds_of(lambda: agent.act(obs, noise), seconds)


def seconds_of(call: Callable[[], object], seconds: float = MEASURED_SECONDS) -> float:
    """Return the seconds of a call, after one that isn't counted, measured for so long."""
    call()
    started, count, spent = time.perf_counter(), 0, 0.0
    while spent < seconds:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        count += 1
        spent = time.perf_counter() - started
    return spent / count

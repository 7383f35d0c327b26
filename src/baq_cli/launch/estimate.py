"""About how long a comparison will take, from a short measurement of each cell's parts."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from functools import cache

import torch

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.data.episodes import Episodes
from baq_cli.engine.phases.origin import environment_on
from baq_cli.engine.updates.device import on_threads, prepare
from baq_cli.engine.updates.synthetic import synthetic_updater
from baq_cli.engine.updates.updater import Updater
from baq_cli.envs.pool import seconds_a_step
from baq_cli.launch.cells import Cell
from baq_cli.nets.streams import EpisodeNoise
from baq_cli.recipes.load import resolve
from baq_cli.recipes.schema import Recipe
from baq_cli.units import Phase

MEASURED_SECONDS = 0.3
"""How long each part is measured: long enough for a guess, short enough for many cells."""
STARTING_SECONDS = 10.0
"""A process, its imports, opening the data: a phase."""
EVALUATIONS = 10
"""A phase's evaluations where a recipe doesn't say."""

_step_seconds = cache(seconds_a_step)


def estimate(cell: Cell, episodes: Episodes, threads: int) -> float:
    """Return about how many seconds a cell takes on this machine, all its seeds.

    Updates (not recorded yet, so a little slow), acting and the environment's step are measured;
    evaluations are taken to last as long as the dataset's episodes. What saving costs, and what
    cells side by side take from each other, is left out.
    """
    recipe = resolve([cell.recipe], method_configs())
    method, run = METHODS[recipe.run.algo], recipe.run
    spaces = episodes.spaces
    device = prepare(run.device, None)
    spec = Spec(run.seeds, spaces.obs_dim, spaces.action_dim, (0.0, 1.0), device)
    step_seconds = _step_seconds(environment_on(recipe, episodes, lambda event: None))
    length = float(episodes.lengths.mean())
    total = 0.0
    with on_threads(recipe.run.threads or threads):
        if method.learns_offline:
            updater = synthetic_updater(recipe, spec, "offline")
            evaluation = _evaluation(recipe, updater.learner.agent, step_seconds, length)
            count = _evaluations(recipe, "offline")
            total += STARTING_SECONDS + count * evaluation
            total += run.gradient_steps * _seconds(updater.step)
        if method.learns_online:
            updater = synthetic_updater(recipe, spec, "online")
            total += STARTING_SECONDS + _online(recipe, updater, step_seconds)
            evaluation = _evaluation(recipe, updater.learner.agent, step_seconds, length)
            total += (1 + _evaluations(recipe, "online")) * evaluation
    return total


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of `workers` is done, if each takes the next cell in order."""
    free = [0.0] * max(1, workers)
    for cell in seconds:
        heapq.heapreplace(free, free[0] + cell)
    return max(free)


def _online(recipe: Recipe, updater: Updater, step_seconds: float) -> float:
    agent, plan = updater.learner.agent, updater.learner.plan
    steps, seeds = recipe.run.env_steps, len(recipe.run.seeds)
    updates = max(0, steps - plan.warmup_env_steps) * plan.utd
    acting = _acting(agent, 1)
    return steps * (seeds * step_seconds + acting) + updates * _seconds(updater.step)


def _evaluation(recipe: Recipe, agent: Agent, step_seconds: float, length: float) -> float:
    """Return the seconds of an evaluation: all seeds' episodes, ten side by side."""
    episodes, seeds = recipe.run.evaluation.episodes, len(recipe.run.seeds)
    width = min(10, episodes)
    turns = -(-episodes // width)
    return length * (episodes * seeds * step_seconds + turns * _acting(agent, width))


def _acting(agent: Agent, width: int) -> float:
    spec = agent.spec
    obs = torch.zeros(len(spec.seeds), width, spec.obs_dim, device=spec.device)
    noise = EpisodeNoise(spec.seeds, width, "act/estimate", spec.device)
    with torch.no_grad():
        return _seconds(lambda: agent.act(obs, noise))


def _evaluations(recipe: Recipe, phase: Phase) -> int:
    run, evaluation = recipe.run, recipe.run.evaluation
    if phase == "offline":
        every, total = evaluation.every_gradient_steps, run.gradient_steps
    else:
        every, total = evaluation.every_env_steps, run.env_steps
    return EVALUATIONS if every is None else -(-total // every)


def _seconds(call: Callable[[], object]) -> float:
    """Return the seconds of a call, after one that isn't counted."""
    call()
    started, count, spent = time.perf_counter(), 0, 0.0
    while spent < MEASURED_SECONDS:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        count += 1
        spent = time.perf_counter() - started
    return spent / count

"""About how long a comparison will take, from a short measurement of each cell's parts."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping, Sequence
from functools import cache

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.data.episodes import Episodes
from baq_cli.engine.evaluation.cost import (
    MEASURED_SECONDS,
    acting_seconds,
    evaluation_seconds,
    evaluations_left,
    interval,
    seconds_of,
)
from baq_cli.engine.phases.origin import environment_on
from baq_cli.engine.updates.device import on_threads, prepare
from baq_cli.engine.updates.synthetic import synthetic_updater
from baq_cli.engine.updates.updater import Updater
from baq_cli.envs.pool import seconds_a_step
from baq_cli.errors import BaqError
from baq_cli.launch.cell_runs import recipe_of
from baq_cli.launch.cells import Cell
from baq_cli.recipes.load import resolve
from baq_cli.recipes.schema import Recipe

BRIEFLY = 0.05
"""How long each part is measured where there are many cells, and nobody asked."""
FIRST_SECONDS, SHORT_STEPS = 3.0, 5_000
"""How long cells are measured before a comparison begins, and how many steps it must have."""
STARTING_SECONDS = 10.0
"""A process, its imports, opening the data: a phase."""

_step_seconds = cache(seconds_a_step)


def estimate(
    cell: Cell, episodes: Episodes, threads: int, measured: float = MEASURED_SECONDS
) -> float:
    """Return about how many seconds a cell takes on this machine, all its seeds.

    Each part is measured for `measured` seconds.
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
            agent = updater.learner.agent
            evaluation = evaluation_seconds(recipe, agent, step_seconds, length, measured)
            count = evaluations_left(0, run.gradient_steps, interval(recipe, "offline"))
            total += STARTING_SECONDS + count * evaluation
            total += run.gradient_steps * seconds_of(updater.step, measured)
        if method.learns_online:
            updater = synthetic_updater(recipe, spec, "online")
            agent = updater.learner.agent
            total += STARTING_SECONDS + _online(recipe, updater, step_seconds, measured)
            evaluation = evaluation_seconds(recipe, agent, step_seconds, length, measured)
            count = evaluations_left(0, run.env_steps, interval(recipe, "online"))
            total += (1 + count) * evaluation
    return total


def about(
    cells: Sequence[Cell], work: Sequence[float], data: Mapping[str, Episodes], threads: int
) -> list[float] | None:
    """Return about how many seconds each cell takes, without spending many on that.

    `work` is what each cell's updates cost. Cells are measured in the order given for a moment, and
    the others are taken to be as fast for their work. None for a comparison so short that measuring
    it isn't worth it, and where a cell can't be measured: why not, its run will say.
    """
    runs = [recipe_of(cell).run for cell in cells]
    if sum(run.gradient_steps + run.env_steps for run in runs) < SHORT_STEPS:
        return None
    if any(run.env_timeout_seconds is not None for run in runs):
        return None  # an environment that may hang is stepped in processes alone
    found: list[float] = []
    until = time.monotonic() + FIRST_SECONDS
    try:
        for cell in cells:
            if found and time.monotonic() > until:
                break
            found.append(estimate(cell, data[cell.task], threads, BRIEFLY))
    except BaqError:
        return None
    each = sum(found) / sum(work[: len(found)])
    return found + [each * cost for cost in work[len(found) :]]


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of `workers` is done, if each takes the next cell in order."""
    free = [0.0] * max(1, workers)
    for cell in seconds:
        heapq.heapreplace(free, free[0] + cell)
    return max(free)


def _online(recipe: Recipe, updater: Updater, step_seconds: float, measured: float) -> float:
    agent, plan = updater.learner.agent, updater.learner.plan
    steps, seeds = recipe.run.env_steps, len(recipe.run.seeds)
    updates = max(0, steps - plan.warmup_env_steps) * plan.utd
    acting = acting_seconds(agent, 1, measured)
    return steps * (seeds * step_seconds + acting) + updates * seconds_of(updater.step, measured)

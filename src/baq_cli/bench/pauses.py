"""What evaluations take of a run, from updates and steps as they were measured."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import torch

from baq_cli.agents.interface import Spec
from baq_cli.agents.plans import Plan
from baq_cli.agents.registry import make_agent
from baq_cli.bench.updates import Found, Sizes, recipe_of
from baq_cli.engine.evaluation.cost import (
    acting_seconds,
    evaluation_seconds,
    evaluations_left,
    interval,
)
from baq_cli.engine.phases.origin import Origin
from baq_cli.engine.updates.device import on_threads
from baq_cli.engine.updates.learner import Learner
from baq_cli.envs.limits import DEFAULT_LIMIT
from baq_cli.envs.pool import seconds_a_step
from baq_cli.envs.ref import EnvRef
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import ignore
from baq_cli.units import Phase


@dataclass(frozen=True)
class Pauses:
    """A phase as long as recipes have it, in seconds: its training, and its evaluations.

    `evaluations` of them play `episodes` of each seed, each to the environment's limit: as much as
    they can be.
    """

    algo: str
    phase: Phase
    seeds: int
    steps: int
    evaluations: int
    episodes: int
    training_seconds: float
    evaluation_seconds: float

    @property
    def share(self) -> float:
        """Evaluations' share of the phase, 0 to 1."""
        return self.evaluation_seconds / (self.training_seconds + self.evaluation_seconds)

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "share": self.share}


def pauses_of(found: Found, sizes: Sizes, env: EnvRef, device: torch.device) -> Pauses:
    """Measure an environment's step and acting in it, beside updates that were measured."""
    case, origin = found.case, Origin.make(env, ignore)
    recipe = recipe_of(case, sizes)
    run, spaces = recipe.run, origin.spaces
    spec = Spec(run.seeds, spaces.obs_dim, spaces.action_dim, (0.0, 1.0), device)
    agent = make_agent(case.algo, recipe.method, spec, case.phase)
    plan, update = Learner(agent).plan, case.seeds / statistics.median(found.rates)
    step_seconds = seconds_a_step(origin.acts_in)
    limit = (origin.environment or {}).get("max_episode_steps") or DEFAULT_LIMIT
    with on_threads(1):
        each = evaluation_seconds(recipe, agent, step_seconds, float(limit))
        acting = acting_seconds(agent, 1)
    steps = run.gradient_steps if case.phase == "offline" else run.env_steps
    count = evaluations_left(0, steps, interval(recipe, case.phase))
    training = steps * update
    if case.phase == "online":
        count += 1  # at the hand-over
        training = _stepping(recipe, plan, update, case.seeds * step_seconds + acting)
    episodes = run.evaluation.episodes
    counts = case.seeds, steps, count, episodes
    return Pauses(case.title, case.phase, *counts, training, count * each)


def _stepping(recipe: Recipe, plan: Plan, update: float, step: float) -> float:
    """Return the seconds of an online phase: steps of all seeds, and the updates that follow."""
    steps = recipe.run.env_steps
    return steps * step + max(0, steps - plan.warmup_env_steps) * plan.utd * update

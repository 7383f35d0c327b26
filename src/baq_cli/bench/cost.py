"""What an update costs, in operations: a property of the method, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.engine.updates.device import on_threads
from baq_cli.engine.updates.synthetic import operations_of, synthetic_updater
from baq_cli.recipes.load import Layer, resolve
from baq_cli.recipes.schema import Recipe
from baq_cli.units import Phase

UNIT = "iql"
"""The method whose update is one."""
OBS_DIM, ACTION_DIM, ROWS = 17, 6, 32
"""HalfCheetah's sizes. Rows a batch: operations are in proportion to them, so that a few will do,
enough for a share of them to be some."""


@dataclass(frozen=True)
class Cost:
    """Operations of matrix products in units of an IQL update; None for a phase without one.

    gradient_step: of a gradient step offline. env_step: of the gradient steps of an environment
    step online.
    """

    gradient_step: float | None
    env_step: float | None


def costs(methods: list[str]) -> dict[str, Cost]:
    """Count what methods' updates cost, with their defaults and batches of one size."""
    with on_threads(1):  # more would wait for each other at products this small
        unit = operations(UNIT, "offline")
        return {name: _cost(name, unit) for name in methods}


def _cost(name: str, unit: float) -> Cost:
    method = METHODS[name]
    offline = operations(name, "offline") / unit if method.learns_offline else None
    online = operations(name, "online") / unit if method.learns_online else None
    return Cost(offline, online)


def operations(name: str, phase: Phase) -> float:
    """Count the operations of an offline gradient step, or of those of one environment step."""
    return _operations([{"algo": name}], name, (OBS_DIM, ACTION_DIM), phase)


def run_operations(recipe: Recipe, obs_dim: int, action_dim: int) -> float:
    """Count about the operations of all updates of a recipe's phases, all seeds."""
    run, method = recipe.run, METHODS[recipe.run.algo]
    layers, sizes = [recipe.as_dict()], (obs_dim, action_dim)
    total = 0.0
    if method.learns_offline:
        total += run.gradient_steps * _operations(layers, run.algo, sizes, "offline")
    if method.learns_online:
        total += run.env_steps * _operations(layers, run.algo, sizes, "online")
    return total * recipe.method.batch_size / ROWS * len(run.seeds)


def _operations(layers: Sequence[Layer], name: str, sizes: tuple[int, int], phase: Phase) -> float:
    """Count the operations of a gradient step, or of an environment step's: a seed, few rows."""
    small = {"capture": False, name: {"batch_size": ROWS}}
    recipe = resolve([*layers, small], method_configs())
    updater = synthetic_updater(recipe, Spec((0,), *sizes), phase, 2 * ROWS)
    steps = 1 if phase == "offline" else updater.learner.plan.utd
    return steps * operations_of(updater)

"""Courses of runs that never were, with scores given by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baq_cli.agents.registry import method_configs
from baq_cli.recipes.load import resolve
from baq_cli.report.curves import Curve
from baq_cli.report.method_runs import Course
from baq_cli.report.protocol import protocol_of
from baq_cli.report.run_facts import RunFacts
from baq_cli.units import UNITS, Phase

TASK = "me/arm/monday-v0"
DATASET = {"id": TASK, "sha256": "ab", "return_mean": 40.0, "return_std": 10.0}
ENVIRONMENT = {"id": "Pendulum-v1", "max_episode_steps": 200, "kwargs": {}}
COUNTERS = (0, 25, 50, 100)
Returns = dict[int, list[float]]
"""Scores of the evaluations at COUNTERS, by seed."""


def run_of(
    folder: str,
    returns: Returns | Sequence[int] = (0,),
    *,
    task: str = TASK,
    phases: Sequence[Phase] = ("online",),
    counters: Sequence[int] = COUNTERS,
    environment: dict[str, Any] | None = None,
    method: str | None = None,
    **settings: Any,
) -> Course:
    """Return the course of a run of IQL; keys of its own section are `iql={…}`."""
    if not isinstance(returns, dict):
        returns = {seed: [50.0, 45.0, 60.0, 70.0 + seed][: len(counters)] for seed in returns}
    layer = {"algo": "iql", "dataset": task, "seeds": list(returns), "env_steps": 100}
    recipe = resolve([layer, settings], method_configs()).as_dict()
    environment = environment or ENVIRONMENT
    manifest = {"command": f"baq … --out {folder}", "environment": environment, "dataset": DATASET}
    label = method or "iql"
    scores = np.array(list(returns.values()), dtype=np.float64)
    curves = {
        phase: Curve(label, phase, UNITS[phase], np.array(counters), scores, tuple(returns))
        for phase in phases
    }
    protocol = protocol_of(recipe) | {"environment": environment, "dataset's sha256": "ab"}
    runs = (RunFacts(Path(folder), recipe, manifest),)
    return Course(task, label, curves, "return", protocol, runs, environment, dict(DATASET))

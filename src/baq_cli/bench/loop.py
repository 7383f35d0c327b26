"""Where the time of a fine-tuning goes, measured on a real one."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import make_agent, method_configs
from baq_cli.bench.updates import Case, Sizes
from baq_cli.engine.experience.columns import columns_of
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.experience.store import Layout, Store
from baq_cli.engine.phases.online import OnlineLoop, finetune
from baq_cli.engine.phases.origin import Origin
from baq_cli.engine.phases.run import Run
from baq_cli.engine.updates.device import on_threads
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.synthetic import random_rows
from baq_cli.engine.updates.threads import choose_threads
from baq_cli.envs.ref import EnvRef
from baq_cli.recipes.load import resolve
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.folder import RunDirectory
from baq_cli.runs.interrupt import listen

ESSENTIAL = ("act", "environment", "update")


@dataclass(frozen=True)
class Split:
    """Seconds of a fine-tuning by what they were spent on; `stepping` leaves out the pauses.

    The loop's own part is what is neither acting, nor the environment, nor updating; evaluations
    and checkpoints are pauses, as rare as a recipe makes them.
    """

    algo: str
    env_id: str
    seeds: int
    env_steps: int
    threads: int
    workers: bool
    seconds: dict[str, float]
    env_args: dict[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None

    @property
    def stepping(self) -> float:
        return sum(self.seconds.get(name, 0.0) for name in (*ESSENTIAL, "store"))

    @property
    def own_share(self) -> float:
        """Return the share of stepping outside act, environment and update."""
        return self.seconds.get("store", 0.0) / self.stepping

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "own_share": self.own_share}


def split_of(case: Case, sizes: Sizes, env: EnvRef, env_steps: int, device: torch.device) -> Split:
    """Fine-tune for `env_steps` a seed on random offline transitions, and split the time."""
    origin = Origin.make(env, lambda event: None)
    spaces = origin.spaces
    recipe = _recipe(case, sizes, origin.acts_in, env_steps)
    seeds = recipe.run.seeds
    spec = Spec(seeds, spaces.obs_dim, spaces.action_dim, (0.0, 1.0), device)
    threads = case.threads or choose_threads(recipe, spec)
    with on_threads(threads):
        run, workers = _fine_tuned(recipe, spec, origin, sizes.rows)
    seconds = dict(run.laps.seconds)
    counts = len(seeds), env_steps, threads, workers
    named = origin.acts_in.kwargs, origin.acts_in.max_episode_steps
    return Split(case.title, origin.acts_in.id, *counts, seconds, *named)


def _fine_tuned(recipe: Recipe, spec: Spec, origin: Origin, rows: int) -> tuple[Run, bool]:
    """Return a run that is over, and whether its environments stepped in processes."""
    agent = make_agent(recipe.run.algo, recipe.method, spec, "online")
    learner = Learner(agent)
    layout = Layout(spec.obs_dim, spec.action_dim, columns_of(agent, learner.plan))
    offline = Store(layout, random_rows(layout, (1, rows), spec.device), rows)
    with tempfile.TemporaryDirectory() as folder, listen() as interruption:
        directory = RunDirectory(Path(folder) / "run")
        directory.begin("", {})
        inputs = Inputs.fit(recipe.method, spec.obs_dim, None)
        run = Run(
            *(recipe, "online", origin, agent, inputs, learner, directory),
            observer=lambda event: None,
            interruption=interruption,
        )
        with closing(run):
            loop = OnlineLoop.start(run, offline)
            with closing(loop):
                finetune(loop, "")
    return run, loop.episodes.pool.workers


def _recipe(case: Case, sizes: Sizes, env: EnvRef, env_steps: int) -> Recipe:
    section: dict[str, Any] = {"batch_size": sizes.batch, "hidden": list(sizes.hidden)}
    section |= {"warmup_env_steps": 0} | dict(case.settings)
    layer = {
        "algo": case.algo,
        "env": env.id,
        "env_args": env.kwargs,
        "max_episode_steps": env.max_episode_steps,
        "seeds": list(range(case.seeds)),
        "env_steps": env_steps,
        "capture": case.path == "captured",
        "evaluation": {"every_env_steps": env_steps, "episodes": 1},
        case.algo: section,
    }
    return resolve([layer], method_configs())

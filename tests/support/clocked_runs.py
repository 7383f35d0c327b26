"""Small runs on the wall clock, and what they must repeat."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.phases.commands import run_finetune, run_repeat
from baq_cli.engine.phases.request import RunRequest
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Event, Note, Observer, ignore
from support.runs import assert_same_logs, last_tensors, recipe_of
from support.timed_envs import TIMED

HZ, ENV_STEPS, EVERY, WARMUP = 50, 60, 30, 10


def recipe(algo: str = "sac", method: dict[str, Any] | None = None, **run: Any) -> Recipe:
    """Return the recipe of a run at HZ, of one seed."""
    watched = {"episodes": 1, "every_env_steps": EVERY}
    control = {"hz": HZ, "publish_every_updates": 3}
    given = {"env": TIMED, "seeds": [0], "env_steps": ENV_STEPS, "evaluation": watched}
    method = {"warmup_env_steps": WARMUP} if method is None else method
    return recipe_of(algo, method, **(given | {"control": control, "keep_checkpoints": 2} | run))


def clocked(recipe: Recipe, out: Path, observer: Observer = ignore, **how: Any) -> None:
    """Fine-tune on the clock, from a run or from scratch."""
    source = how.pop("source", None)
    order = RunRequest(out, observer, "baq", "baq --resume", how.pop("resume", False))
    run_finetune(recipe, order, None if source is None else load(source))


def assert_repeats(run: Path, out: Path) -> None:
    """Check that training from a run's logs ends where the run ended, bit for bit."""
    said: list[Event] = []
    run_repeat(run, RunRequest(out, said.append, "baq", "baq --resume"))
    assert any(isinstance(e, Note) and "bit for bit" in e.text for e in said)
    assert_same_logs(run, out)
    before, now = last_tensors(run), last_tensors(out)
    assert before.keys() == now.keys()
    for name, tensor in before.items():
        assert tensor.numpy().tobytes() == now[name].numpy().tobytes(), name


def assert_no_process_is_left() -> None:
    """Check that every process that this one started has ended."""
    assert multiprocessing.active_children() == []

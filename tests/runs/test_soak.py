"""A long run keeps its file handles. Memory takes longer to watch: `benchmarks/soak.py`."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from baq_cli.engine.phases.commands import run_finetune
from baq_cli.engine.phases.request import RunRequest
from baq_cli.envs.pool import EnvPool
from baq_cli.runs.events import Evaluated, Event
from baq_cli.untrusted import TRUST_VARIABLE
from support.odd_envs import STEADY
from support.runs import recipe_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has /proc")


def handles() -> list[str]:
    """Return what this process has open."""
    gc.collect()
    found = []
    for handle in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{handle}"))
        except FileNotFoundError:
            continue  # that of the listing
    return sorted(found)


def test_evaluations_checkpoints_and_episodes_leave_nothing_open(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def observe(event: Event) -> None:
        if isinstance(event, Evaluated):
            seen.append(handles())

    watched = {"episodes": 1, "every_env_steps": 100, "background": False}
    place = {"env": STEADY, "env_steps": 1000, "evaluation": watched, "keep_checkpoints": 1}
    recipe = recipe_of("sac", {"warmup_env_steps": 900, "capacity": 500}, **place)
    before = handles()
    run_finetune(recipe, RunRequest(tmp_path, observe, "baq", "baq"), None)
    assert len(seen) == 11
    assert all(later == seen[1] for later in seen[1:])
    assert handles() == before


def test_environments_that_were_made_anew_leave_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    seen = []
    for _ in range(3):
        pool = EnvPool("support.odd_envs:Steady-v0", 1, workers=True)
        pool.reset([0])
        pool.abandon()
        del pool
        seen.append(handles())
    assert seen[1] == seen[2], "the first one starts what all share"

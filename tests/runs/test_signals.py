"""Signals that take environments with them, that come twice, and that reach every process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baq_cli.engine.phases.online import OnlineLoop
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.envs.pool import EnvPool
from baq_cli.errors import Interrupted
from baq_cli.recipes.schema import Recipe
from baq_cli.signals import STOPPING
from baq_cli.untrusted import TRUST_VARIABLE
from support.evaluations import nothing_played
from support.odd_envs import PLAN
from support.runs import assert_same_end, execute, recipe_of, states

EVERY, ENV_STEPS, LENGTH = 6, 18, 3
"""Episodes of `short_env` have three steps; so one ends whenever there is an evaluation."""


def finetuning(env: str, **run: Any) -> Recipe:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    settings = {"env": env, "env_steps": ENV_STEPS, "evaluation": watched} | run
    return recipe_of("sac", {"warmup_env_steps": 4, "utd": 2}, **settings)


def gone(*_: Any) -> Any:
    raise EnvironmentFault("the simulator went away")


def signalled(*_: Any, **__: Any) -> Any:
    """A signal, and environments that go with it."""
    os.kill(os.getpid(), signal.SIGTERM)
    gone()


def failing(
    monkeypatch: pytest.MonkeyPatch, at: int, method: str, fail: Callable[..., Any]
) -> None:
    """Let a call of the training environments fail once, in the environment step `at`."""
    step, failed = OnlineLoop.step, []

    def stepped(loop: OnlineLoop) -> None:
        if loop.run.env_steps == at - 1 and not failed:
            failed.append(at)
            monkeypatch.setattr(loop.episodes.pool, method, fail)
        step(loop)

    monkeypatch.setattr(OnlineLoop, "step", stepped)


# -- with the environments


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize(
    ("method", "at"),
    [("end_step", 2), ("begin_step", 8), ("end_step", 12), ("reset", 9), ("reset", 12)],
)
def test_a_signal_that_takes_the_environments_with_it_costs_nothing(
    method: str, at: int, overlap: bool, short_env: str, tmp_path: Path
) -> None:
    recipe, run = finetuning(short_env, overlap=overlap), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, at, method, signalled)
        with pytest.raises(Interrupted, match="--resume"):
            execute(recipe, run)
    stored = at if method == "reset" else at - 1
    assert list(states(run).values())[-1]["done"] == stored
    assert not (run / "faults.jsonl").exists(), "it is no fault of theirs"
    execute(recipe, run, resume=True)
    execute(recipe, tmp_path / "whole")
    assert_same_end(tmp_path / "whole", run)


def test_a_signal_while_environments_are_made_anew_costs_nothing_more(
    short_env: str, tmp_path: Path
) -> None:
    recipe, run = finetuning(short_env), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, 8, "end_step", gone)
        execute(recipe, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, 8, "end_step", gone)
        again = EnvPool.again

        def gone_again(pool: EnvPool) -> EnvPool:
            found = again(pool)
            patch.setattr(found, "reset", signalled)
            return found

        patch.setattr(EnvPool, "again", gone_again)
        with pytest.raises(Interrupted):
            execute(recipe, run)
    assert list(states(run).values())[-1]["done"] == 7
    notes: list[str] = []
    execute(recipe, run, resume=True, notes=notes)
    assert not any("repeat itself" in note for note in notes)
    assert_same_end(tmp_path / "whole", run)


# -- twice

PATIENCE = 30.0
"""Seconds after which a test helps itself."""


@pytest.fixture
def in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")


def test_a_second_sigint_ends_a_run_whose_environment_hangs(
    in_workers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, hung, helped = multiprocessing.active_children(), tmp_path / "hung", []

    def interrupt_twice() -> None:
        while not hung.exists():
            time.sleep(0.05)
        for _ in range(2):
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)

    def help_out() -> None:
        helped.append("it hung")
        for process in multiprocessing.active_children():
            if process not in before:
                process.kill()

    monkeypatch.setenv(PLAN, f"hangs 8 {hung}")
    help_later = threading.Timer(PATIENCE, help_out)
    help_later.start()
    threading.Thread(target=interrupt_twice, daemon=True).start()
    with nothing_played(), pytest.raises(KeyboardInterrupt):
        execute(
            finetuning("support.odd_envs:Odd-v0", seeds=[0], env_workers=True), tmp_path / "run"
        )
    help_later.cancel()
    assert not helped
    assert multiprocessing.active_children() == before
    assert list(states(tmp_path / "run")) == ["online-6"], "the last checkpoint stays"


# -- to every process


def test_a_signal_to_every_process_ends_no_worker_that_is_starting(in_workers: None) -> None:
    before, signals = multiprocessing.active_children(), []

    def signal_early() -> None:
        while not (new := [p for p in multiprocessing.active_children() if p not in before]):
            time.sleep(0.001)
        for number in STOPPING:
            os.kill(new[0].pid or 0, number)
            signals.append(number)

    early = threading.Thread(target=signal_early, daemon=True)
    early.start()
    with closing(EnvPool("support.odd_envs:Steady-v0", 1, workers=True)) as pool:
        early.join()
        assert len(signals) == len(STOPPING)
        assert np.isfinite(pool.reset([0])).all()


def test_what_an_environment_starts_in_a_worker_answers_signals_as_ever(in_workers: None) -> None:
    with closing(EnvPool("support.odd_envs:Simulated-v0", 1, workers=True)) as pool:
        assert np.isfinite(pool.reset([0])).all()

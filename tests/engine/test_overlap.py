"""Environments in processes, and updates while they step: what changes, and what must not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baq_cli.agents.registry import method_configs
from baq_cli.agents.sac import SAC
from baq_cli.engine.phases.actor import Actor
from baq_cli.engine.phases.commands import run_finetune
from baq_cli.engine.phases.request import RunRequest
from baq_cli.engine.updates.updater import Updater
from baq_cli.envs.pool import EnvPool
from baq_cli.errors import UsageError
from baq_cli.recipes.load import resolve
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.folder import read_metrics
from support.evaluations import nothing_played
from support.runs import assert_same_end, last_tensors, noting

WARMUP, UTD = 4, 2


def recipe_of(env: str, env_steps: int, algo: str = "sac", **run: Any) -> Recipe:
    """Return a small fine-tuning from scratch, evaluated and saved every eight steps."""
    method = {"hidden": [8, 8], "batch_size": 8, "warmup_env_steps": WARMUP, "utd": UTD}
    settings = {"device": "cpu", "threads": 1, "env_workers": False, "seeds": [0, 1]}
    watched = {"episodes": 1, "every_env_steps": 8, "background": False}
    layer = {"algo": algo, "env": env, "env_steps": env_steps, "evaluation": watched}
    if algo == "cal_ql":
        method |= {"online_share": None, "cql_actions": 2, "gradient": "sampled"}
    return resolve([layer | settings | run | {algo: method}], method_configs())


def finetune(recipe: Recipe, out: Path, resume: bool = False) -> None:
    order = RunRequest(out, lambda event: None, "baq finetune", "baq finetune --resume", resume)
    run_finetune(recipe, order, None)


# -- environments in processes of their own


@pytest.fixture
def pools() -> Iterator[tuple[EnvPool, EnvPool]]:
    both = EnvPool("Pendulum-v1", 2), EnvPool("Pendulum-v1", 2, workers=True)
    yield both
    for pool in both:
        pool.close()


def test_workers_step_and_reset_to_the_same_results(pools: tuple[EnvPool, EnvPool]) -> None:
    rng, seen = np.random.default_rng(0), {"truncated": 0}
    first = [pool.reset([3, 4]) for pool in pools]
    assert np.array_equal(*first)
    for t in range(260):
        action = rng.uniform(-1, 1, size=(2, 1)).astype(np.float32)
        here, there = (pool.step(action) for pool in pools)
        for plain, worked in zip(here, there, strict=True):
            assert np.array_equal(plain, worked)
            assert plain.dtype == worked.dtype
        over = here[3]
        if t == 50:
            over = np.array([False, True])  # one goes on while the other starts anew
        if over.any():
            seen["truncated"] += int(here[3].sum())
            resets = [pool.reset([100 + t, 200 + t], over) for pool in pools]
            assert np.array_equal(*resets)
            assert np.array_equal(resets[0][~over], here[0][~over])
            assert not np.array_equal(resets[0][over], here[0][over])
    assert seen == {"truncated": 2}, "the copies end apart: after 200 and after 251 steps"


def test_a_step_that_has_begun_can_be_ended_later(pools: tuple[EnvPool, EnvPool]) -> None:
    found = []
    for pool in pools:
        pool.reset([1, 2])
        action = np.array([[0.5], [-0.5]], dtype=np.float32)
        pool.begin_step(action)
        action[:] = 0.0  # what was handed over is what counts
        found.append(pool.end_step())
    expected = EnvPool("Pendulum-v1", 2)
    expected.reset([1, 2])
    wanted = expected.step(np.array([[0.5], [-0.5]], dtype=np.float32))
    for outcome in found:
        assert all(np.array_equal(a, b) for a, b in zip(outcome, wanted, strict=True))


@pytest.mark.parametrize("overlap", [False, True])
def test_fine_tuning_in_workers_ends_where_it_ends_without(overlap: bool, tmp_path: Path) -> None:
    for name, workers in (("here", False), ("workers", True)):
        recipe = recipe_of("Pendulum-v1", 16, env_workers=workers, overlap=overlap)
        finetune(recipe, tmp_path / name)
    assert_same_end(tmp_path / "here", tmp_path / "workers")


# -- updates while the environments step


LEARNING = {
    False: "act begin end" + UTD * " update",
    True: "act begin" + UTD * " update" + " end",
}
"""What happens in an environment step with updates, by whether they overlap."""


def idle_steps(overlap: bool) -> list[str]:
    """Return what happens in each step before updates: in a warm-up no policy acts.

    An overlapped run owes the first updates until the step after.
    """
    return WARMUP * ["begin end"] + overlap * ["act begin end"]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What an online loop does, in order; evaluations step nothing."""
    found: list[str] = []

    for owner, method, name in (
        (Actor, "act", "act"),
        (EnvPool, "begin_step", "begin"),
        (EnvPool, "end_step", "end"),
        (Updater, "step", "update"),
    ):
        monkeypatch.setattr(owner, method, noting(found, name, getattr(owner, method)))

    with nothing_played():
        yield found


@pytest.mark.parametrize("overlap", [False, True])
def test_updates_follow_their_step_or_fall_into_the_next_one_after_its_action(
    overlap: bool, short_env: str, tmp_path: Path, events: list[str]
) -> None:
    steps = 11
    finetune(recipe_of(short_env, steps, overlap=overlap), tmp_path)
    idle = idle_steps(overlap)
    expected = idle + (steps - len(idle)) * [LEARNING[overlap]]
    assert " ".join(events) == " ".join(expected)
    assert read_metrics(tmp_path)[-1]["gradient_steps"] == UTD * (steps - len(idle))


@pytest.mark.parametrize("overlap", [False, True])
def test_the_updates_that_a_plan_wants_first_are_made_once_after_the_warmup(
    overlap: bool,
    short_env: str,
    tmp_path: Path,
    events: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no second time where the run is resumed at that very step, or after it."""
    plan, steps, first = SAC.online_plan, 11, 5
    monkeypatch.setattr(SAC, "online_plan", lambda sac: replace(plan(sac), first_updates=first))
    whole = recipe_of(short_env, steps, overlap=overlap)
    finetune(whole, tmp_path / "whole")
    step, idle = LEARNING[overlap], idle_steps(overlap)
    burst = step.replace("update", " ".join(["update"] * (first + 1)), 1)
    expected = [*idle, burst, *(steps - len(idle) - 1) * [step]]
    assert " ".join(events) == " ".join(expected)
    made = UTD * (steps - len(idle)) + first
    assert read_metrics(tmp_path / "whole")[-1]["gradient_steps"] == made
    for at in (WARMUP + 1, 8):
        finetune(recipe_of(short_env, at, overlap=overlap), tmp_path / str(at))
        finetune(whole, tmp_path / str(at), resume=True)
        assert read_metrics(tmp_path / str(at))[-1]["gradient_steps"] == made


def test_an_overlapped_action_is_that_of_the_parameters_before_the_updates(
    short_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[bool, list[int]] = {}
    act = Actor.act
    for overlap in (False, True):
        known[overlap] = []

        def noted(actor: Actor, obs: Any, found: list[int] = known[overlap]) -> Any:
            found.append(actor.learner.gradient_steps)
            return act(actor, obs)

        monkeypatch.setattr(Actor, "act", noted)
        finetune(recipe_of(short_env, 9, overlap=overlap), tmp_path / str(overlap))
    assert known[False] == [0, 2, 4, 6, 8], "nobody acts in a warm-up"
    assert known[True] == [0, 0, 2, 4, 6]


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("algo", ["sac", "cal_ql"])
@pytest.mark.parametrize("steps", [WARMUP, WARMUP + 1, 8, 9])
def test_a_run_of_n_steps_resumed_to_2n_is_a_run_of_2n_steps(
    steps: int, algo: str, overlap: bool, short_env: str, tmp_path: Path
) -> None:
    watched = {"episodes": 1, "every_env_steps": steps, "background": False}
    half, whole = (
        recipe_of(short_env, count, algo, overlap=overlap, evaluation=watched)
        for count in (steps, 2 * steps)
    )
    finetune(whole, tmp_path / "whole")
    finetune(half, tmp_path / "parts")
    before = last_tensors(tmp_path / "parts")
    finetune(whole, tmp_path / "parts", resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    after = last_tensors(tmp_path / "parts")
    assert not torch.equal(before["training/stream.noise"], after["training/stream.noise"])


def test_overlapping_is_another_run_and_can_t_be_switched_on_later(
    short_env: str, tmp_path: Path
) -> None:
    finetune(recipe_of(short_env, 8), tmp_path)
    with pytest.raises(UsageError, match="overlap was False"):
        finetune(recipe_of(short_env, 16, overlap=True), tmp_path, resume=True)
    finetune(recipe_of(short_env, 16), tmp_path, resume=True)

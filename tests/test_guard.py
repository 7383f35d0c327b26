"""The guard: which seed trips when, and what a rollback gives back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import assert_same_end, execute, recipe_of, states, stopped_at

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import make_agent
from baq_cli.engine.events import Event, Note
from baq_cli.engine.files import read_json
from baq_cli.engine.guard import Guard
from baq_cli.engine.learner import Learner
from baq_cli.engine.rundir import read_metrics
from baq_cli.errors import UsageError
from baq_cli.recipes.schema import GuardConfig

SEEDS = (0, 1)


def guarded(**settings: Any) -> tuple[Guard, Learner, list[str]]:
    """Return a guard over a small agent of two seeds, and what it says."""
    method = recipe_of("sac", {}, env="Pendulum-v1").method
    learner = Learner(make_agent("sac", method, Spec(SEEDS, 3, 1)), "online")
    said: list[str] = []

    def observe(event: Event) -> None:
        assert isinstance(event, Note)
        said.append(event.text)

    return Guard(GuardConfig(**settings), learner, observe), learner, said


def evaluations(guard: Guard, *scores: tuple[float, float]) -> None:
    """Show the guard evaluations of two episodes whose means are the scores, by seed."""
    for i, score in enumerate(scores):
        guard.evaluated(100 * i, np.array([[s - 1.0, s + 1.0] for s in score]))


def acted(guard: Guard) -> list[tuple[int, int]]:
    return [(event["env_steps"], event["seed"]) for event in guard.events]


def test_a_seed_trips_after_patience_evaluations_in_a_row_below_its_own_hand_over() -> None:
    guard, _, said = guarded(action="warn", max_drop=10, patience=2)
    evaluations(guard, (100, 0), (89, -9), (91, -11), (89, -10), (80, -11), (80, -12), (80, 5))
    assert acted(guard) == [(400, 0), (500, 1), (600, 0)], "91 and -10 are not below"
    assert len(said) == 3
    assert "training goes on" in said[0]
    assert not guard.stopped


def test_bad_episodes_are_counted_by_seed_and_bounded() -> None:
    bound = {"episode_return": -50.0, "episodes": 2}
    guard, _, _ = guarded(action="stop", max_online_episodes_below=bound)
    both, first = np.array([True, True]), np.array([True, False])
    guard.episodes_ended(1, both, np.array([-60.0, -50.0]))
    guard.episodes_ended(2, first, np.array([-60.0, -99.0]))
    assert not guard.stopped
    guard.episodes_ended(3, both, np.array([-60.0, 0.0]))
    assert guard.stopped
    assert acted(guard) == [(3, 0)]
    assert guard.bad_episodes.tolist() == [3, 0], "an episode that goes on is none yet"


def test_off_it_looks_at_nothing() -> None:
    guard, _, said = guarded()
    evaluations(guard, (100, 100), (-1e6, -1e6), (-1e6, -1e6))
    assert not guard.is_on
    assert not said
    assert guard.facts() == {}


def scramble(learner: Learner, by: float) -> None:
    with torch.no_grad():
        for tensor in learner.agent.state_dict().values():
            tensor.add_(by)


def test_a_rollback_gives_one_seed_its_best_parameters_and_leaves_the_other_alone() -> None:
    guard, learner, _ = guarded(action="rollback", max_drop=10, patience=1)
    evaluations(guard, (100, 100))
    scramble(learner, 0.5)
    best = {name: t.clone() for name, t in learner.agent.state_dict().items()}
    guard.evaluated(100, np.array([[120.0], [95.0]]))  # seed 0's best; seed 1's was the first
    scramble(learner, 0.25)
    now = {name: t.clone() for name, t in learner.agent.state_dict().items()}
    guard.evaluated(200, np.array([[50.0], [95.0]]))
    for name, tensor in learner.agent.state_dict().items():
        assert torch.equal(tensor[0], best[name][0]), name
        assert torch.equal(tensor[1], now[name][1]), name
    guard.evaluated(300, np.array([[120.0], [50.0]]))
    first = {name: t - 0.75 for name, t in now.items()}
    for name, tensor in learner.agent.state_dict().items():
        torch.testing.assert_close(tensor[1], first[name][1], msg=name)


def test_after_a_rollback_the_seeds_updates_are_a_share_of_what_they_were() -> None:
    guard, learner, _ = guarded(action="rollback", max_drop=10, patience=1, shrink=0.25)
    evaluations(guard, (100, 100), (0, 100))
    before = {name: t.clone() for name, t in learner.agent.state_dict().items()}
    with learner.scaled():
        scramble(learner, 1.0)
    trained = [name for name, _ in learner.agent.named_parameters() if "target" not in name]
    after = learner.agent.state_dict()
    for name in trained:
        moved = after[name] - before[name]
        torch.testing.assert_close(moved[0], torch.full_like(moved[0], 0.25), msg=name)
        torch.testing.assert_close(moved[1], torch.full_like(moved[1], 1.0), msg=name)


def recipe(action: str, **guard: Any) -> Any:
    watched = {"episodes": 1, "every_env_steps": 8, "background": False}
    settings = {"action": action, "max_drop": 1e-6, "patience": 1} | guard
    run = {"env": "Pendulum-v1", "env_steps": 48, "evaluation": watched, "guard": settings}
    return recipe_of("sac", {"warmup_env_steps": 4}, **run)


def test_a_guarded_run_resumes_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    execute(recipe("rollback"), whole)
    facts = read_json(whole / "manifest.json")["guard"]
    assert facts["events"], "with so little allowed, it acts"
    name = list(states(whole))[2]
    parts = stopped_at(whole, name, tmp_path / "parts")
    execute(recipe("rollback"), parts, resume=True)
    assert_same_end(whole, parts)
    assert read_json(parts / "manifest.json")["guard"] == facts


def test_a_stopped_run_ends_where_its_guard_said_and_stays_ended(tmp_path: Path) -> None:
    execute(recipe("stop"), tmp_path)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["guard"]["stopped"]
    last = read_metrics(tmp_path)[-1]["env_steps"]
    assert last == manifest["guard"]["events"][-1]["env_steps"] < 48
    execute(recipe("stop"), tmp_path, resume=True)
    assert read_metrics(tmp_path)[-1]["env_steps"] == last


def test_a_guard_that_only_warns_changes_no_number(tmp_path: Path) -> None:
    execute(recipe("warn"), tmp_path / "warned")
    execute(recipe("off"), tmp_path / "off")
    one, other = (
        [{k: v for k, v in row.items() if k != "wall_seconds"} for row in read_metrics(run)]
        for run in (tmp_path / "warned", tmp_path / "off")
    )
    assert one == other


@pytest.mark.parametrize("settings", [{}, {"max_drop": -1}, {"max_drop": 1, "shrink": 0}])
def test_a_guard_that_watches_nothing_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="guard"):
        recipe_of("sac", {}, env="Pendulum-v1", guard={"action": "stop"} | settings)

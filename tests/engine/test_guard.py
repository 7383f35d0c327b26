"""The guard: which seed trips when, and what a rollback gives back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baq_cli.agents.interface import Losses, Spec
from baq_cli.agents.registry import make_agent
from baq_cli.agents.sac import SAC
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.evaluation.background import acting_tensors
from baq_cli.engine.phases.actor import Actor
from baq_cli.engine.phases.guard import Guard
from baq_cli.engine.updates.learner import Learner
from baq_cli.errors import UsageError
from baq_cli.recipes.schema import GuardConfig
from baq_cli.runs.events import Event, Note
from baq_cli.runs.files import read_json
from baq_cli.runs.folder import read_metrics
from support.builders import tiny_batch
from support.evaluations import nothing_played
from support.odd_envs import Endless, Steady
from support.recordings import ID
from support.runs import assert_same_end, execute, recipe_of, states, stopped_at
from support.small_data import write_steady

SEEDS = (0, 1)


def guarded(**settings: Any) -> tuple[Guard, Learner, list[str]]:
    """Return a guard over a small agent of two seeds, and what it says."""
    method = recipe_of("sac", {}, env="Pendulum-v1").method
    learner = Learner(make_agent("sac", method, Spec(SEEDS, 3, 1), "online"))
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


def test_a_rollback_before_any_evaluation_gives_back_what_was_handed_over() -> None:
    bound = {"episode_return": 0.0, "episodes": 0}
    guard, learner, said = guarded(action="rollback", max_online_episodes_below=bound)
    guard.begin()
    first = {name: t.clone() for name, t in learner.agent.state_dict().items()}
    scramble(learner, 0.5)
    guard.begin()  # a resume, which changes nothing of what is kept
    guard.episodes_ended(7, np.array([False, True]), np.array([-1.0, -1.0]))
    for name, tensor in learner.agent.state_dict().items():
        torch.testing.assert_close(tensor[0], first[name][0] + 0.5, msg=name)
        assert torch.equal(tensor[1], first[name][1]), name
    assert "back to the policy handed over" in said[0]


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


def test_a_rollback_forgets_the_momentum_of_its_seed_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def still(agent: SAC, batch: Any, noise: Any, active: frozenset[str]) -> Losses:
        """No gradient: what moves, its momentum moves."""
        anything = next(agent.parameters())
        return Losses(**dict.fromkeys(active, 0 * anything.view(len(SEEDS), -1).sum(1)))

    monkeypatch.setattr(SAC, "online_loss", still)
    guard, learner, _ = guarded(action="rollback", max_drop=10, patience=1)
    evaluations(guard, (100, 100))
    moments = {name: t for name, t in learner.state().items() if "exp_avg" in name}
    for moment in moments.values():
        moment.fill_(1.0)
    guard.evaluated(100, np.array([[0.0], [100.0]]))
    assert all((t == 1).all() for name, t in moments.items() if "exp_avg_sq" in name), "kept"
    before = {name: p.detach().clone() for name, p in learner.agent.named_parameters()}
    learner.prepare()
    learner.compute(tiny_batch(), learner.active(), targets="none")
    for name, parameter in learner.agent.named_parameters():
        moved = [not torch.equal(parameter[i], before[name][i]) for i in range(2)]
        assert moved == [False, "target" not in name], name


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


SMALL: dict[str, dict[str, Any]] = {
    "baq": {"behavior_hidden": [8, 8]},
    "cal_ql": {"online_share": None, "cql_actions": 2, "gradient": "sampled"},
}


@pytest.mark.parametrize(
    ("algo", "how"), [("baq", {}), ("cal_ql", {"overlap": True}), ("sac", {"env_workers": True})]
)
def test_whatever_method_rolled_back_resumes_as_if_it_had_not_stopped(
    algo: str, how: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    watched = {"episodes": 1, "every_env_steps": 8, "every_gradient_steps": 20, "background": False}
    guard = {"action": "rollback", "max_drop": 1e-6, "patience": 1}
    run = {"env": "Pendulum-v1", "env_steps": 40, "gradient_steps": 20} | how
    if algo == "baq":  # it has priorities, and side models that its columns are made of
        write_steady(ID)
        run |= {"env": "Steady-v0", "dataset": ID}
    method = {"warmup_env_steps": 4} | SMALL.get(algo, {})
    asked = recipe_of(algo, method, **run, evaluation=watched, guard=guard)
    source = None
    if algo == "baq":
        source = tmp_path / "offline"
        execute(asked, source)
    whole = tmp_path / "whole"
    execute(asked, whole, source=source)
    events = read_json(whole / "manifest.json")["guard"]["events"]
    after = [name for name, s in states(whole).items() if s["guard"]["events"]][:-1]
    assert after, "a checkpoint knows of a rollback, and the run goes on"
    parts = stopped_at(whole, after[0], tmp_path / "parts")
    execute(asked, parts, resume=True, source=source)
    assert_same_end(whole, parts)
    assert read_json(parts / "manifest.json")["guard"]["events"] == events


# -- episodes that end because their environments failed

EVERY, FAILS_AT = 8, 13


@pytest.fixture
def ends_by_failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Episodes of Endless end by nothing but a failure, which is at an environment step."""
    steps: list[int] = []

    def at_step() -> None:
        steps.append(len(steps))
        if len(steps) == len(SEEDS) * FAILS_AT:
            raise RuntimeError("the motor is on fire")

    monkeypatch.setattr(Endless, "endless", True)
    monkeypatch.setattr(Endless, "at_step", staticmethod(at_step))
    with nothing_played():
        yield


def bounded(action: str, env_steps: int = 3 * EVERY, **run: Any) -> Any:
    """Return a recipe whose guard allows no bad episode, and takes all for bad."""
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    bound = {"episode_return": 1e9, "episodes": 0}
    settings = {"action": action, "max_online_episodes_below": bound}
    place = {"env": "Endless-v0", "env_steps": env_steps, "evaluation": watched}
    return recipe_of("sac", {"warmup_env_steps": 4}, **place, guard=settings, **run)


def assert_stopped_and_saved(run: Path, done: int) -> None:
    assert read_json(run / "manifest.json")["guard"]["stopped"]
    last = load(run).state
    assert (last["done"], last["guard"]["stopped"]) == (done, True)
    execute(bounded("stop"), run, resume=True)
    assert load(run).state["done"] == done, "it stays ended"


def test_a_stop_because_of_an_episode_that_a_failure_ended_is_saved(
    ends_by_failing: None, tmp_path: Path
) -> None:
    execute(bounded("stop"), tmp_path)
    assert_stopped_and_saved(tmp_path, FAILS_AT - 1)


def test_a_stop_because_of_an_episode_that_couldn_t_be_repeated_is_saved(
    ends_by_failing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(env: Steady) -> Any:
        return np.array([*(env.place + 1e-6), env.time], dtype=np.float32)

    execute(bounded("stop", EVERY), tmp_path)
    monkeypatch.setattr(Steady, "_obs", elsewhere)
    execute(bounded("stop"), tmp_path, resume=True)
    assert_stopped_and_saved(tmp_path, EVERY)


def test_after_a_rollback_because_of_a_failure_the_twin_acts_with_what_came_back(
    ends_by_failing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act, same = Actor.act, []

    def compared(actor: Actor, obs: Any) -> Any:
        found = act(actor, obs)
        assert actor.agent is not actor.learner.agent, "it has a twin"
        own, theirs = acting_tensors(actor.agent), acting_tensors(actor.learner.agent)
        same.append(all(torch.equal(own[name], theirs[name]) for name in own | theirs))
        return found

    monkeypatch.setattr(Actor, "act", compared)
    execute(bounded("rollback", acting="cpu"), tmp_path)
    events = read_json(tmp_path / "manifest.json")["guard"]["events"]
    assert [event["env_steps"] for event in events] == 2 * [FAILS_AT - 1]
    assert len(same) > FAILS_AT - 4
    assert all(same)


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

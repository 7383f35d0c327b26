"""Acting on the CPU by a twin is acting by the agent: the same actions, from the last update."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Batch, Spec
from baq_cli.agents.registry import METHODS as ALL_METHODS
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.phases import actor as acting
from baq_cli.engine.phases import online
from baq_cli.engine.phases.actor import TRIALS, ActingOn, Actor, faster_place
from baq_cli.engine.updates.card_graph import SideStream
from baq_cli.engine.updates.learner import Learner
from baq_cli.errors import UsageError
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe
from support.builders import finetune as train_online
from support.builders import small_agent, small_spec
from support.runs import assert_same_end, execute, noting, recipe_of, states

WARMUP, ENV_STEPS, SEEDS = 4, 12, (0, 1)
METHODS: dict[str, dict[str, Any]] = {
    "sac": {},
    # the best of K by its critics acts: they shall move far enough to choose another
    "enoto": {"critics": 3, "cql_actions": 2, "ucb_actions": 5, "learning_rate": 0.05},
    "td3_bc": {"exploration_noise": 0.3, "policy_every": 1},
}
OBS = np.array([[0.3, -1.2, 0.8], [1.5, 0.1, -0.4]], dtype=np.float32)


def recipe_for(algo: str, env: str = "Pendulum-v1", **run: Any) -> Recipe:
    layer = {"env": env, "env_steps": ENV_STEPS} | run
    return recipe_of(algo, {"warmup_env_steps": WARMUP, "utd": 2, **METHODS[algo]}, **layer)


# -- runs


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("algo", METHODS)
def test_a_run_that_acts_by_a_twin_is_the_run_that_acts_by_its_agent(
    algo: str, overlap: bool, short_env: str, tmp_path: Path
) -> None:
    places: tuple[ActingOn, ...] = ("cpu", "device")
    for place in places:
        execute(recipe_for(algo, short_env, acting=place, overlap=overlap), tmp_path / place)
        assert {state["acting"] for state in states(tmp_path / place).values()} == {place}
    assert_same_end(tmp_path / "cpu", tmp_path / "device")


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The gradient step at each copy of the acting parts into a twin."""
    found: list[int] = []
    follow = Actor.follow

    def noted(actor: Actor) -> None:
        found.append(actor.learner.gradient_steps)
        follow(actor)

    monkeypatch.setattr(Actor, "follow", noted)
    return found


@pytest.mark.parametrize(
    ("overlap", "expected"), [(False, [0, 2, 4, 6, 8, 10, 12, 14]), (True, [0, 2, 4, 6, 8, 10, 12])]
)
def test_a_run_copies_once_a_step_that_follows_updates(
    overlap: bool, expected: list[int], short_env: str, tmp_path: Path, copies: list[int]
) -> None:
    # Random actions come first: nobody asks the twin before the warm-up is over.
    execute(recipe_for("sac", short_env, acting="cpu", overlap=overlap), tmp_path)
    assert copies == expected


def test_a_resumed_run_acts_where_its_checkpoint_did(
    short_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming: list[ActingOn] = ["cpu"]
    monkeypatch.setattr(online, "faster_place", lambda *_: coming.pop())
    half, whole = (recipe_for("sac", short_env, env_steps=n) for n in (ENV_STEPS, 2 * ENV_STEPS))
    execute(half, tmp_path)
    # measuring anew would take a place that isn't there
    execute(whole, tmp_path, resume=True)
    assert {state["acting"] for state in states(tmp_path).values()} == {"cpu"}
    with pytest.raises(UsageError, match="acting was auto"):
        execute(recipe_for("sac", short_env, acting="device"), tmp_path, resume=True)


def test_a_resumed_twin_acts_by_the_restored_parameters(short_env: str, tmp_path: Path) -> None:
    watched = {"episodes": 1, "background": False, "every_env_steps": ENV_STEPS}
    half, whole = (
        recipe_for("enoto", short_env, acting="cpu", env_steps=n, evaluation=watched)
        for n in (ENV_STEPS, 2 * ENV_STEPS)
    )
    execute(whole, tmp_path / "whole")
    execute(half, tmp_path / "parts")
    execute(whole, tmp_path / "parts", resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_run_measures_where_it_acts_once_and_moves_nothing_by_it(
    short_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def measured(recipe: Recipe, learner: Learner, inputs: Inputs) -> ActingOn:
        actor = Actor(recipe, learner, inputs, SeedStream(SEEDS, "explore/trial"), "cpu")
        actor.act(OBS)
        asked.append(learner.gradient_steps)
        return "device"

    execute(recipe_for("sac", short_env), tmp_path / "plain")
    monkeypatch.setattr(online, "faster_place", measured)
    execute(recipe_for("sac", short_env), tmp_path / "measured")
    assert asked == [0]
    assert_same_end(tmp_path / "plain", tmp_path / "measured")


# -- the twin


class Pair:
    """A learner with an actor by a twin and one by the agent, on streams of the same start."""

    def __init__(self, algo: str):
        recipe = recipe_for(algo)
        agent = small_agent(algo, SEEDS, **recipe.method.model_dump(exclude_unset=True))
        self.learner, batches = train_online(agent, None, 3)
        self.agent = self.learner.agent
        self.batch: Batch = batches[-1]
        inputs = Inputs(torch.tensor([0.1, -0.2, 0.0]), torch.tensor([1.0, 2.0, 0.5]), 1.0, 0.0)
        places: tuple[ActingOn, ...] = ("cpu", "device")
        self.twin, self.own = (
            Actor(recipe, self.learner, inputs, SeedStream(SEEDS, "explore/online"), place)
            for place in places
        )


def parts(agent: Agent) -> dict[str, Tensor]:
    return {k: v for k, v in agent.state_dict().items() if k.startswith(agent.acting_parts())}


def is_followed(pair: Pair) -> bool:
    theirs, own = parts(pair.agent), parts(pair.twin.agent)
    assert theirs.keys() == own.keys()
    return all(torch.equal(theirs[name], own[name]) for name in theirs)


@pytest.mark.parametrize("algo", METHODS)
def test_a_twin_follows_every_update_and_copies_nothing_without_one(
    algo: str, copies: list[int]
) -> None:
    pair = Pair(algo)
    assert pair.twin.agent is not pair.agent
    assert pair.own.agent is pair.agent
    for count in range(3):
        pair.learner.update(pair.batch)
        assert not is_followed(pair), "an update alone reaches no twin"
        for _ in range(3):
            assert np.array_equal(pair.twin.act(OBS), pair.own.act(OBS))
            assert is_followed(pair)
        assert len(copies) == count + 1
    pair.twin.forget()
    pair.twin.act(OBS)
    assert len(copies) == 4


def test_a_twin_leaves_its_agent_alone() -> None:
    pair = Pair("enoto")
    before = {name: value.clone() for name, value in pair.agent.state_dict().items()}
    noise = pair.learner.noise.state()
    pair.twin.act(OBS)
    with torch.no_grad():
        for value in pair.twin.agent.parameters():
            value.add_(1.0)
    assert all(torch.equal(before[k], v) for k, v in pair.agent.state_dict().items())
    assert torch.equal(noise, pair.learner.noise.state())


def test_actions_are_the_seeds_own(copies: list[int]) -> None:
    pair = Pair("sac")
    action = pair.twin.act(OBS)
    assert action.shape == (2, 2)
    assert not np.array_equal(action[0], action[1])
    again = Pair("sac")
    other = OBS.copy()
    other[1] += 1.0
    moved = again.twin.act(other)
    assert np.array_equal(action[0], moved[0])
    assert not np.array_equal(action[1], moved[1])


@pytest.mark.cuda
@pytest.mark.parametrize("algo", sorted(n for n, m in ALL_METHODS.items() if m.learns_online))
def test_a_captured_action_is_the_eager_one(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    captures: list[str] = []
    capture = noting(captures, "capture", SideStream.capture)
    monkeypatch.setattr(SideStream, "capture", capture)
    learner = Learner(small_agent(algo, SEEDS, "cuda", "online"))
    inputs, rng = Inputs(torch.zeros(3), torch.ones(3), 1.0, 0.0), np.random.default_rng(0)
    captured, eager = (
        Actor(
            recipe_of(algo, {}, capture=asked),
            *(learner, inputs, SeedStream(SEEDS, "explore/online", "cuda"), "device"),
        )
        for asked in (True, False)
    )
    for _ in range(8):
        obs = rng.normal(size=(len(SEEDS), 3)).astype(np.float32)
        np.testing.assert_allclose(captured.act(obs), eager.act(obs), rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            for parameter in learner.agent.parameters():
                parameter.mul_(0.9)
    assert captures == ["capture"], "one of the two captures, once"
    assert torch.equal(captured.stream.state(), eager.stream.state())


# -- where acting is faster


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("place", ["cpu", "device"])
def test_the_place_that_a_recipe_names_is_taken_unmeasured(
    place: ActingOn, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "Actor", None)
    learner: Any = SimpleNamespace(agent=SimpleNamespace(spec=small_spec(SEEDS, device)))
    inputs = Inputs.fit(recipe_for("sac").method, 3, None)
    assert faster_place(recipe_for("sac", acting=place), learner, inputs) == place


def test_on_a_cpu_the_agent_itself_acts_without_a_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acting, "Actor", None)
    learner = Learner(small_agent("sac", SEEDS, phase="online"))
    inputs = Inputs.fit(recipe_for("sac").method, 3, None)
    assert faster_place(recipe_for("sac"), learner, inputs) == "device"


Costs = dict[str, tuple[float, float]]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Costs], ActingOn]:
    """Measure on a clock of the test's own: seconds of the first action there, and of a later one.

    Acting without having forgotten costs nothing, as if no update had gone before.
    """

    def measure(costs: Costs) -> ActingOn:
        clock = [0.0]

        class Timed:
            def __init__(
                self, recipe: Any, learner: Any, inputs: Any, stream: Any, place: ActingOn
            ):
                self.left = [costs[place][0]] + TRIALS * [costs[place][1]]
                self.knows = False

            def act(self, obs: Any) -> None:
                assert obs.shape == (2, 3)
                clock[0] += 0.0 if self.knows else self.left.pop(0)
                self.knows = True

            def forget(self) -> None:
                self.knows = False

        monkeypatch.setattr(acting, "Actor", Timed)
        monkeypatch.setattr(acting, "SeedStream", lambda *_: None)  # no card to draw on
        monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
        spec = Spec(SEEDS, obs_dim=3, action_dim=1, device=torch.device("cuda"))
        learner: Any = SimpleNamespace(agent=SimpleNamespace(spec=spec))
        recipe = recipe_for("sac")
        return faster_place(recipe, learner, Inputs.fit(recipe.method, 3, None))

    return measure


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ({"cpu": (0.0, 1.0), "device": (0.0, 2.0)}, "cpu"),
        ({"cpu": (0.0, 2.0), "device": (0.0, 1.0)}, "device"),
        ({"cpu": (1e3, 1.0), "device": (0.0, 2.0)}, "cpu"),  # a first action warms up
        ({"cpu": (0.0, 2.0), "device": (1e3, 1.0)}, "device"),
    ],
)
def test_beside_a_card_the_faster_place_after_an_update_is_taken(
    costs: Costs, expected: ActingOn, timed: Callable[[Costs], ActingOn]
) -> None:
    assert timed(costs) == expected

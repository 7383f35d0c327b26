"""Where people wait: nothing is stepped in vain, built unasked, or counted as quick that is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors.torch import save

from baq_cli import machine
from baq_cli.agents.interface import Spec
from baq_cli.agents.iql import IQL
from baq_cli.agents.registry import make_agent
from baq_cli.data.collect import WIDTH, LoggedEpisode, collect
from baq_cli.data.suite import SUITE
from baq_cli.engine.collection.unbuilt import standing_in
from baq_cli.engine.evaluation import together
from baq_cli.engine.evaluation.acting import Player
from baq_cli.engine.evaluation.background import Setting
from baq_cli.engine.evaluation.cost import evaluations_left
from baq_cli.engine.evaluation.evaluator import Evaluator, env_seed
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.phases import busy as busy_cores
from baq_cli.engine.phases.busy import Busy
from baq_cli.engine.phases.outlook import Outlook
from baq_cli.engine.phases.timing import Laps, Pace
from baq_cli.engine.updates.device import on_threads
from baq_cli.engine.updates.threads import same_digits
from baq_cli.envs.faults import Checked
from baq_cli.envs.pool import EnvPool, environment_spaces
from baq_cli.envs.ref import EnvRef
from baq_cli.runs.events import ignore
from support.acting_probes import PROBE, probe, probe_of
from support.logs import listing
from support.odd_envs import LIMIT, STEADY
from support.runs import execute, recipe_of
from support.small_data import write_steady

Array = np.ndarray[Any, Any]
__all__ = ["PROBE", "probe"]
ID = "me/steady-v0"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the steps of every environment that is played in; one number, the last."""
    counted, step = [0], Checked.step

    def counting(env: Checked, action: Any) -> Any:
        counted[0] += 1
        return step(env, action)

    monkeypatch.setattr(Checked, "step", counting)
    return counted


# -- evaluation


SEEDS = (0, 1, 2)


def stepping_all(act: Any, seeds: tuple[int, ...], episodes: int, width: int) -> Array:
    """Return returns and lengths as they were before idle environments were left alone."""
    pool = EnvPool(STEADY, len(seeds) * width)
    found = np.zeros((2, len(seeds), episodes))
    row, episode = np.repeat(np.arange(len(seeds)), width), np.tile(np.arange(width), len(seeds))

    def starts() -> list[int]:
        pairs = zip(row.tolist(), episode.tolist(), strict=True)
        return [env_seed(seeds[r], "eval", "online/2", e) for r, e in pairs]

    obs = pool.reset(starts())
    while (running := episode < episodes).any():
        obs, reward, terminated, truncated = pool.step(act(obs, episode))
        for k in np.flatnonzero(running):
            found[:, row[k], episode[k]] += [reward[k], 1]
        over = terminated | truncated
        episode = episode + width * over
        if over.any():
            obs = pool.reset(starts(), over)
    pool.close()
    return found


@pytest.mark.parametrize(("episodes", "width"), [(7, 3), (10, 10), (5, 2)])
def test_an_evaluation_steps_what_its_episodes_need_and_no_digit_changes(
    episodes: int, width: int, steps: list[int]
) -> None:
    agent = probe_of(SEEDS, 1, 1.0)
    inputs = Inputs.fit(agent.config, 3, None)
    expected = stepping_all(Player(agent, inputs, width, "act/online/2"), SEEDS, episodes, width)
    in_vain, steps[0] = steps[0], 0
    with closing(Evaluator(STEADY, SEEDS, episodes, width)) as evaluator:
        found = np.stack(evaluator.evaluate(agent, inputs, "online/2"))
    assert_array_equal(found, expected)
    assert steps[0] == found[1].sum() < in_vain


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_shares_of_an_evaluation_are_the_whole_digit_for_digit(processes: int) -> None:
    agent = probe_of(SEEDS, 2, 1.0)
    inputs = Inputs.fit(agent.config, 3, None)

    def played(share: tuple[int, int]) -> Array:
        with closing(Evaluator(STEADY, SEEDS, 5, 3, share=share)) as evaluator:
            return np.stack(evaluator.evaluate(agent, inputs, 4))

    parts = [played((i, processes)) for i in range(processes)]
    assert_array_equal(np.sum(parts, axis=0), played((0, 1)))
    assert all((part[1] > 0).any() for part in parts), "each plays some"
    assert (np.sum([part[1] > 0 for part in parts], axis=0) == 1).all(), "none is played twice"


def test_others_are_started_for_an_evaluation_that_is_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = setting_of(episodes=50)
    monkeypatch.setattr(together, "seconds_a_step", lambda env: 1e-3)
    monkeypatch.setattr(together, "usable_cores", lambda: 4)
    assert together.processes_for(setting, 1_000) == 4  # 2 seeds × 50 × 1 000 × 1 ms
    assert together.processes_for(setting, 199) == 1
    monkeypatch.setattr(together, "usable_cores", lambda: 1)
    assert together.processes_for(setting, 1_000) == 1


def test_two_processes_play_what_one_does() -> None:
    setting = setting_of(episodes=4)
    spec = setting.spec
    agent = make_agent("bc", setting.recipe.method, spec, "offline")
    one, two = (
        together.evaluate_together(setting, agent, "command/0", count, ignore) for count in (1, 2)
    )
    assert_array_equal(np.stack(one), np.stack(two))


def setting_of(episodes: int) -> Setting:
    recipe = recipe_of("bc", {}, evaluation={"episodes": episodes})
    inputs = Inputs.fit(recipe.method, 3, None)
    spec = Spec((0, 1), 3, 1)
    return Setting(recipe, "offline", spec, "Pendulum-v1", save(inputs.tensors()))


# -- collection


@pytest.mark.parametrize("env_steps", [1, 4, 37, 160])
def test_a_collection_leaves_alone_what_no_row_comes_of(env_steps: int, steps: list[int]) -> None:
    """Its rows are the first of a longer collection, for which every environment steps on."""

    def rows(count: int) -> tuple[list[LoggedEpisode], int]:
        rng, asked = np.random.default_rng(3), [0]

        def act(obs: Array, _: Array) -> Array:
            asked[0] += 1
            drawn = np.tanh(obs[:, :1] + rng.normal(size=(WIDTH, 1)))
            return drawn.astype(np.float32)

        found = collect(STEADY, act, count, lambda n: env_seed(5, "collect", n))
        return found, asked[0] * WIDTH

    (found, every), fewer = rows(env_steps), steps[0]
    assert sum(len(episode.rewards) for episode in found) == env_steps <= fewer <= every
    assert fewer < every or env_steps == 1, "at the first step none holds enough"
    longer, _ = rows(env_steps + 4 * WIDTH * LIMIT)
    for one, other in zip(found, longer, strict=False):
        count = len(one.rewards)
        assert one.seed == other.seed
        assert one.terminated == (other.terminated and count == len(other.rewards))
        assert_array_equal(one.observations, other.observations[: count + 1])
        assert_array_equal(one.actions, other.actions[:count])
        assert_array_equal(one.rewards, other.rewards[:count])


@pytest.mark.parametrize("env_steps", [0, 1, 25])
def test_an_episode_is_not_played_beyond_the_last_row_of_a_collection(
    env_steps: int, steps: list[int]
) -> None:
    long = EnvRef.of("Pendulum-v1", {}, 1_000)
    found = collect(long, lambda obs, _: np.zeros((len(obs), 1)), env_steps, lambda n: n)
    assert [len(episode.rewards) for episode in found] == [env_steps] * bool(env_steps)
    assert not any(episode.terminated for episode in found)
    assert steps[0] <= WIDTH * env_steps


# -- a dry run


def test_what_stands_in_for_a_dataset_has_its_environments_spaces_and_one_long_episode() -> None:
    found = standing_in(SUITE["baq/pendulum/replay-v0"])
    assert found.spaces == environment_spaces("Pendulum-v1")
    assert found.lengths.tolist() == [200]
    assert found.obs.shape == (200, 3)
    assert found.origin.env_id == "Pendulum-v1"


def test_a_dry_run_names_what_would_be_built_and_builds_nothing(
    folder: Path, baq_here: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    words = ("--algos", "bc", "--dataset", "baq/pendulum/random-v0", "--seeds", "1")
    words += ("--gradient-steps", "10", "--env-steps", "10", "bc.hidden=[8,8]")
    before = listing(folder)
    code, out, said = baq_here("compare", *words, "--out", tmp_path / "c", "--dry-run", "--json")
    assert code == 0, said
    plan = json.loads(out)
    (dataset,), (cell,) = plan["datasets"], plan["cells"]
    assert dataset["dataset"] == "baq/pendulum/random-v0"
    assert dataset["seconds"] > 0 < cell["seconds"]
    assert plan["seconds"] == pytest.approx(dataset["seconds"] + cell["seconds"])
    assert listing(folder) == before
    assert not (tmp_path / "c").exists()


# -- threads


def test_threads_are_told_not_to_spin_unless_the_user_said_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in machine.WAITING:
        monkeypatch.delenv(name, raising=False)
    with monkeypatch.context() as own:
        own.setattr(os, "environ", dict(os.environ))
        machine.wait_without_holding_cores()
        assert {name: os.environ[name] for name in machine.WAITING} == machine.WAITING
    for name in machine.WAITING:
        with monkeypatch.context() as own:
            own.setattr(os, "environ", {name: "what the user said"})
            machine.wait_without_holding_cores()
            assert os.environ == {name: "what the user said"}


def heard_by(busy: Busy) -> list[str | None]:
    """Return what is said of a session that goes on with a run, and is slow from its fourth on."""
    steps, seconds = 5_000, 40.0
    heard = [busy.look(steps, seconds)]
    for made, spent in ((1000, 10.0), (1000, 19.0), (10, 5.0), (490, 6.0), (300, 12.0)):
        steps, seconds = steps + made, seconds + spent
        heard.append(busy.look(steps, seconds))
    return heard


def test_updates_that_take_more_than_twice_as_long_as_at_best_are_noticed_once() -> None:
    heard = heard_by(Busy(recipe_of("iql", {}), Spec((0, 1), 3, 1), "offline"))
    assert [bool(said) for said in heard] == [False, False, False, False, True, False]
    assert "2.2 times as long" in str(heard[4])


@pytest.mark.parametrize(
    ("asked", "fastest", "same", "after", "said"),
    [
        (None, 1, True, 1, "1 thread from here on"),
        (None, 1, False, 2, "its 2 threads stay"),
        (None, 2, True, 2, "2 threads are the fastest still"),
        (2, 1, True, 2, "busy"),
    ],
    ids=["changed", "other digits", "still the fastest", "the user's"],
)
def test_threads_are_chosen_anew_only_where_no_digit_changes_and_nobody_named_them(
    asked: int | None,
    fastest: int,
    same: bool,
    after: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(busy_cores, "choose_threads", lambda *_: fastest)
    monkeypatch.setattr(busy_cores, "same_digits", lambda *_: same)
    busy = Busy(recipe_of("iql", {}, threads=asked), Spec((0, 1), 3, 1), "offline")
    with on_threads(2):
        assert said in str(heard_by(busy)[4])
        assert torch.get_num_threads() == after


def test_digits_are_the_same_on_one_thread_twice_and_differ_where_a_sum_is_made_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, spec = recipe_of("iql", {}), Spec((0, 1), 3, 1)
    assert same_digits(recipe, spec, "offline", (1, 1))
    monkeypatch.setattr(IQL, "loss", by_threads(IQL.loss))
    assert not same_digits(recipe, spec, "offline", (1, 2))


def by_threads(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loss that another number of threads turns round."""

    def other(*args: Any, **known: Any) -> Any:
        found = loss(*args, **known)
        scale = 3 - 2 * torch.get_num_threads()
        found.terms = {name: term * scale for name, term in found.terms.items()}
        return found

    return other


# -- starting


def test_counting_an_updates_operations_does_not_load_a_compiler() -> None:
    code = (
        "import sys\n"
        "from baq_cli.bench.cost import operations\n"
        "assert operations('iql', 'offline') > 0\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- how long it takes still


@given(st.integers(1, 60), st.integers(1, 80), st.data())
def test_evaluations_left_are_those_that_a_phase_makes(
    total: int, every: int, data: st.DataObject
) -> None:
    done = data.draw(st.integers(0, total))
    after = [step for step in range(done + 1, total + 1) if step % every == 0 or step == total]
    assert evaluations_left(done, total, every) == len(after)


class Clock:
    """A clock that stands still unless it is moved on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 100.0
        for name in ("monotonic", "perf_counter"):
            monkeypatch.setattr(f"baq_cli.engine.phases.timing.time.{name}", lambda: self.now)


def test_time_left_counts_updates_at_their_own_pace_and_evaluations_beside_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, laps = Clock(monkeypatch), Laps()
    pace = Pace(0, 0, laps)
    clock.now += 10.0
    laps.lap("update")
    clock.now += 6.0
    laps.lap("evaluate")
    clock.now += 1.0
    laps.lap("write")
    made, rate, left = pace.at(100, 400, 100)
    assert (made, rate, left) == (100, 10.0, 30.0)
    assert laps.evaluated_share == 6 / 17
    recipe = recipe_of("iql", {}, gradient_steps=400, evaluation={"every_gradient_steps": 100})
    outlook = Outlook(recipe, "offline", None, None, False)  # type: ignore[arg-type]
    assert outlook.left(100, 400, left, laps) == 30.0 + 3 * 7.0
    assert outlook.left(350, 400, 5.0, laps) == 5.0 + 7.0
    assert outlook.left(400, 400, 0.0, laps) == 0.0


def test_a_long_phase_says_once_how_long_it_will_take() -> None:
    recipe = recipe_of("iql", {}, gradient_steps=400, evaluation={"every_gradient_steps": 100})
    heard: list[Any] = []
    outlook = Outlook(recipe, "offline", None, None, False)  # type: ignore[arg-type]
    outlook.say(10, 400, 750.0, 0.5, heard.append)
    assert heard == [], "before its rate is known"
    outlook.say(10, 400, 750.0, 1.5, heard.append)
    outlook.say(20, 400, 740.0, 2.0, heard.append)
    assert [e.text for e in heard] == [
        "offline: about 12 min left in all, its 4 evaluations included"
    ]
    outlook = Outlook(recipe, "offline", None, None, False)  # type: ignore[arg-type]
    outlook.say(10, 400, 59.0, 1.5, heard.append)
    assert len(heard) == 1


def test_a_manifest_says_what_evaluations_took_of_a_run(folder: Path, tmp_path: Path) -> None:
    write_steady(ID)
    watched = {"background": False, "estimate_updates": 5}
    execute(recipe_of("bc", {}, dataset=ID, gradient_steps=4, evaluation=watched), tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    spent = manifest["seconds_of_last_session"]
    share = manifest["evaluations_share_of_last_session"]
    assert 0 < share < 1
    assert share == pytest.approx(spent["evaluate"] / sum(spent.values()), abs=0.02)

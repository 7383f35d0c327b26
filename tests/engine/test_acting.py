"""Noise belongs to an episode, and a chunk of actions is done to its end unless its episode ends.

A seed's actions depend neither on its neighbours nor on how many episodes are played side by side,
in which process, or how often that was stopped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from baq_cli import load_policy
from baq_cli.agents.registry import METHODS
from baq_cli.data.collect import collect
from baq_cli.deploy.export import export_policy
from baq_cli.engine.checkpoints.folder import load_newest
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint
from baq_cli.engine.checkpoints.tensors import read_tensors, tensor_bytes
from baq_cli.engine.collection.rollouts import actor_of
from baq_cli.engine.evaluation.acting import ActionQueue, Player
from baq_cli.engine.evaluation.evaluator import Evaluator, env_seed
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.envs.making import make_env
from baq_cli.envs.ref import EnvRef
from baq_cli.errors import DataError, UsageError
from baq_cli.nets.streams import EpisodeNoise, SeedStream
from baq_cli.recipes.schema import Recipe
from baq_cli.units import Phase
from baq_cli.untrusted import TRUST_VARIABLE
from support.acting_probes import PROBE, place_of, probe, probe_of
from support.advice import follows
from support.builders import small_agent
from support.odd_envs import LIMIT, PLAN, STEADY, Odd
from support.recordings import own_folders
from support.runs import assert_same_end, execute, last_tensors, recipe_of, states, stopped_at

Array = np.ndarray[Any, Any]
__all__ = ["probe"]
CHUNK, ENV_STEPS, EVERY = 3, 24, 8
SEEDS = (0, 1, 2)


# -- noise


def draws(noise: EpisodeNoise, count: int, *rest: int) -> list[Array]:
    return [noise.normal(noise.width, *rest).numpy() for _ in range(count)]


def test_an_episode_draws_the_same_beside_any_others() -> None:
    wide, narrow = (EpisodeNoise((4, 7), width, "act/online/3") for width in (3, 1))
    together = draws(wide, 4, 2)
    for number in (1, 0, 2):
        narrow.enter([number, number])
        alone = draws(narrow, 4, 2)
        for one, other in zip(together, alone, strict=True):
            assert_array_equal(one[:, [number]], other)
    assert len({float(row[0]) for step in together for seed in step for row in seed}) == 4 * 2 * 3


def test_an_episode_goes_on_while_another_takes_its_neighbours_place() -> None:
    noise, whole = (EpisodeNoise((4,), 2, "act/0") for _ in range(2))
    first = draws(noise, 2)
    noise.enter([0, 5])
    then = draws(noise, 2)
    assert_array_equal(np.stack(first + then)[:, 0, 0], np.stack(draws(whole, 4))[:, 0, 0])
    fresh = EpisodeNoise((4,), 1, "act/0")
    fresh.enter([5])
    assert_array_equal(np.stack(then)[:, 0, 1], np.stack(draws(fresh, 2))[:, 0, 0])


def test_what_acts_draws_a_row_for_each_episode() -> None:
    with pytest.raises(ValueError, match=r"\[6\] for 3 episodes a seed"):
        EpisodeNoise((0,), 3, "act/0").uniform(6)


# -- chunks


@given(
    st.integers(1, 4),
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=12),
)
def test_a_decision_is_done_to_its_end_unless_its_episode_ends(
    chunk: int, ends: list[list[bool]]
) -> None:
    queue = ActionQueue(3, chunk, 2)
    begun = [0, 0, 0]  # the step at which each episode's present decision was made
    for step, over in enumerate(ends):
        for k in range(3):
            if step - begun[k] == chunk:
                begun[k] = step
        # a decision's j-th action is (its step, j)
        one = np.array([[step, j] for j in range(chunk)], dtype=np.float32).reshape(-1)
        decided = np.stack([one] * 3)
        expected = [[begun[k], step - begun[k]] for k in range(3)]
        assert_array_equal(queue.head(decided), expected)
        assert_array_equal(queue.head(decided + 100 * (chunk > 1)), expected)  # until it is done
        queue.done()
        queue.drop(np.array(over))
        begun = [step + 1 if over[k] else begun[k] for k in range(3)]


# -- evaluation


def played(
    seeds: tuple[int, ...],
    width: int,
    chunk: int = CHUNK,
    spread: float = 1.0,
    env: str = STEADY,
    timeout_seconds: float | None = None,
) -> Array:
    agent = probe_of(seeds, chunk, spread)
    inputs = Inputs.fit(agent.config, 3, None)
    with closing(Evaluator(env, seeds, 10, width, timeout_seconds)) as evaluator:
        return np.stack(evaluator.evaluate(agent, inputs, "online/2"))


@pytest.mark.parametrize(("chunk", "spread"), [(1, 1.0), (CHUNK, 0.0), (CHUNK, 1.0)])
def test_returns_depend_on_neither_width_nor_neighbours(chunk: int, spread: float) -> None:
    whole = played(SEEDS, 10, chunk, spread)
    assert len(np.unique(whole[1])) > 1, "episodes end at different steps"
    for width in (1, 3):
        assert_allclose(played(SEEDS, width, chunk, spread), whole, rtol=1e-5)
    for i, seed in enumerate(SEEDS):
        assert_allclose(played((seed,), 10, chunk, spread), whole[:, [i]], rtol=1e-5)


def test_returns_are_the_same_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    beside = played((0, 1), 10, env="support.odd_envs:Odd-v0", timeout_seconds=60.0)
    assert_allclose(beside, played((0, 1), 10), rtol=1e-5)


def test_noise_is_another_in_another_evaluation_and_the_same_again() -> None:
    agent = probe_of(SEEDS, 1, 1.0)
    inputs = Inputs.fit(agent.config, 3, None)
    obs, episode = np.zeros((3 * 2, 3), np.float32), np.array([0, 1] * 3)
    actions = [
        Player(agent, inputs, 2, f"act/online/{number}")(obs, episode) for number in (1, 1, 2)
    ]
    assert_array_equal(actions[0], actions[1])
    assert len(np.unique(np.concatenate(actions[1:]))) == 2 * 6, "none shares with another"


def test_an_evaluation_that_was_given_up_repeats() -> None:
    agent = probe_of(SEEDS, CHUNK, 1.0)
    inputs = Inputs.fit(agent.config, 3, None)
    steps = itertools.count()
    with closing(Evaluator(STEADY, SEEDS, 4)) as evaluator:
        assert evaluator.evaluate_unless(lambda: next(steps) == 3, agent, inputs, 0) is None
        again = np.stack(evaluator.evaluate(agent, inputs, 0))
    with closing(Evaluator(STEADY, SEEDS, 4)) as evaluator:
        assert_array_equal(again, np.stack(evaluator.evaluate(agent, inputs, 0)))


# -- runs


def recipe_for(
    seeds: tuple[int, ...] = SEEDS, chunk: int = CHUNK, spread: float = 0.5, **run: Any
) -> Recipe:
    method = {"chunk": chunk, "spread": spread, "warmup_env_steps": 0, "utd": 2}
    watched = {"episodes": 2, "every_env_steps": EVERY, "background": False}
    layer = {"env": STEADY, "env_steps": ENV_STEPS, "seeds": list(seeds), "evaluation": watched}
    return recipe_of(PROBE, method, **(layer | run))


def rows_of(run: Path) -> Array:
    """Return what the online store holds, `[S, env_steps, width]`: obs, action, and the rest."""
    newest = sorted((run / "checkpoints").glob("online-*"), key=lambda path: path.name)[-1]
    parts = [
        safetensors.torch.load_file(file)["rows"] for file in sorted(newest.glob("rows-*.safeten*"))
    ]
    return torch.cat(parts, dim=1).numpy()


def places(run: Path) -> tuple[Array, Array]:
    """Return at which step of its episode each row was done, and the place in its chunk."""
    rows = rows_of(run)
    return rows[..., 2].astype(int), place_of(rows[..., 3], CHUNK)


@pytest.mark.parametrize("how", [{}, {"overlap": True, "acting": "cpu"}])
def test_a_chunk_is_done_to_its_end_in_training(
    how: dict[str, Any], probe: str, tmp_path: Path
) -> None:
    execute(recipe_for(**how), tmp_path)
    time, place = places(tmp_path)
    assert_array_equal(place, time % CHUNK)
    assert (place != place[0]).any(), "seeds are out of phase"
    assert (np.diff(time, axis=1) < 0).any(1).all(), "episodes end, within chunks too"
    assert LIMIT % CHUNK


def test_a_seed_among_others_is_the_seed_alone(probe: str, tmp_path: Path) -> None:
    execute(recipe_for(), tmp_path / "all")
    together = last_tensors(tmp_path / "all")
    for i, seed in enumerate(SEEDS):
        execute(recipe_for((seed,)), tmp_path / str(seed))
        assert_array_equal(rows_of(tmp_path / str(seed))[0], rows_of(tmp_path / "all")[i])
        for name, tensor in last_tensors(tmp_path / str(seed)).items():
            if name.startswith(("agent/policy", "replay/queue", "training/stream")):
                assert_array_equal(tensor[0], together[name][i], err_msg=name)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("seeds", [(1,), SEEDS])
def test_a_run_resumed_within_a_chunk_ends_as_if_it_had_not_stopped(
    seeds: tuple[int, ...], overlap: bool, probe: str, tmp_path: Path
) -> None:
    recipe = recipe_for(seeds, overlap=overlap)
    heard = execute(recipe, tmp_path / "whole")
    within = 0
    for at, name in enumerate(list(states(tmp_path / "whole"))[:-1]):
        parts = stopped_at(tmp_path / "whole", name, tmp_path / name)
        kept = read_tensors(parts / "checkpoints" / name / "replay.safetensors")
        within += int((kept["queue_left"] > 0).sum())
        assert execute(recipe, parts, resume=True) == heard[at + 2 :]
        assert_same_end(tmp_path / "whole", parts)
    assert within, "some chunk was under way"


def test_evaluations_in_the_background_are_those_made_here(probe: str, tmp_path: Path) -> None:
    watched = {"episodes": 3, "every_env_steps": EVERY}
    heard, notes = {}, []
    for place in (True, False):
        recipe = recipe_for(evaluation=watched | {"background": place})
        heard[place] = execute(recipe, tmp_path / str(place), notes=notes)
    assert heard[True] == heard[False]
    assert not [note for note in notes if "process is gone" in note]
    pending = [name for name, state in states(tmp_path / "True").items() if state["pending"]]
    parts = stopped_at(tmp_path / "True", pending[0], tmp_path / "parts")
    again = execute(recipe_for(evaluation=watched | {"background": False}), parts, resume=True)
    assert again == heard[True][-len(again) :]
    assert_same_end(tmp_path / "True", parts)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_fault_drops_what_was_decided_on_ahead(
    steps: int, probe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_evaluation = len(SEEDS) * 2 * LIMIT
    at = first_evaluation + steps * len(SEEDS) + 1
    rows: dict[str, Array] = {}
    for name, plan in (("calm", ""), ("faulty", f"raises {at} {tmp_path / 'done'}")):
        monkeypatch.setenv(PLAN, plan)
        monkeypatch.setattr(Odd, "steps", 0)
        notes: list[str] = []
        execute(recipe_for(env="Odd-v0", env_steps=8), tmp_path / name, notes=notes)
        rows[name] = rows_of(tmp_path / name)
        assert any("made anew" in note for note in notes) == (name == "faulty")
    assert_array_equal(rows["faulty"][:, :steps], rows["calm"][:, :steps])
    time, place = places(tmp_path / "faulty")
    assert_array_equal(place, time % CHUNK)
    assert (time[:, steps] == 0).all()
    asked_again = rows["faulty"][:, steps, 3] != rows["calm"][:, steps, 3]
    assert asked_again.all(), "of the step that failed nothing is left"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"queue_left": torch.tensor([4, 0, 0])}, "more is left of its chunks than the 3 actions"),
        ({"queue_left": torch.tensor([-1, 0, 0])}, "more is left"),
        ({"queue_left": torch.zeros(2, dtype=torch.int64)}, "'queue_left'"),
        ({"queue": torch.zeros(3, 2)}, "'queue'"),
        ({"queue": None}, "lacks the tensor 'queue'"),
    ],
)
def test_a_queue_that_no_run_had_is_refused(
    change: dict[str, Any], said: str, probe: str, tmp_path: Path
) -> None:
    execute(recipe_for(env_steps=4), tmp_path)
    for name in states(tmp_path):
        path = tmp_path / "checkpoints" / name / "replay.safetensors"
        tensors = read_tensors(path) | change
        path.write_bytes(tensor_bytes({n: t for n, t in tensors.items() if t is not None}))
    with pytest.raises(DataError, match=said):
        load_newest(tmp_path, lambda _: None)


# -- elsewhere


@pytest.fixture
def trained(probe: str, tmp_path: Path) -> Iterator[Path]:
    with own_folders():
        execute(recipe_for((4,), env_steps=4), tmp_path / "run")
        yield tmp_path / "run"


def test_a_deployed_policy_plays_the_episodes_of_an_evaluation(trained: Path) -> None:
    returns, lengths, _ = evaluate_checkpoint(trained, None, 3, 6)
    policy, env = load_policy(trained), make_env(EnvRef.of(STEADY))
    for k in range(3):
        policy.reset(k, "command/6")
        obs, _ = env.reset(seed=env_seed(4, "eval", "command/6", k))
        total, steps, over = 0.0, 0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total, steps, over = total + float(reward), steps + 1, terminated or truncated
        assert (total, steps) == (returns[0, k], lengths[0, k])


def test_a_deployed_policys_episodes_differ_and_repeat_when_it_is_loaded_again(
    trained: Path,
) -> None:
    def first_actions() -> list[float]:
        policy = load_policy(trained)
        found = []
        for _ in range(3):
            found.append(float(policy(np.zeros(3))[0]))
            policy.reset()
        return found

    assert len(set(first_actions())) == 3
    assert first_actions() == first_actions()


@follows("'{}' decides on {} actions at once. Start other episodes with reset().")
def test_a_deployed_chunk_is_one_set_of_episodes(trained: Path) -> None:
    policy, obs = load_policy(trained), np.zeros((2, 3))
    found = [place_of(policy(obs), CHUNK) for _ in range(4)]
    assert_array_equal(np.stack(found)[..., 0], [[k % CHUNK] * 2 for k in range(4)])
    with pytest.raises(DataError, match=r"1 observations, in the middle of episodes of 2: 'probe'"):
        policy(obs[0])
    policy.reset()
    assert place_of(policy(obs[0]), CHUNK) == [0]


def test_collected_episodes_hold_whole_chunks(trained: Path) -> None:
    for deterministic in (True, False):
        act, _ = actor_of(trained, EnvRef.of(STEADY), "probe", 0, deterministic)
        for episode in collect(STEADY, act, 60, lambda number: number):
            place = place_of(episode.actions[:, 0], CHUNK)
            assert_array_equal(place, np.arange(len(place)) % CHUNK)


@pytest.mark.parametrize("algo", METHODS)
def test_a_method_explores_and_acts_within_bounds_in_each_form_that_it_has(algo: str) -> None:
    """A pre-trained policy explores too: data are collected with it."""
    method, obs = METHODS[algo], torch.randn(2, 5, 3)
    forms: dict[Phase, bool] = {"offline": method.learns_offline, "online": method.learns_online}
    for phase in (phase for phase, there in forms.items() if there):
        agent, noise = small_agent(algo, (0, 1), phase=phase), SeedStream((0, 1), "explore")
        for decide in (agent.explore, agent.act):
            action = decide(obs, noise)
            assert action.shape == (2, 5, 2 * agent.chunk)
            assert action.abs().max() <= 1


@pytest.mark.parametrize("algo", METHODS)
def test_a_method_names_all_that_it_explores_and_acts_with(algo: str) -> None:
    """A behaviour's file keeps these parts alone, so nothing else may matter."""
    method, obs = METHODS[algo], torch.randn(2, 5, 3)
    forms: dict[Phase, bool] = {"offline": method.learns_offline, "online": method.learns_online}
    for phase in (phase for phase, there in forms.items() if there):
        agent = small_agent(algo, (0, 1), phase=phase)
        for decide in (agent.explore, agent.act):
            before = decide(obs, SeedStream((0, 1), "explore"))
            with torch.no_grad():
                for name, tensor in agent.state_dict().items():
                    if not name.startswith(agent.acting_parts()):
                        tensor += 1
            assert torch.equal(decide(obs, SeedStream((0, 1), "explore")), before)


@pytest.mark.parametrize(("chunk", "spread"), [(1, 0.5), (CHUNK, 0.0)])
def test_what_is_no_plain_policy_is_not_exported(
    chunk: int, spread: float, probe: str, tmp_path: Path
) -> None:
    execute(recipe_for((4,), chunk, spread, env_steps=4), tmp_path / "run")
    why = "it decides on 3 actions at once" if chunk > 1 else "it acts with more than its policy"
    with pytest.raises(UsageError, match=f"'probe' acts has no export: {why}; use load_policy"):
        export_policy(tmp_path / "run", "torchscript", tmp_path / "out")
    assert not (tmp_path / "out").exists()

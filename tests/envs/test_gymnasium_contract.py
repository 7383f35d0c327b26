"""What Gymnasium promises an environment is kept on every path that an environment is on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from baq_cli.data.collect import collect, join
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.deploy.policy import load_policy
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint
from baq_cli.engine.checkpoints.tensors import tensor_bytes
from baq_cli.engine.evaluation.evaluator import Evaluator
from baq_cli.envs.making import make_env
from baq_cli.envs.pool import EnvPool, environment_spaces, seconds_a_step
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, ExitStatus, NonFiniteError
from baq_cli.untrusted import TRUST_VARIABLE
from support import strict_envs
from support.odd_envs import LIMIT, PLAN, STEADY
from support.policies import NAMES, exported, write_policy
from support.runs import assert_same_end, execute, recipe_of, states, stopped_at
from support.strict_envs import BOUNDS, TYPES, Strict

Array = np.ndarray[Any, Any]
MODULE = "support.strict_envs:"


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    Strict.made = Strict.closings = 0


def played(env_id: str, workers: bool = False) -> list[Array]:
    """Step three environments, resetting those whose episode is over; return all that they gave."""
    actions = np.random.default_rng(0).uniform(-1, 1, (3 * LIMIT, 3, 1)).astype(np.float32)
    with closing(EnvPool(env_id, 3, workers)) as pool:
        found = [pool.reset([5, 6, 7])]
        for number, action in enumerate(actions):
            obs, reward, terminated, truncated = pool.step(action)
            found += [obs, reward, terminated, truncated]
            over = terminated | truncated
            if number in (1, 4):
                over[number % 3] = True  # in the middle of its episode
            if over.any():
                found.append(pool.reset([number, number + 1, number + 2], over))
    return found


@pytest.mark.parametrize("workers", [False, True], ids=["here", "workers"])
def test_what_an_environment_may_do_changes_no_number(workers: bool) -> None:
    """Its array for observations is shared, its infos don't fit, it writes into its actions."""
    strict, steady = played(MODULE + "Strict-v0", workers), played(STEADY)
    assert len(strict) == len(steady) > 5 * LIMIT
    for one, other in zip(strict, steady, strict=True):
        assert_array_equal(one, other)


def test_each_environment_is_closed_once_though_that_raises() -> None:
    played("Strict-v0")
    seconds_a_step("Strict-v0", 3 * LIMIT)
    environment_spaces("Strict-v0")
    assert Strict.closings == Strict.made == (3 + 1) + (1 + 1) + 1


def test_every_command_that_makes_an_environment_lets_go_of_it_once(
    baq_here: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    name, env = "made/strict-v0", MODULE + "Strict-v0"
    for words in (
        ("data", "collect", name, "--env", env, "--behavior", "random", "--env-steps", "40"),
        ("data", "check", name, "--env", env),
        ("data", "export", name, "--to", "d4rl", "--out", tmp_path / "log.hdf5"),
        ("data", "import", tmp_path / "log.hdf5", "--id", "made/again-v0", "--env", env),
    ):
        status, _, said = baq_here(*words)
        assert status == 0, said
    assert Strict.closings == Strict.made > 10


def test_an_environment_that_fails_while_a_dataset_is_checked_is_named(
    baq_here: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "made/odd-v0"
    words = ("data", "collect", name, "--env", "Odd-v0", "--behavior", "random")
    assert baq_here(*words, "--env-steps", "20")[0] == 0
    monkeypatch.setenv(PLAN, "reset-raises 1 -")
    status, _, said = baq_here("data", "check", name, "--env", "Odd-v0")
    assert (status, said.count("\n")) == (ExitStatus.ENVIRONMENT, 1)
    assert "'Odd-v0': reset raised RuntimeError: nothing to start with" in said


@pytest.mark.parametrize("dtype", TYPES)
def test_a_run_its_evaluations_and_its_resume_keep_the_contract(dtype: str, tmp_path: Path) -> None:
    watched = {"episodes": 3, "every_env_steps": 8, "background": False}
    recipe = recipe_of(
        "sac",
        {"warmup_env_steps": 4},
        env=f"Strict-{dtype}-v0",
        env_steps=16,
        evaluation=watched,
        env_restarts=0,
    )
    execute(recipe, tmp_path / "whole")
    (middle, _) = states(tmp_path / "whole")
    notes: list[str] = []
    execute(
        recipe, stopped_at(tmp_path / "whole", middle, tmp_path / "b"), resume=True, notes=notes
    )
    assert_same_end(tmp_path / "whole", tmp_path / "b")
    assert not any("repeat itself" in note for note in notes)
    returns, _, _ = evaluate_checkpoint(tmp_path / "whole", None, 12, 0)
    assert returns.shape == (2, 12)


def test_workers_and_an_evaluation_beside_keep_the_contract(tmp_path: Path) -> None:
    for apart in (True, False):
        watched = {"episodes": 2, "every_env_steps": 12, "background": apart}
        run = {"env": MODULE + "Strict-float64-v0", "env_steps": 12, "env_restarts": 0}
        recipe = recipe_of(
            "sac", {"warmup_env_steps": 4}, env_workers=apart, evaluation=watched, **run
        )
        execute(recipe, tmp_path / str(apart))
    assert_same_end(tmp_path / "True", tmp_path / "False")


def test_an_action_that_is_not_a_number_reaches_no_environment_in_an_evaluation() -> None:
    evaluator = Evaluator("Strict-v0", (0, 1), 1)
    with closing(evaluator), pytest.raises(NonFiniteError, match=r"^action is NaN .* step 1 "):
        evaluator.play(lambda obs, _: np.full((len(obs), 1), np.nan, np.float32), 0)


# -- types of their own


def as_type(values: Any, dtype: str) -> Array:
    return np.asarray(values).astype(dtype)


@pytest.mark.parametrize(
    ("obs", "action"),
    [
        ("float16", "float32"),
        ("float16", "float16"),
        ("float64", "float64"),
        ("float64", "float32"),
    ],
    ids=str,
)
def test_spaces_of_any_type_go_from_collecting_to_an_exported_policy(
    obs: str,
    action: str,
    folder: Path,
    baq_here: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    env, name = f"{MODULE}Own-{obs}-{action}-v0", "made/own-v0"
    words = ("data", "collect", name, "--env", env, "--behavior", "random", "--env-steps", "80")
    assert baq_here(*words)[0] == 0
    status, out, said = baq_here("data", "check", name, "--env", env)
    assert (status, "recorded start seeds" in out + said) == (0, False), out + said
    recording = read_recording(open_minari(name))
    whole = {n: part.dtype.name for n, part in recording.observations.items()}
    assert whole == ({"": obs} if action == "float32" else {"place": obs, "time": "int64"})
    assert recording.actions.dtype == action
    space = make_env(env).action_space
    assert all(space.contains(row) for row in recording.actions)

    quick = {"episodes": 1, "background": False}
    pretrained = recipe_of("td3_bc", {}, env=env, dataset=name, gradient_steps=3, evaluation=quick)
    execute(pretrained, tmp_path / "a")
    tuned = recipe_of("td3_bc", {}, env=env, env_steps=6, evaluation=quick)
    execute(tuned, tmp_path / "b", source=tmp_path / "a")
    policy = load_policy(tmp_path / "b")
    row = load_episodes(name).observations[:9]
    assert policy(row).dtype == action
    assert all(space.contains(found) for found in (*policy(row), policy(row[0])))
    found = exported(tmp_path / "b", "onnx", tmp_path / "policy.onnx")(row)
    assert all(space.contains(one.astype(action)) for one in found)


def test_what_is_recorded_is_what_was_sent_and_what_came_back() -> None:
    sent: list[Array] = []

    class Noting(strict_envs.Own):
        def step(self, action: Any) -> Any:
            sent.append(action.copy())
            action[:] = 9.0
            return super().step(np.clip(action, *BOUNDS))

    gym.register("Heard-v0", lambda: Noting("float64", "float64"))
    try:
        rng = np.random.default_rng(0)

        def act(obs: Array, episode: Array) -> Array:
            return rng.choice([-1.0, -0.999, 0.1, 1.0], size=(len(obs), 1)).astype(np.float32)

        episodes = collect("Heard-v0", act, 30, lambda number: number)
    finally:
        gym.registry.pop("Heard-v0")
    recorded = np.concatenate([episode.actions for episode in episodes])
    assert recorded.min() == BOUNDS[0]
    assert recorded.max() == BOUNDS[1]
    assert set(recorded.ravel().tolist()) <= set(np.ravel(sent).tolist())
    first = gym.make("Own-float64-float64-v0")
    for episode in episodes:
        begun, _ = first.reset(seed=episode.seed)
        assert_array_equal(episode.observations[0, :2], begun["place"])
        assert (episode.observations[0, :2] != episode.observations[0, :2].astype("f4")).any()


def test_a_recording_has_the_parts_of_a_dict_in_their_own_types() -> None:
    env = "Own-float16-float64-v0"
    made = join(env, collect(env, lambda obs, _: np.zeros((len(obs), 1)), 25, lambda n: n), {})
    assert [part.dtype for part in made.observations.values()] == [np.float16, np.int64]
    assert made.observations["time"].max() == LIMIT
    assert made.episodes("made/x-v0").observations.dtype == np.float32


# -- policies outside of training

ODD_BOUNDS = [
    ((-0.3,), (0.1,), "float64"),
    ((0.1,), (0.1 + 1e-6,), "float64"),
    ((-1e30,), (7.0,), "float64"),
    ((-0.2998,), (0.09998,), "float16"),
    ((1e6,), (1e6 + 1,), "float64"),
]


@pytest.mark.parametrize(("low", "high", "dtype"), ODD_BOUNDS, ids=str)
def test_a_policy_and_its_files_stay_within_the_bounds(
    low: Any, high: Any, dtype: str, tmp_path: Path
) -> None:
    kind: Any = np.dtype(dtype).type
    space = gym.spaces.Box(np.array(low * 4, kind), np.array(high * 4, kind), dtype=kind)
    spaces = Spaces.of(gym.spaces.Box(-9, 9, (3,)), space)
    path = write_policy(tmp_path / "a.safetensors", spaces=spaces)
    obs = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32) * 1e4
    actions = load_policy(path)(obs)
    assert all(space.contains(action) for action in actions)
    assert actions.min() == space.low[0]
    assert actions.max() == space.high[0]
    assert_array_equal(load_policy(path)(obs[0]), actions[0])
    for name in NAMES:
        found = exported(path, name, tmp_path / name)(obs)
        assert found.dtype == np.float32
        assert (found >= float(space.low[0])).all()
        assert (found <= float(space.high[0])).all()
        assert all(space.contains(action.astype(dtype)) for action in found)


def test_bounds_that_float32_cant_tell_apart_have_a_policy_and_no_file(tmp_path: Path) -> None:
    spaces = Spaces(3, (0.1,), (0.1 + 1e-12,), (), "float64")
    path = write_policy(tmp_path / "a.safetensors", spaces=spaces)
    assert 0.1 <= load_policy(path)(np.ones(3)).item() <= 0.1 + 1e-12
    with pytest.raises(DataError, match=r"0\.1 and 0\.1000000000\d+, have no float32 number"):
        exported(path, "torchscript", tmp_path / "out")


@pytest.mark.parametrize(
    ("low", "dtype"), [(-2.0, "float32"), (-0.3, "float64")], ids=["float32", "float64"]
)
def test_a_checkpoint_from_before_types_were_kept_acts_within_its_bounds(
    low: float, dtype: str, tmp_path: Path
) -> None:
    path = write_policy(tmp_path / "a.safetensors", spaces=Spaces(3, (low,), (2.0,)))
    saved = ckpt.load(path)
    del saved.document["spaces"]["action_dtype"]
    path.write_bytes(tensor_bytes(saved.agent, saved.document))
    actions = load_policy(path)(np.random.default_rng(0).normal(size=(200, 3)) * 1e4)
    assert actions.dtype == dtype
    assert actions.min() == low


def test_an_action_space_of_a_wider_type_than_float64_is_acted_in() -> None:
    space = gym.spaces.Box(np.longdouble("-0.3"), np.longdouble("0.1"), (2,), np.longdouble)
    spaces = Spaces.of(gym.spaces.Box(-1, 1, (3,)), space)
    assert all(space.contains(spaces.to_env(np.full(2, a))) for a in (-1.0, 0.0, 1.0))


def test_whole_numbers_are_refused_with_the_way_around_and_that_works() -> None:
    whole = gym.spaces.Box(-3, 3, (2,), np.int32)
    with pytest.raises(DataError, match=r"whole numbers; gymnasium\.wrappers\.TransformAction"):
        Spaces.of(gym.spaces.Box(-1, 1, (3,)), whole)

    class Steps(strict_envs.Steady):
        action_space = whole

        def step(self, action: Any) -> Any:
            assert whole.contains(action)
            return super().step(action / 3)

    def rounded(action: Any) -> Any:
        return np.round(action).astype(np.int32)

    def make() -> Any:
        free = gym.spaces.Box(-3, 3, (2,), np.float32)
        return gym.wrappers.TransformAction(Steps(), rounded, free)

    gym.register("Steps-v0", make)
    try:
        with closing(EnvPool("Steps-v0", 2)) as pool:
            pool.reset([0, 1])
            pool.step(np.array([[0.2, 1.0], [-1.0, 0.7]], dtype=np.float32))
    finally:
        gym.registry.pop("Steps-v0")

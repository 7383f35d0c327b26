"""A loaded policy acts as `baq eval` does, and refuses what it can't act on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from baq_cli.agents.registry import METHODS
from baq_cli.data.suite import Trained
from baq_cli.deploy.policy import DeployedPolicy, load_one_seed, load_policy, plain_mode_of
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint, load_agent
from baq_cli.engine.checkpoints.tensors import tensor_bytes
from baq_cli.engine.evaluation.acting import Player
from baq_cli.engine.evaluation.evaluator import env_seed
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, UsageError
from baq_cli.nets.exports import NoExport
from baq_cli.runs.checkpoints import AGENT, STATE
from support.policies import DATASET, PENDULUM, ROBOT, Array, evaluated, observations, write_policy

PHASES = [(a, "offline") for a, m in sorted(METHODS.items()) if m.learns_offline]
PHASES += [(a, "online") for a, m in sorted(METHODS.items()) if m.learns_online]


# -- load_policy acts as evaluation does


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("algo", "phase"), PHASES)
def test_a_loaded_policy_acts_as_evaluation_does_bit_for_bit(
    algo: str, phase: str, normalised: bool, tmp_path: Path
) -> None:
    path = write_policy(tmp_path / "a.safetensors", algo, phase, normalised=normalised)
    policies = [load_policy(path, seed) for seed in (4, 7)]
    draws = isinstance(plain_mode_of(load_one_seed(path, 4).agent), NoExport)
    for count in (1, 7, 80):
        obs, expected = evaluated(path, count)
        assert expected.std() > 0.1
        for row, policy in enumerate(policies):
            if draws:
                assert_same_episodes(policy, obs[row], expected[row])
                continue
            assert_array_equal(policy(obs[row]), expected[row])
            if count == 1:
                assert_array_equal(policy(obs[row, 0]), expected[row, 0])


def assert_same_episodes(policy: DeployedPolicy, obs: Array, expected: Array) -> None:
    """Check that each observation begins an episode with the action that an evaluation's has.

    A policy that draws has noise for each episode. Several episodes at once are other products of
    matrices, which round in their own way; one alone is the same to the bit.
    """
    exact = len(obs) == 1
    for number, (seen, action) in enumerate(zip(obs, expected, strict=True)):
        policy.reset(number, "0")
        assert_allclose(policy(seen), action, rtol=0, atol=0 if exact else 1e-4)


@pytest.mark.parametrize("name", ["walker2d-50k", "pendulum-10k", "doublependulum-6k"])
def test_one_observation_is_acted_on_as_evaluation_would_with_large_networks(name: str) -> None:
    """Products of this size take other ways through the library than tiny ones."""
    agent, inputs, _ = load_agent(Trained(name).path)
    policy = load_policy(Trained(name).path)
    play = Player(agent, inputs, 1, "act/0")
    for obs in observations(inputs, 200):
        expected = policy.spaces.to_env(play(obs[None], np.zeros(1)))
        assert_array_equal(policy(obs), expected[0])
        assert_array_equal(policy(obs[None]), expected)


def test_a_control_loop_has_the_return_that_evaluation_prints(
    short_env: str, tmp_path: Path
) -> None:
    path = write_policy(tmp_path / "a.safetensors", "sac", spaces=PENDULUM, env_id=short_env)
    returns, lengths, _ = evaluate_checkpoint(path, None, 1, 0)
    env = gym.make(short_env)
    for row, seed in enumerate((4, 7)):
        policy, total, steps, over = load_policy(path, seed), 0.0, 0, False
        obs, _ = env.reset(seed=env_seed(seed, "eval", "command/0", 0))
        while not over:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total, steps, over = total + float(reward), steps + 1, terminated or truncated
        assert (total, steps) == (returns[row, 0], lengths[row, 0])


def test_shapes_types_and_whose_memory_it_is(tmp_path: Path) -> None:
    policy = load_policy(write_policy(tmp_path / "a.safetensors"))
    obs = observations(Inputs.from_tensors(ckpt.load(tmp_path / "a.safetensors").agent), 7)
    actions = policy(obs)
    assert (actions.shape, actions.dtype) == ((7, 3), np.float32)
    one = policy(obs[0])
    assert (one.shape, one.dtype) == ((3,), np.float32)
    assert policy(obs[:1]).shape == (1, 3)
    assert policy(obs[:0]).shape == (0, 3)
    kept = one.copy()
    policy(obs[1])
    assert_array_equal(one, kept)
    for same in (obs[0].astype(np.float64), obs[0].tolist(), torch.from_numpy(obs[0])):
        assert_array_equal(policy(same), kept)
    assert_array_equal(policy(np.asfortranarray(obs)), actions)
    whole = np.arange(5)
    assert_array_equal(policy(whole), policy(whole.astype(np.float32)))


def test_pytorchs_settings_stay_as_they_are(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "a.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    load_policy(path)(np.zeros(5))
    assert torch.get_num_threads() == 2
    assert torch.tensor([1e-39]).mul(0.5).item() > 0  # denormals are kept
    assert not torch.is_inference_mode_enabled()
    torch.set_num_threads(threads)


# -- which policy it is


def test_the_first_seed_acts_unless_another_is_named(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "a.safetensors")
    first, second = load_policy(path), load_policy(path, seed=7)
    assert (first.seed, second.seed, first.seeds) == (4, 7, (4, 7))
    assert repr(first) == "<td3_bc on Robot-v0, seed 4 of 4, 7: observations [5] to actions [3]>"
    assert "seed 7 of 4, 7" in repr(second)
    assert not np.array_equal(first(np.zeros(5)), second(np.zeros(5)))
    assert_array_equal(first(np.zeros(5)), load_policy(path, 4)(np.zeros(5)))
    with pytest.raises(UsageError, match=r"holds the seeds \[4, 7\], not 0"):
        load_policy(path, seed=0)


def test_a_policy_says_where_it_comes_from(tmp_path: Path) -> None:
    policy = load_policy(str(write_policy(tmp_path / "a.safetensors", "iql")))
    assert (policy.algo, policy.env_id, policy.spaces) == ("iql", "Robot-v0", ROBOT)
    assert (policy.obs_dim, policy.action_dim) == (5, 3)
    assert policy.document["dataset"] == DATASET
    assert_array_equal(policy.obs_mean, np.float32([-3, 0, 3, 6, 9]))
    assert (policy.obs_std[0], policy.obs_std[-1]) == (0.5, 4)


def test_nothing_but_the_agent_file_is_read(tmp_path: Path) -> None:
    path = write_policy(tmp_path / AGENT)
    for name in (STATE, ckpt.TRAINING, ckpt.REPLAY):
        (tmp_path / name).write_bytes(b"not what it should be")
    assert_array_equal(load_policy(tmp_path)(np.ones(5)), load_policy(path)(np.ones(5)))


def test_a_device_that_isnt_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_policy(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="expected cpu or cuda"):
        load_policy(path, device="gpu")
    for other in ("mps", "meta"):
        with pytest.raises(UsageError, match=f"'{other}' here: expected cpu or cuda"):
            load_policy(path, device=other)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no CUDA device"):
        load_policy(path, device="cuda")


@pytest.mark.cuda
def test_a_policy_acts_on_a_card_as_on_the_cpu(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "a.safetensors", "baq", "online")
    here, there = load_policy(path), load_policy(path, device="cuda")
    obs = np.random.default_rng(0).normal(size=(7, 5))
    assert_allclose(there(obs), here(obs), rtol=0, atol=1e-4)
    assert_allclose(there(obs[0]), here(obs[0]), rtol=0, atol=1e-4)


def test_importing_baq_imports_no_pytorch() -> None:
    code = "import sys, baq_cli, baq_cli.cli.main; help(baq_cli.load_policy); "
    code += "assert not {'torch', 'numpy', 'onnx', 'onnxruntime'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "one, by default the first" in done.stdout


# -- observations that are refused


@pytest.mark.parametrize(
    ("obs", "said"),
    [
        (np.zeros(4), r"shape \[4\]: expected \[5\], or \[B, 5\]"),
        (np.zeros(1), r"shape \[1\]"),
        (np.zeros((5, 1)), r"shape \[5, 1\]"),
        (np.zeros((1, 1, 5)), r"shape \[1, 1, 5\]"),
        (np.float64(1), r"shape \[\]"),
        (np.array([0, 0, np.nan, 0, 0]), r"nan at \[2\]: expected finite"),
        (np.array([[0, 0, 0, 0, 0], [0, np.inf, 0, 0, -np.inf]]), r"inf at \[1, 1\]"),
        (np.array([0, 0, 0, 0, 1e300]), r"inf at \[4\]: .* range of float32"),
        (np.array(["1"] * 5), "type <U1: expected numbers"),
        (np.array([1j] * 5), "type complex128"),
        ([None] * 5, "type object"),
        ([[1, 2, 3, 4, 5], [1]], "no array of numbers"),
        ({"a": np.zeros(5)}, "one array of 5 numbers, not a dict"),
        (np.ma.masked_array(np.zeros(5), mask=[0, 1, 0, 0, 0]), "masked: expected all of them"),
        (torch.zeros(5, requires_grad=True), "no array of numbers: .*requires grad"),
        (np.full(5, 3e38), r"action is not a number: .* too large for float32. .* 3e\+38"),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("error")
def test_an_observation_that_doesnt_fit_is_refused(obs: Any, said: str, tmp_path: Path) -> None:
    policy = load_policy(write_policy(tmp_path / "a.safetensors", normalised=False))
    with pytest.raises(DataError, match=said):
        policy(obs)


@pytest.mark.parametrize(
    "name", ["inputs.obs_std", "policy.net.layers.0.weight", "policy.net.layers.2.bias"]
)
def test_a_checkpoint_that_is_not_finite_is_refused(name: str, tmp_path: Path) -> None:
    path = write_policy(tmp_path / "a.safetensors")
    saved = ckpt.load(path)
    saved.agent[name].view(-1)[0] = np.nan
    path.write_bytes(tensor_bytes(saved.agent, saved.document))
    with pytest.raises(DataError, match=rf"'{name}'.*not finite"):
        load_policy(path)


def test_statistics_of_another_width_are_refused_not_broadcast(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "a.safetensors")
    saved = ckpt.load(path)
    saved.agent["inputs.obs_mean"] = torch.zeros(1)
    path.write_bytes(tensor_bytes(saved.agent, saved.document))
    with pytest.raises(DataError, match=r"obs_mean is torch.float32 \[1\]"):
        load_policy(path)


# -- Dict observations

GOAL = gym.spaces.Dict(
    {
        "arm": gym.spaces.Dict(
            {
                "joints": gym.spaces.Box(-1, 1, (2, 2)),
                "grip": gym.spaces.Box(0, 1, ()),
            }
        ),
        "goal": gym.spaces.Box(-1, 1, (3,), np.float64),
    }
)


@pytest.fixture
def goal_policy(tmp_path: Path) -> DeployedPolicy:
    spaces = Spaces.of(GOAL, gym.spaces.Box(-2, 2, (2,)))
    return load_policy(write_policy(tmp_path / "a.safetensors", spaces=spaces))


def batch_of(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {k: batch_of([obs[k] for obs in observations]) for k in observations[0]}
    return np.stack(observations)


def test_a_dict_observation_is_laid_out_as_the_environment_lays_it_out(
    goal_policy: DeployedPolicy,
) -> None:
    GOAL.seed(0)
    samples: list[Any] = [GOAL.sample() for _ in range(7)]
    flat = np.stack([gym.spaces.flatten(GOAL, sample) for sample in samples])
    expected = goal_policy(flat)
    for count in (1, 2, 7):
        assert_array_equal(goal_policy(batch_of(samples[:count])), goal_policy(flat[:count]))
    for sample, row in zip(samples, flat, strict=True):
        assert_array_equal(goal_policy(sample), goal_policy(row))
    unordered = dict(reversed(samples[0].items())) | {"unknown": np.zeros(9)}
    assert_array_equal(goal_policy(unordered), goal_policy(flat[0]))
    assert np.ptp(expected, axis=0).min() > 0


def test_a_single_row_is_a_batch_of_one_where_every_part_has_the_axis(tmp_path: Path) -> None:
    spaces = Spaces(3, (-1.0,), (1.0,), (("a", 2), ("b", 1)))
    policy = load_policy(write_policy(tmp_path / "a.safetensors", spaces=spaces))
    one, batch = {"a": np.ones(2), "b": np.ones(1)}, {"a": np.ones((1, 2)), "b": np.ones((1, 1))}
    assert (policy(one).shape, policy(batch).shape) == ((1,), (1, 1))
    assert_array_equal(policy(batch)[0], policy(one))
    assert policy({"a": np.ones((4, 2)), "b": np.ones(4)}).shape == (4, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"goal": np.array(["a", "b", "c"])}, "expected numbers"),
        ({"goal": np.zeros(2)}, "'goal': \\[2\\].*expected .*'goal': 3"),
        ({"arm": {"grip": 0.0}}, "no part 'arm/joints': it has \\['arm', 'goal'\\]"),
        ({"arm": np.zeros(5)}, "no part 'arm/grip'"),
        ({"goal": np.array([0, np.nan, 0])}, "finite"),
        ({"goal": np.ma.masked_array(np.zeros(3), mask=[1, 0, 0])}, "masked"),
        ({"goal": np.zeros((7, 3))}, "as many for each of a batch"),
    ],
)
def test_a_dict_that_doesnt_fit_is_refused(
    change: dict[str, Any], said: str, goal_policy: DeployedPolicy
) -> None:
    obs = {"arm": {"joints": np.zeros((2, 2)), "grip": 0.0}, "goal": np.zeros(3)}
    assert goal_policy(obs).shape == (2,)
    with pytest.raises(DataError, match=said):
        goal_policy(obs | change)

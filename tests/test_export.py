"""Policies outside of training: `load_policy` and exported files act as `baq eval` does.

Letters in shapes: S seeds, B observations.
"""

from __future__ import annotations

import copy
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cli import baq
from numpy.testing import assert_allclose, assert_array_equal
from runs import recipe_of

import baq_cli
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.data.suite import Trained
from baq_cli.engine import checkpoint as ckpt
from baq_cli.engine.deploy import DeployedPolicy, load_one_seed, load_policy
from baq_cli.engine.evaluation import Evaluator, env_seed
from baq_cli.engine.export import export_policy
from baq_cli.engine.files import tensor_bytes
from baq_cli.engine.graphs import FORMATS, ExportedPolicy, FormatName, Run
from baq_cli.engine.inputs import Inputs
from baq_cli.engine.restore import evaluate_checkpoint, load_agent
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, ExitStatus, UsageError
from baq_cli.nets.policies import DeterministicPolicy, GaussianPolicy
from baq_cli.nets.streams import SeedStream

Array = np.ndarray[Any, Any]
DOCUMENT = Path(__file__).parents[1] / "docs" / "deployment.md"
ROBOT = Spaces(5, (-2.0, -0.25, 1.0), (2.0, 0.75, 5.0))
PENDULUM = Spaces(3, (-2.0,), (2.0,))
NAMES: tuple[FormatName, ...] = ("onnx", "torchscript")
DATASET = {"id": "made/log-v0", "sha256": "ab" * 32, "episodes": 3}
PHASES = [(a, "offline") for a, m in sorted(METHODS.items()) if m.learns_offline]
PHASES += [(a, "online") for a, m in sorted(METHODS.items()) if m.learns_online]


def write_policy(
    path: Path,
    algo: str = "td3_bc",
    phase: str = "offline",
    seeds: tuple[int, ...] = (4, 7),
    spaces: Spaces = ROBOT,
    normalised: bool = True,
    env_id: str = "Robot-v0",
    **method: Any,
) -> Path:
    """Write an agent file as a run does, with weights large enough to reach the bounds."""
    recipe = recipe_of(algo, method, seeds=list(seeds))
    agent = make_agent(algo, recipe.method, Spec(seeds, spaces.obs_dim, spaces.action_dim))
    if phase == "online":
        agent.begin_online()
    tensors = {
        n: 2 * t if n.startswith(agent.acting_parts()) else t for n, t in agent.state_dict().items()
    }
    mean, std = torch.zeros(spaces.obs_dim), torch.ones(spaces.obs_dim)
    if normalised:
        mean, std = torch.linspace(-3, 9, spaces.obs_dim), torch.linspace(0.5, 4, spaces.obs_dim)
    document = {
        "format": ckpt.FORMAT,
        "algo": algo,
        "phase": phase,
        "recipe": recipe.as_dict(),
        "seeds": list(seeds),
        "env_id": env_id,
        "spaces": asdict(spaces),
        "return_range": [0.0, 1.0],
        "dataset": DATASET,
        "gradient_steps": 10,
        "env_steps": 20,
        "history": [],
    }
    tensors |= Inputs(mean, std, 1.0, 0.0).tensors()
    path.write_bytes(tensor_bytes(tensors, document))
    return path


def observations(inputs: Inputs, count: int, spread: float = 2.0) -> Array:
    """Return observations `[B, obs_dim]` float32 about the mean, some of them far away."""
    rng = np.random.default_rng(3)
    normal = rng.standard_t(2, size=(count, len(inputs.obs_mean)))
    return (inputs.obs_mean.numpy() + spread * inputs.obs_std.numpy() * normal).astype(np.float32)


def evaluated(path: Path, count: int) -> tuple[Array, Array]:
    """Return observations `[S, B, …]` and the environment's actions that evaluation gives them."""
    agent, inputs, saved = load_agent(path)
    seeds = agent.spec.seeds
    obs = np.stack([observations(inputs, count)] * len(seeds))
    evaluator: Any = SimpleNamespace(seeds=seeds, width=count)
    action = Evaluator._act(evaluator, agent, inputs, obs.reshape(-1, obs.shape[-1]))
    spaces = Spaces.from_fields(saved.document["spaces"])
    return obs, spaces.to_env(action).reshape(len(seeds), count, -1)


def exported(path: Path, name: FormatName, out: Path, **settings: Any) -> Run:
    """Export, and load what was written."""
    export_policy(path, name, out, **settings)
    return FORMATS[name].run(out)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- load_policy acts as evaluation does


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("algo", "phase"), PHASES)
def test_a_loaded_policy_acts_as_evaluation_does_bit_for_bit(
    algo: str, phase: str, normalised: bool, tmp_path: Path
) -> None:
    path = write_policy(tmp_path / "a.safetensors", algo, phase, normalised=normalised)
    for count in (1, 7, 80):
        obs, expected = evaluated(path, count)
        assert expected.std() > 0.1
        for row, seed in enumerate((4, 7)):
            policy = load_policy(path, seed)
            assert_array_equal(policy(obs[row]), expected[row])
            if count == 1:
                assert_array_equal(policy(obs[row, 0]), expected[row, 0])


@pytest.mark.parametrize("name", ["walker2d-50k", "pendulum-10k", "doublependulum-6k"])
def test_one_observation_is_acted_on_as_evaluation_would_with_large_networks(name: str) -> None:
    """Products of this size take other ways through the library than tiny ones."""
    agent, inputs, _ = load_agent(Trained(name).path)
    policy = load_policy(Trained(name).path)
    evaluator: Any = SimpleNamespace(seeds=(0,), width=1)
    for obs in observations(inputs, 200):
        expected = policy.spaces.to_env(Evaluator._act(evaluator, agent, inputs, obs[None]))
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


BY_HAND = {
    # z = ((3 − 1) / 2, (0 + 1) / 0.5) = (1, 2); hidden = (1 + 1 − 1, −1 + 2 − 2) = (1, −1) → (1, 0)
    (3.0, 0.0): 2 + 4 * math.tanh(0.5),
    # z = (−1, 0); hidden = (−2, −1) → (0, 0)
    (-1.0, -1.0): 2.0,
    # z = (0, 4); hidden = (2 − 1, 4 − 2) = (1, 2)
    (1.0, 1.0): 2 + 4 * math.tanh(0.5 - 2 * 0.125),
}


def by_hand(path: Path) -> Path:
    """Write a policy of two observations, two hidden units and an action in [−2, 6]."""
    write_policy(path, seeds=(0,), spaces=Spaces(2, (-2.0,), (6.0,)), hidden=[2])
    saved = ckpt.load(path)
    known = {
        "policy.net.layers.0.weight": [[1.0, -1.0], [0.5, 1.0]],
        "policy.net.layers.0.bias": [[-1.0, -2.0]],
        "policy.net.layers.1.weight": [[0.5], [-0.125]],
        "policy.net.layers.1.bias": [[0.0]],
        "inputs.obs_mean": [1.0, -1.0],
        "inputs.obs_std": [2.0, 0.5],
    }
    for name, values in known.items():
        saved.agent[name] = torch.tensor(values).reshape(saved.agent[name].shape)
    path.write_bytes(tensor_bytes(saved.agent, saved.document))
    return path


def test_the_actions_of_a_known_policy_are_those_computed_by_hand(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "a.safetensors")
    obs = np.array(list(BY_HAND), dtype=np.float32)
    expected = np.array([[action] for action in BY_HAND.values()])
    assert_allclose(load_policy(path)(obs), expected, rtol=0, atol=1e-6)
    for name in NAMES:
        assert_allclose(exported(path, name, tmp_path / name)(obs), expected, rtol=0, atol=1e-6)


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
    path = write_policy(tmp_path / ckpt.AGENT)
    for name in (ckpt.STATE, ckpt.TRAINING, ckpt.REPLAY):
        (tmp_path / name).write_bytes(b"not what it should be")
    assert_array_equal(load_policy(tmp_path)(np.ones(5)), load_policy(path)(np.ones(5)))


def test_a_device_that_isnt_here_is_refused(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="expected cpu or cuda"):
        load_policy(path, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA device"):
            load_policy(path, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
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
    with pytest.raises(DataError, match=r"obs_mean has the shape \[1\]"):
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


# -- exported files act as the policy does


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("algo", sorted(METHODS))
def test_an_exported_file_acts_as_the_policy_does(
    algo: str, name: FormatName, tmp_path: Path
) -> None:
    phase = "online" if METHODS[algo].learns_online else "offline"
    normalised = algo not in ("sac", "iql")
    path = write_policy(tmp_path / "a.safetensors", algo, phase, normalised=normalised)
    run, policy = exported(path, name, tmp_path / "out", seed=7), load_policy(path, 7)
    obs = observations(Inputs.from_tensors(ckpt.load(path).agent), 200)
    expected = policy(obs)
    half = (np.array(ROBOT.action_high) - ROBOT.action_low) / 2
    assert (np.abs(run(obs) - expected) <= 1e-5 * half).all()
    for count in (1, 7):
        found = run(obs[:count])
        assert (found.shape, found.dtype) == ((count, 3), np.float32)
        assert (np.abs(found - expected[:count]) <= 1e-5 * half).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_file_knows_the_bounds_and_never_leaves_them(
    name: FormatName, tmp_path: Path
) -> None:
    low, high = (-0.1, 1e-3, -2.0, 0.7), (0.3, 2e-3, 2.0, 0.9)
    path = write_policy(tmp_path / "a.safetensors", spaces=Spaces(3, low, high))
    run = exported(path, name, tmp_path / "out")
    obs = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * 1e4
    found = run(obs)
    assert (found >= np.float32(low)).all()
    assert (found <= np.float32(high)).all()
    for bound in (low, high):
        assert (found == np.float32(bound)).any(axis=0).all()
    assert_allclose(found, load_policy(path)(obs), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_that_is_not_finite_gives_an_action_that_is_not(
    name: FormatName, bad: float, tmp_path: Path
) -> None:
    path = write_policy(tmp_path / "a.safetensors")
    run = exported(path, name, tmp_path / "out")
    obs = np.zeros((5, 5), dtype=np.float32)
    np.fill_diagonal(obs[:4], bad)
    assert np.isnan(run(obs[:4])).all()
    assert_allclose(run(obs)[4], load_policy(path)(obs[4]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1), (2, 4), (5,), (1, 1, 5)])
@pytest.mark.parametrize("name", NAMES)
def test_an_exported_file_refuses_other_shapes(
    name: FormatName, shape: tuple[int, ...], tmp_path: Path
) -> None:
    run = exported(write_policy(tmp_path / "a.safetensors"), name, tmp_path / "out")
    with pytest.raises(Exception, match=r"(?i)expected"):
        run(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("kind", [DeterministicPolicy, GaussianPolicy])
@pytest.mark.parametrize("name", NAMES)
def test_a_policy_with_layer_norm_is_exported_whole(
    name: FormatName, kind: type[Any], tmp_path: Path
) -> None:
    one = load_one_seed(write_policy(tmp_path / "a.safetensors"), 4)
    one.agent.policy = kind(SeedStream((4,), "init"), 5, 3, (16, 16), layer_norm=True)
    with torch.no_grad():
        for number, parameter in enumerate(one.agent.policy.net.norms.parameters()):
            parameter.add_(torch.linspace(-0.4, 0.5, 16) * (number + 1))
    one.agent.policy.requires_grad_(False)
    out = tmp_path / "out"
    out.write_bytes(FORMATS[name].to_bytes(ExportedPolicy(one), "{}"))
    obs = observations(one.inputs, 100)
    assert_allclose(FORMATS[name].run(out)(obs), DeployedPolicy(one)(obs), rtol=0, atol=2e-5)


def expected_facts() -> dict[str, Any]:
    return {
        "baq": baq_cli.__version__,
        "algo": "bc",
        "env_id": "Robot-v0",
        "seed": 7,
        "obs_dim": 5,
        "obs_layout": [],
        "action_dim": 3,
        "action_low": [-2.0, -0.25, 1.0],
        "action_high": [2.0, 0.75, 5.0],
        "gradient_steps": 10,
        "env_steps": 20,
        "dataset": {"id": "made/log-v0", "sha256": "ab" * 32},
    }


def test_a_file_says_what_it_is_in_json(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "a.safetensors", "bc")
    onnx_file, script_file = tmp_path / "a.onnx", tmp_path / "a.pt"
    export_policy(path, "onnx", onnx_file, 7)
    export_policy(path, "torchscript", script_file, 7)
    session = onnxruntime.InferenceSession(onnx_file)
    assert json.loads(session.get_modelmeta().custom_metadata_map["baq"]) == expected_facts()
    found = {"baq.json": ""}
    torch.jit.load(script_file, _extra_files=found)
    assert json.loads(found["baq.json"]) == expected_facts()
    (obs,), (action,) = session.get_inputs(), session.get_outputs()
    assert (obs.name, obs.type, obs.shape) == ("obs", "tensor(float)", ["batch", 5])
    assert (action.name, action.type, action.shape) == ("action", "tensor(float)", ["batch", 3])
    model = onnx.load(onnx_file)
    assert (model.ir_version, [o.version for o in model.opset_import]) == (8, [17])


# -- what fails leaves nothing


def shifted(policy: ExportedPolicy) -> None:
    policy.layers[-2].bias += 1e-4


def not_finite(policy: ExportedPolicy) -> None:
    policy.layers[0].bias[0] = np.nan


def unscaled(policy: ExportedPolicy) -> None:
    policy.middle.zero_()
    policy.half_range.fill_(1.0)


def unnormalised(policy: ExportedPolicy) -> None:
    policy.obs_mean.zero_()


def too_wide(policy: ExportedPolicy) -> None:
    for name in ("low", "high", "middle", "half_range"):
        setattr(policy, name, getattr(policy, name).repeat(2))
    policy.layers[-2].weight.data = policy.layers[-2].weight.data.repeat(2, 1)
    policy.layers[-2].bias.data = policy.layers[-2].bias.data.repeat(2)


@pytest.mark.parametrize("harm", [shifted, not_finite, unscaled, unnormalised, too_wide])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_acts_otherwise_is_never_put_in_place(
    name: FormatName, harm: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMATS[name]

    def to_bytes(policy: ExportedPolicy, facts: str) -> bytes:
        harmed = copy.deepcopy(policy)
        harm(harmed)
        return form.to_bytes(harmed, facts)

    monkeypatch.setitem(FORMATS, name, replace(form, to_bytes=to_bytes))
    path = write_policy(tmp_path / "a.safetensors")
    for before in ([], [b"an earlier export"]):
        out = tmp_path / f"new{len(before)}" / "policy"
        for content in before:
            out.parent.mkdir()
            out.write_bytes(content)
        with pytest.raises(DataError, match="the file for"):
            export_policy(path, name, out)
        assert [file.read_bytes() for file in out.parent.iterdir()] == before


def test_a_large_policy_may_round_but_not_more(tmp_path: Path) -> None:
    """Beyond 1e-5 it is float32 that differs: the source is as far from exact numbers itself."""
    done = export_policy(Trained("walker2d-330k").path, "onnx", tmp_path / "out")
    ordinary, _, extreme = done["checks"]
    assert [check["count"] for check in done["checks"]] == [800, 100, 100]
    assert ordinary["largest_difference"] < 2e-5
    assert extreme["allowed"] > 1e-5


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_onnx_without_its_extra_names_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_policy(tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"pip install 'baq-cli\[onnx\]'"):
        export_policy(path, "onnx", tmp_path / "out")
    assert files(tmp_path) == ["a.safetensors"]
    export_policy(path, "torchscript", tmp_path / "out")


def test_a_file_that_cant_be_written_is_told_in_words(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="cannot write"):
        export_policy(path, "torchscript", path / "below" / "a file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot write"):
        export_policy(path, "torchscript", tmp_path / "folder")
    assert files(tmp_path) == ["a.safetensors", "folder"]


def test_a_method_with_another_way_to_act_is_loaded_and_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(self: Any, obs: torch.Tensor) -> torch.Tensor:
        return -self.policy.mode(obs)

    path = write_policy(tmp_path / "a.safetensors", "awac", spaces=PENDULUM)
    plain = load_policy(path)(np.ones(3))
    monkeypatch.setattr(METHODS["awac"], "act", act)
    assert_allclose(load_policy(path)(np.ones(3)), -plain, atol=1e-6)
    with pytest.raises(UsageError, match="'awac'"):
        export_policy(path, "torchscript", tmp_path / "out")
    assert files(tmp_path) == ["a.safetensors"]


# -- the document

BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


class Robot:
    """What the control loop of the document is connected to."""

    def __init__(self, faulty: int | None = None) -> None:
        self.faulty, self.sent, self.stopped = faulty, [], ""

    def running(self) -> bool:
        return len(self.sent) < 3 and not self.stopped

    def read(self) -> Array:
        return np.full(3, np.nan if len(self.sent) == self.faulty else 0.5)

    def send(self, action: Array) -> None:
        self.sent.append(action)

    def stop(self, why: str) -> None:
        self.stopped = why


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_code_in_the_document_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs" / "b"
    folder.mkdir(parents=True)
    path = write_policy(folder / ckpt.AGENT, seeds=(0, 1), spaces=PENDULUM)
    export_policy(path, "onnx", tmp_path / "policy.onnx")
    export_policy(path, "torchscript", tmp_path / "policy.pt")
    monkeypatch.chdir(tmp_path)
    robot, faulty = Robot(), Robot(faulty=1)
    found: dict[str, Any] = {"robot": robot}
    exec(compile(code, str(DOCUMENT), "exec"), found)
    if "robot" in code:
        exec(compile(code, str(DOCUMENT), "exec"), {"robot": faulty})
        assert_array_equal(robot.sent[0], load_policy(path)(np.full(3, 0.5)))
        assert "nan at [0]" in faulty.stopped or faulty.stopped == "too late"
        assert len(faulty.sent) <= 1
    else:
        expected = load_policy(path)(np.zeros(3))
        assert_allclose(np.ravel(found["action"]), expected, rtol=0, atol=2e-5)


# -- the command


@pytest.mark.parametrize("name", NAMES)
def test_the_command_says_what_it_wrote_and_nothing_else(name: str, tmp_path: Path) -> None:
    write_policy(tmp_path / ckpt.AGENT)
    words = ("export", "--checkpoint", tmp_path, "--format", name, "--out", tmp_path / "out" / "p")
    done = baq(*words, data=tmp_path)
    assert done.stderr == ""
    assert "td3_bc on Robot-v0, seed 4 of 4, 7" in done.stdout
    assert "800 ordinary" in done.stdout
    assert files(tmp_path / "out") == ["p"]
    found = json.loads(baq(*words, "--seed", "7", "--json", data=tmp_path).stdout)
    assert (found["format"], found["seed"], found["seeds"]) == (name, 7, [4, 7])
    assert found["checks"][0]["largest_difference"] <= 1e-5
    assert all(check["largest_difference"] <= check["allowed"] < 1e-3 for check in found["checks"])
    assert found["bytes"] == (tmp_path / "out" / "p").stat().st_size


def test_the_command_refuses_what_it_cant_do(
    baq_here: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = write_policy(tmp_path / "a.safetensors")
    words = ("export", "--checkpoint", path, "--out", tmp_path / "out", "--format")
    status, _, said = baq_here(*words, "onnx", "--seed", "3")
    assert (status, "[4, 7], not 3" in said) == (ExitStatus.USAGE, True)
    assert baq_here(*words, "pickle")[0] == ExitStatus.USAGE
    path.write_bytes(path.read_bytes()[:900])
    assert baq_here(*words, "torchscript")[0] == ExitStatus.DATA
    assert files(tmp_path) == ["a.safetensors"]

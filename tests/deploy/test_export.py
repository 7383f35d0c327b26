"""Exported files act as the checkpoint's policy does, or aren't there."""

from __future__ import annotations

import copy
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import baq_cli
from baq_cli.agents.baq import BAQ
from baq_cli.agents.registry import METHODS
from baq_cli.data.suite import Trained
from baq_cli.deploy.export import export_policy
from baq_cli.deploy.graphs import FORMATS, ExportedPolicy, FormatName
from baq_cli.deploy.policy import DeployedPolicy, load_one_seed, load_policy, plain_mode_of
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.tensors import tensor_bytes
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.envs.scaling import inner_bounds
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, ExitStatus, UsageError
from baq_cli.nets.exports import NoExport
from baq_cli.nets.policies import DeterministicPolicy, GaussianPolicy, TanhGaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.runs.checkpoints import AGENT
from support.builders import forward, small_agent
from support.cli import baq
from support.places import DOCS
from support.policies import (
    NAMES,
    PENDULUM,
    ROBOT,
    Array,
    exported,
    files,
    observations,
    write_policy,
)

DOCUMENT = DOCS / "deployment.md"

# -- exported files act as the policy does

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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("algo", sorted(METHODS))
def test_an_exported_file_acts_as_the_policy_does_or_it_is_said_why_there_is_none(
    algo: str, name: FormatName, tmp_path: Path
) -> None:
    phase = "online" if METHODS[algo].learns_online else "offline"
    normalised = algo not in ("sac", "iql")
    path = write_policy(tmp_path / "a.safetensors", algo, phase, normalised=normalised)
    policy, mode = load_policy(path, 7), plain_mode_of(load_one_seed(path, 7).agent)
    if isinstance(mode, NoExport):
        with pytest.raises(UsageError, match=f"'{algo}' acts has no export: {mode.reason}; use"):
            export_policy(path, name, tmp_path / "out", seed=7)
        assert files(tmp_path) == ["a.safetensors"]
        return
    run = exported(path, name, tmp_path / "out", seed=7)
    obs = observations(Inputs.from_tensors(ckpt.load(path).agent), 200)
    expected = policy(obs)
    half = (np.array(ROBOT.action_high) - ROBOT.action_low) / 2
    assert (np.abs(run(obs) - expected) <= 1e-5 * half).all()
    for count in (1, 7):
        found = run(obs[:count])
        assert (found.shape, found.dtype) == ((count, 3), np.float32)
        assert (np.abs(found - expected[:count]) <= 1e-5 * half).all()


@pytest.mark.parametrize("base", BAQ.BASES)
def test_baq_has_an_export_exactly_where_its_base_has_one(base: str) -> None:
    alone, ours = small_agent(base, (0,)), small_agent("baq", (0,), base=base)
    assert isinstance(plain_mode_of(ours), NoExport) == isinstance(plain_mode_of(alone), NoExport)


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_file_knows_the_bounds_and_never_leaves_them(
    name: FormatName, tmp_path: Path
) -> None:
    low, high = (-0.1, 1e-3, -2.0, 0.7), (0.3, 2e-3, 2.0, 0.9)
    path = write_policy(tmp_path / "a.safetensors", spaces=Spaces(3, low, high))
    run = exported(path, name, tmp_path / "out")
    obs = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * 1e4
    found = run(obs)
    assert (found >= np.array(low)).all()
    assert (found <= np.array(high)).all()
    first, last = inner_bounds(low, high, "float32")
    assert (found == first).any(axis=0).all()
    assert (found == last).any(axis=0).all()
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


@pytest.mark.parametrize("mean", ["tanh", "linear"])
@pytest.mark.parametrize("name", NAMES)
def test_an_awac_policy_is_exported_with_the_mean_that_it_has(
    name: FormatName, mean: str, tmp_path: Path
) -> None:
    path = write_policy(tmp_path / "a.safetensors", "awac", mean=mean)
    one = load_one_seed(path, 4)
    obs = observations(one.inputs, 100, 0.3)
    h = (obs.astype(np.float64) - one.inputs.obs_mean.numpy()) / one.inputs.obs_std.numpy()
    unit = forward(one.agent.policy.net, h[None])[0, 0]
    unit = np.tanh(unit) if mean == "tanh" else np.clip(unit, -1, 1)
    assert 0 < (np.abs(unit) < 0.9).mean() < 1
    low, high = np.asarray(ROBOT.action_low), np.asarray(ROBOT.action_high)
    expected = low + (unit + 1) / 2 * (high - low)
    policy = load_policy(path)
    assert_allclose(policy(obs), expected, rtol=0, atol=1e-4)
    assert_allclose([policy(row) for row in obs], expected, rtol=0, atol=1e-4)
    assert_allclose(exported(path, name, tmp_path / "out")(obs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DeterministicPolicy, {"layer_norm": True}),
        (GaussianPolicy, {"layer_norm": True}),
        (DeterministicPolicy, {"layer_norm": "after", "activation": "gelu"}),
        (DeterministicPolicy, {"activation": "silu"}),
        (DeterministicPolicy, {"activation": "leaky_relu"}),
        (DeterministicPolicy, {"activation": "tanh"}),
        (TanhGaussianPolicy, {"members": 3}),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_any_plain_policy_is_exported_whole(
    name: FormatName, kind: type[Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    one = load_one_seed(write_policy(tmp_path / "a.safetensors"), 4)
    one.agent.policy = kind(SeedStream((4,), "init"), 5, 3, (16, 16), **settings)
    with torch.no_grad():
        for number, parameter in enumerate(one.agent.policy.net.norms.parameters()):
            parameter.add_(torch.linspace(-0.4, 0.5, 16) * (number + 1))
    one.agent.policy.requires_grad_(False)
    out = tmp_path / "out"
    policy = ExportedPolicy(one, plain_mode_of(one.agent))
    out.write_bytes(FORMATS[name].to_bytes(policy, "{}"))
    obs = observations(one.inputs, 100)
    assert_allclose(FORMATS[name].run(out)(obs), DeployedPolicy(one)(obs), rtol=0, atol=2e-5)
    alone = [DeployedPolicy(one)(row) for row in obs[:5]]
    assert_allclose(alone, DeployedPolicy(one)(obs[:5]), rtol=0, atol=2e-5)


def expected_facts() -> dict[str, Any]:
    return {
        "baq": baq_cli.__version__,
        "algo": "bc",
        "env_id": "Robot-v0",
        "env_args": {},
        "max_episode_steps": None,
        "seed": 7,
        "obs_dim": 5,
        "obs_layout": [],
        "action_dim": 3,
        "action_low": [-2.0, -0.25, 1.0],
        "action_high": [2.0, 0.75, 5.0],
        "action_dtype": "float32",
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
    def act(self: Any, obs: torch.Tensor, noise: Any) -> torch.Tensor:
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
    path = write_policy(folder / AGENT, seeds=(0, 1), spaces=PENDULUM)
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
    write_policy(tmp_path / AGENT)
    words = ("export", "--checkpoint", tmp_path, "--format", name, "--out", tmp_path / "out" / "p")
    done = baq(*words, data=tmp_path)
    assert done.stderr == ""
    assert "td3_bc on Robot-v0, seed 4 of 4, 7" in done.stdout
    assert "800 ordinary" in done.stdout
    assert files(tmp_path / "out") == ["p"]
    first = (tmp_path / "out" / "p").read_bytes()
    again = baq(*words, "--seed", "7", data=tmp_path, expect=ExitStatus.USAGE)
    assert "p exists: choose another --out, or remove it" in " ".join(again.stderr.split())
    assert (tmp_path / "out" / "p").read_bytes() == first
    (tmp_path / "out" / "p").unlink()
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

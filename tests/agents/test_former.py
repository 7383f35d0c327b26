"""Runs of earlier versions go on as they began, whatever a default has become since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from numpy.testing import assert_allclose

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.cli.finetune import inherited
from baq_cli.deploy.policy import load_one_seed, load_policy
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.tensors import read_document, tensor_bytes
from baq_cli.errors import UsageError
from baq_cli.launch.cell_runs import recipe_of as recipe_of_cell
from baq_cli.launch.cells import Cell
from baq_cli.recipes.load import as_begun, reopen, resolve
from baq_cli.runs.checkpoints import AGENT
from support.builders import forward
from support.policies import observations, write_policy
from support.recordings import ID
from support.runs import assert_same_end, execute, recipe_of, states, stopped_at

NEW = {
    *("policy_hidden", "initialization", "policy_initialization", "last_layer_gain"),
    *("mean", "min_log_std", "max_log_std", "initial_log_std"),
    *("actor_q", "targets_move", "cql_target_gap", "cql_min_gap"),
    *("confidence", "align_to", "bound", "bound_weight", "bound_rate"),
}
"""Keys that documents of 0.1 don't have."""
WAS: dict[str, dict[str, Any]] = {
    "awac": {
        "hidden": (256, 256),
        "normalize_observations": False,
        "mean": "tanh",
        "min_log_std": -5.0,
    },
    "iql": {"reward_scale": 1.0},
    "cql": {
        "hidden": (256, 256),
        "normalize_observations": False,
        "policy_learning_rate": 1e-4,
        "cql_weight": 5.0,
    },
    "cal_ql": {"max_target_backup": False},
    "td3_bc": {"actor_q": "mean", "targets_move": "every_step"},
    "adaptive_bc": {"targets_move": "every_step"},
    "bc": {"normalize_observations": False},
    "baq": {"confidence": "spread", "constraint": "auto", "align_weight": 3.0},
}
"""What 0.1 did where today's default is another."""


def without_new(section: dict[str, Any]) -> dict[str, Any]:
    """Return a method's section as 0.1 wrote it, its base's section in it too."""
    nested = {k: without_new(v) if isinstance(v, dict) else v for k, v in section.items()}
    return {key: value for key, value in nested.items() if key not in NEW}


def age(file: Path) -> None:
    """Rewrite an agent file as 0.1 wrote it."""
    document = read_document(file)
    algo = document["algo"]
    document["recipe"][algo] = without_new(document["recipe"][algo])
    file.write_bytes(tensor_bytes(safetensors.torch.load_file(file), document))


@pytest.mark.parametrize("algo", sorted(METHODS))
def test_former_values_are_keys_that_a_method_has_and_valid(algo: str) -> None:
    model = METHODS[algo].Config
    used = {key: value for key, value in model.former.items() if key not in model.unused}
    assert set(model.former) <= set(model.model_fields)
    assert json.loads(json.dumps(used)) == used
    model.model_validate(used)


@pytest.mark.parametrize("algo", sorted(METHODS))
def test_a_recipe_without_new_keys_means_what_it_did(algo: str) -> None:
    was = resolve([{"algo": algo, algo: WAS.get(algo, {})}], method_configs()).as_dict()
    written: Any = was | {algo: without_new(was[algo])}  # type: ignore[arg-type]
    method = reopen(written, method_configs()).method
    for key, value in WAS.get(algo, {}).items():
        assert getattr(method, key) == value, key
    if algo == "baq":
        base = method.base_config()
        assert (base.actor_q, base.targets_move) == ("mean", "every_step")


@pytest.mark.parametrize("algo", sorted(WAS))
def test_a_resume_keeps_a_former_default_and_takes_what_it_is_told(algo: str) -> None:
    begun = resolve([{"algo": algo, algo: WAS[algo]}], method_configs())
    asked = resolve([{"algo": algo}], method_configs())
    assert asked.method != begun.method
    kept = as_begun(asked, begun).method
    assert {key: getattr(kept, key) for key in WAS[algo]} == WAS[algo]
    key, value = next((k, getattr(asked.method, k)) for k in WAS[algo])
    told = resolve([{"algo": algo, algo: {key: value}}], method_configs())
    assert getattr(as_begun(told, begun).method, key) == value
    today = resolve([{"algo": algo}], method_configs())
    assert as_begun(asked, today).method == asked.method


def test_a_policy_of_an_earlier_version_acts_as_it_did(tmp_path: Path) -> None:
    path = write_policy(tmp_path / AGENT, "awac", mean="tanh")
    age(path)
    one = load_one_seed(path, 4)
    obs = observations(one.inputs, 50, 0.3)
    h = (obs - one.inputs.obs_mean.numpy()) / one.inputs.obs_std.numpy()
    unit = np.tanh(forward(one.agent.policy.net, h[None])[0, 0])
    low, high = np.asarray(one.spaces.action_low), np.asarray(one.spaces.action_high)
    assert_allclose(load_policy(path)(obs), low + (unit + 1) / 2 * (high - low), atol=1e-4)
    (layer,) = inherited(ckpt.load(path), None, {})
    assert layer["awac"]["mean"] == "tanh"


def test_a_cell_of_an_earlier_version_has_the_recipe_that_it_had() -> None:
    was: Any = resolve([{"algo": "td3_bc", "td3_bc": WAS["td3_bc"]}], method_configs()).as_dict()
    cell = Cell("a/b-v0", "td3_bc", Path(), was | {"td3_bc": without_new(was["td3_bc"])}, "baq")
    assert recipe_of_cell(cell).as_dict() == was


@pytest.mark.parametrize("algo", ["awac", "iql", "td3_bc", "cql"])
def test_a_run_of_an_earlier_version_is_resumed_to_the_end_that_it_would_have_had(
    algo: str, steady_dataset: None, tmp_path: Path
) -> None:
    watched = {"episodes": 1, "background": False, "every_gradient_steps": 7}
    run = {"dataset": ID, "env": "Steady-v0", "gradient_steps": 20, "evaluation": watched}
    small = {"cql_actions": 2} if algo == "cql" else {}
    before = {k: v for k, v in METHODS[algo].Config.former.items() if k != "hidden"}
    execute(recipe_of(algo, small | before, **run), tmp_path / "whole")
    name = next(iter(states(tmp_path / "whole")))
    parts = stopped_at(tmp_path / "whole", name, tmp_path / "parts")
    for file in parts.glob("checkpoints/*/agent.safetensors"):
        age(file)
    execute(recipe_of(algo, small, **run), parts, resume=True)
    assert_same_end(tmp_path / "whole", parts)


def test_a_run_of_an_earlier_version_is_not_resumed_by_another_recipe(
    steady_dataset: None, tmp_path: Path
) -> None:
    run = {"dataset": ID, "env": "Steady-v0", "gradient_steps": 4}
    before = {k: v for k, v in METHODS["awac"].Config.former.items() if k != "hidden"}
    execute(recipe_of("awac", before, **run), tmp_path / "run")
    for file in (tmp_path / "run").glob("checkpoints/*/agent.safetensors"):
        age(file)
    asked = recipe_of("awac", {"mean": "linear"}, **run)
    with pytest.raises(UsageError, match=r"awac\.mean was tanh, this command says linear"):
        execute(asked, tmp_path / "run", resume=True)

"""How networks begin: the distributions that recipes name, in every layer and for every member."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.nets.mlp import MLP
from baq_cli.nets.start import Start
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Initialization
from support.builders import small_agent

SEEDS, MEMBERS, SIZES = (0, 1), 3, (5, 40, 30, 2)


def layers(start: Start) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Return weight `[S·N, n_in, n_out]` and bias of each layer."""
    first, *hidden, last = SIZES
    net = MLP(SeedStream(SEEDS, "init"), MEMBERS, first, hidden, last, start=start)
    found = []
    for layer in net.layers:
        weight, bias = (p.detach().flatten(0, 1).numpy() for p in layer.parameters())
        found.append((weight, bias))
    return found


def assert_orthogonal(weight: np.ndarray[Any, Any], gain: float) -> None:
    """Check that the fewer of rows and columns are orthogonal, of this length."""
    small = weight if weight.shape[1] <= weight.shape[2] else weight.transpose(0, 2, 1)
    square = small @ small.transpose(0, 2, 1)
    assert_allclose(
        square, np.broadcast_to(gain**2 * np.eye(len(square[0])), square.shape), atol=1e-5
    )


def test_orthogonal_layers_stretch_by_the_root_of_two() -> None:
    for weight, bias in layers(Start("orthogonal")):
        assert_orthogonal(weight, math.sqrt(2))
        assert (bias == 0).all()
        assert np.unique(weight[:, 0, 0]).size == len(SEEDS) * MEMBERS, "each has its own"


@pytest.mark.parametrize("how", ["uniform", "orthogonal", "normal"])
def test_a_last_layer_of_its_own_gain_leaves_the_others(how: Any) -> None:
    plain, ours = layers(Start(how)), layers(Start(how, last_gain=0.01))
    for one, other in zip(plain[:-1], ours[:-1], strict=True):
        assert (one[0] == other[0]).all()
    assert_orthogonal(100 * ours[-1][0], 1.0)
    assert (ours[-1][1] == 0).all()


def test_uniform_and_normal_layers_have_the_width_that_they_say() -> None:
    for (uniform, bias), (normal, zero), n_in in zip(
        layers(Start()), layers(Start("normal")), SIZES[:-1], strict=True
    ):
        assert np.abs(uniform).max() <= 1 / math.sqrt(n_in)
        assert uniform.std() == pytest.approx(1 / math.sqrt(3 * n_in), rel=0.15)
        assert 0 < np.abs(bias).max() <= 1 / math.sqrt(n_in)
        assert normal.std() == pytest.approx(1 / (2 * math.sqrt(n_in)), rel=0.15)
        assert np.abs(normal).max() > 1 / math.sqrt(n_in)
        assert (zero == 0).all()


def test_a_policy_begins_as_its_own_keys_say_and_with_its_own_layers() -> None:
    settings = {"initialization": "orthogonal", "policy_initialization": "uniform"}
    agent: Any = small_agent("cql", SEEDS, policy_hidden=(7, 6, 5), **settings)
    widths = [layer.weight.shape[-1] for layer in agent.policy.net.layers]
    assert widths == [7, 6, 5, 4]
    assert [layer.weight.shape[-1] for layer in agent.critic.net.layers] == [16, 16, 1]
    assert (agent.critic.net.layers[0].bias == 0).all()
    assert (agent.policy.net.layers[0].bias != 0).all()


def test_a_squashed_policys_log_std_begins_where_it_is_told() -> None:
    agent: Any = small_agent("sac", SEEDS, initial_log_std=-1.0, last_layer_gain=1e-6)
    _, log_std = agent.policy.head(torch.randn(2, 50, 3))
    assert_allclose(log_std.detach(), np.full((2, 50, 2), -1.0), atol=1e-4)


def test_glorot_layers_weigh_what_enters_and_what_leaves() -> None:
    for (weight, bias), n_in, n_out in zip(
        layers(Start("glorot")), SIZES[:-1], SIZES[1:], strict=True
    ):
        bound = math.sqrt(6 / (n_in + n_out))
        assert 0.8 * bound < np.abs(weight).max() <= bound
        assert (bias == 0).all()


def test_a_recipe_may_begin_all_networks_by_glorot() -> None:
    agent: Any = small_agent("td3_bc", SEEDS, initialization="glorot")
    for net, n_out in ((agent.critic.net, 1), (agent.policy.net, 2)):
        last = net.layers[-1]
        bound = math.sqrt(6 / (16 + n_out))
        assert 0.8 * bound < float(last.weight.detach().abs().max()) <= bound
        assert (last.bias == 0).all()


@pytest.mark.parametrize("how", sorted({*get_args(Initialization)} - {"small_last"}))
def test_hidden_biases_and_the_last_layers_bound_begin_where_they_are_told(how: Any) -> None:
    ours = layers(Start(how, hidden_bias=0.1, last_bound=3e-3))
    for (weight, bias), (plain, _) in zip(ours[:1], layers(Start(how))[:1], strict=True):
        assert (weight == plain).all()
        assert (bias == np.float32(0.1)).all()
    assert (ours[1][1] == np.float32(0.1)).all()
    for values in ours[-1]:
        assert 1e-3 < np.abs(values).max() <= 3e-3
        assert np.unique(values[:, 0, 0]).size == len(SEEDS) * MEMBERS


def test_small_last_layers_are_smaller_in_a_policy_than_in_critics() -> None:
    """As the code of EDAC, and of ReBRAC after it, has them."""
    agent: Any = small_agent("sac", SEEDS, initialization="small_last")
    for net, bound in ((agent.critic.net, 3e-3), (agent.policy.net, 1e-3)):
        *hidden, last = net.layers
        assert all((layer.bias == np.float32(0.1)).all() for layer in hidden)
        assert all(bound / 3 < p.abs().max() <= np.float32(bound) for p in last.parameters())


def test_a_last_layers_gain_counts_where_small_last_is_asked_for_too() -> None:
    settings = {"initialization": "small_last", "last_layer_gain": 0.01}
    agent: Any = small_agent("sac", SEEDS, **settings)
    first, *_, last = agent.critic.net.layers
    assert (first.bias == np.float32(0.1)).all()
    assert_orthogonal(100 * last.weight.detach().flatten(0, 1).numpy(), 1.0)


def test_a_last_layer_has_one_way_to_begin() -> None:
    with pytest.raises(ValueError, match="not both"):
        Start(last_gain=0.01, last_bound=3e-3)


def test_a_file_is_looked_at_without_importing_a_compiler() -> None:
    """PyTorch takes a second to import it, for operations on tensors that have no memory."""
    code = """
import sys
import torch
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, make_agent
for algo, method in METHODS.items():
    for phase in ("offline", "online"):
        make_agent(algo, method.Config(), Spec((0, 1), 3, 2, device=torch.device("meta")), phase)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("how", get_args(Initialization))
def test_without_memory_a_network_has_its_shapes(how: Initialization) -> None:
    start = Start(how)
    here, nowhere = (
        MLP(SeedStream(SEEDS, "init", torch.device(device)), MEMBERS, 5, (4,), 2, start=start)
        for device in ("cpu", "meta")
    )
    for one, other in zip(here.parameters(), nowhere.parameters(), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert (one.device.type, other.device.type) == ("cpu", "meta")

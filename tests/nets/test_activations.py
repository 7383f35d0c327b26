"""Hidden layers by the name of their activation, with a LayerNorm on either side, and dropout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.nets.mlp import MLP
from baq_cli.nets.perceptron import NORM_EPS
from baq_cli.nets.plain import ACTIVATIONS, Activation, Dropout
from baq_cli.nets.policies import DeterministicPolicy
from baq_cli.nets.streams import SeedStream
from support.builders import fill, numbers, tensor

SEEDS = (0, 1)
Array = np.ndarray[Any, Any]

FORMULAS: dict[Activation, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
}


def net_of(activation: Activation, layer_norm: Any = False) -> MLP:
    stream = SeedStream(SEEDS, "init")
    net = MLP(stream, 2, 3, (5, 4), 2, layer_norm, activation=activation).double()
    fill(net)
    return net


def by_hand(net: MLP, x: Array, function: Callable[[Array], Array], place: Any) -> Array:
    """Return the output `[S, N, B, n_out]` for x `[S, B, n_in]`."""
    h = np.stack([x] * net.members, axis=1)
    layers: Any = net.layers
    for i, layer in enumerate(layers):
        h = h @ layer.weight.detach().numpy() + layer.bias.detach().numpy()
        if i == len(layers) - 1:
            return h
        h = standard(net, i, h) if place is True else h
        h = function(h)
        h = standard(net, i, h) if place == "after" else h
    raise AssertionError("an MLP has layers")


def standard(net: MLP, i: int, h: Array) -> Array:
    norm: Any = net.norms[i]
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + NORM_EPS)
    return h * norm.weight.detach().numpy() + norm.bias.detach().numpy()


@pytest.mark.parametrize("place", [False, True, "after"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_network_computes_what_its_activation_and_its_norms_place_say(
    activation: Activation, place: Any
) -> None:
    net, x = net_of(activation, place), numbers(2, 6, 3, phase=0.2, size=2.0)
    expected = by_hand(net, x, FORMULAS[activation], place)
    assert_allclose(net(tensor(x)).detach(), expected, rtol=1e-12, atol=1e-12)
    assert_allclose(net(tensor(x), twice=True).detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gradients_of_every_order_reach_what_they_should(activation: Activation) -> None:
    net, x = net_of(activation, "after"), tensor(numbers(2, 4, 3)).requires_grad_()
    assert torch.autograd.gradcheck(net, (x,))
    assert torch.autograd.gradgradcheck(net, (x,))
    net(x, frozen=True).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in net.parameters())


def test_a_seed_computes_the_same_alone_and_among_others() -> None:
    x = torch.from_numpy(numbers(3, 8, 3)).float()

    def output(seeds: tuple[int, ...], rows: torch.Tensor) -> torch.Tensor:
        net = MLP(SeedStream(seeds, "init"), 2, 3, (16, 16), 1, "after", activation="gelu")
        return net(rows, dropout=Dropout(0.3, SeedStream(seeds, "noise")))

    together = output((4, 5, 6), x)
    for i, seed in enumerate((4, 5, 6)):
        alone = output((seed,), x[i : i + 1])
        assert_allclose(together[i].detach(), alone[0].detach(), rtol=1e-5, atol=1e-6)


# -- dropout


class Half:
    """A stream that gives 0.2, 0.7, 0.2, 0.7, …: a rate between them drops every other unit."""

    def uniform(self, *shape: int) -> torch.Tensor:
        whole = torch.full((len(SEEDS), *shape), 0.2, dtype=torch.float64)
        whole[..., 1::2] = 0.7
        return whole


def test_a_dropped_unit_gives_nothing_and_the_others_more() -> None:
    net, x = net_of("relu"), numbers(2, 6, 3)
    kept: Any = Half()

    def dropping(h: Array) -> Array:
        h = np.maximum(h, 0) / 0.6
        h[..., ::2] = 0
        return h

    found = net(tensor(x), dropout=Dropout(0.4, kept)).detach()
    assert_allclose(found, by_hand(net, x, dropping, False), rtol=1e-12, atol=1e-12)


def test_dropout_keeps_the_mean_and_drops_its_rate() -> None:
    policy = DeterministicPolicy(SeedStream(SEEDS, "init"), 3, 2, (400,))
    net = policy.net
    with torch.no_grad():
        net.layers[0].weight.zero_()
        net.layers[0].bias.fill_(1.0)
        net.layers[1].weight.fill_(1 / 400)
        net.layers[1].bias.zero_()
    obs = torch.zeros(2, 300, 3)
    found = policy.mode(obs, dropout=Dropout(0.1, SeedStream(SEEDS, "noise"))).atanh()
    assert found.mean().item() == pytest.approx(1.0, abs=0.01)
    assert found.std().item() == pytest.approx(math.sqrt(0.1 / 0.9 / 400), rel=0.1)
    assert (policy.mode(obs).atanh() - 1).abs().max() < 1e-5

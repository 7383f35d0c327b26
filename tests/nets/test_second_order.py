"""Gradients of gradients: networks by plain operations, and losses about a critic's slope."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.interface import Batch, Losses
from baq_cli.agents.sac import SAC
from baq_cli.nets.critics import QEnsemble
from baq_cli.nets.mlp import MLP
from baq_cli.nets.streams import SeedStream
from support.builders import fill, numbers, tensor
from support.own_methods import SEEDS, assert_recorded_is_eager, trained

ROUNDING = {"rtol": 1e-11, "atol": 1e-11}


def small_net(layer_norm: bool = False, n_out: int = 2, members: int = 2) -> MLP:
    """Return a float64 network with known parameters, away from the kinks of its ReLUs."""
    net = MLP(SeedStream(SEEDS, "init"), members, 3, (5, 4), n_out, layer_norm).double()
    fill(net)
    return net


def inputs(*shape: int, phase: float = 0.4) -> Tensor:
    return tensor(numbers(*shape, phase=phase)).requires_grad_()


def first_slopes(y: Tensor, wanted: list[Tensor]) -> tuple[Tensor, ...]:
    weight = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape)
    return torch.autograd.grad((y * weight).sum(), wanted)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("rows", [5, 70])
def test_plain_operations_give_the_numbers_of_the_fused_pass(layer_norm: bool, rows: int) -> None:
    net, x, each = small_net(layer_norm), inputs(2, rows, 2), inputs(2, rows, 3, 1, phase=0.9)
    wanted = [x, each, *net.parameters()]
    fused, plain = net(x, each=each), net(x, each=each, twice=True)
    assert torch.equal(fused, plain)
    for one, other in zip(first_slopes(plain, wanted), first_slopes(fused, wanted), strict=True):
        torch.testing.assert_close(one, other, **ROUNDING)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_second_derivatives_are_those_of_finite_differences(layer_norm: bool) -> None:
    net = small_net(layer_norm)

    def of(x: Tensor, *parameters: Tensor) -> Tensor:
        return net(x, twice=True)  # its parameters are moved where they lie

    arguments = (inputs(2, 2, 2, 3), *net.parameters())
    assert torch.autograd.gradcheck(of, arguments)
    assert torch.autograd.gradgradcheck(of, arguments)


def test_a_frozen_network_has_second_derivatives_in_its_input_alone() -> None:
    net, x = small_net(layer_norm=True), inputs(2, 4, 3)
    (slope,) = torch.autograd.grad(net(x, frozen=True, twice=True).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in net.parameters())


# -- the slope of a critic in the action


def linear_critics(members: int) -> QEnsemble:
    """Return critics of one hidden layer whose units are all on: Q is linear in the action."""
    critic = QEnsemble(SeedStream(SEEDS, "init"), 1, 2, (2,), members).double()
    fill(critic)
    with torch.no_grad():
        critic.net.layers[0].bias.fill_(10.0)
    return critic


def test_a_linear_critics_slope_is_the_product_of_its_weights() -> None:
    critic = linear_critics(3)
    obs, action = tensor(numbers(2, 4, 1)), tensor(numbers(2, 4, 2, phase=0.8))
    values, slope = critic.slopes(obs, action)
    first, last = (layer.weight.detach() for layer in critic.net.layers)
    expected = (first @ last)[..., 1:, 0]  # [S, N, 2]
    torch.testing.assert_close(slope, expected.unsqueeze(2).expand(-1, -1, 4, -1), **ROUNDING)
    torch.testing.assert_close(values, critic(obs, action), **ROUNDING)


def test_two_linear_critics_are_turned_apart_by_the_gradient_of_their_cosine() -> None:
    """d cos(u, v)/du = (v/|v| − cos u/|u|)/|u|: what the loss asks of u = W₁ w₂, the slope."""
    critic = linear_critics(2)
    obs, action = tensor(numbers(2, 4, 1)), tensor(numbers(2, 4, 2, phase=0.8))
    first, last = (layer.weight for layer in critic.net.layers)
    loss = cosine(critic.slopes(obs, action)[1]).mean(1).sum()
    (found,) = torch.autograd.grad(loss, last)
    for s in range(2):
        w1, w2 = first[s].detach()[:, 1:], last[s].detach()[:, :, 0]  # [N, 2, 2], [N, 2]
        u, v = (w1[i] @ w2[i] for i in range(2))
        cos = u @ v / (u.norm() * v.norm())
        for i, (one, other) in enumerate([(u, v), (v, u)]):
            by_slope = (other / other.norm() - cos * one / one.norm()) / one.norm()
            torch.testing.assert_close(found[s, i, :, 0], w1[i].mT @ by_slope, **ROUNDING)


def cosine(slope: Tensor) -> Tensor:
    """Return the cosine of two critics' slopes, `[S, N, B, A]` to `[S, B]`."""
    unit = slope / slope.norm(dim=-1, keepdim=True)
    return (unit[:, 0] * unit[:, 1]).sum(-1)


def test_a_seeds_slopes_are_the_same_alone_and_among_others() -> None:
    def losses(seeds: tuple[int, ...], row: slice) -> dict[str, Tensor]:
        critic = QEnsemble(SeedStream(seeds, "init"), 3, 2, (16, 16), 2, layer_norm=True)
        obs = torch.from_numpy(numbers(3, 8, 3)[row]).float()
        action = torch.from_numpy(numbers(3, 8, 2, phase=0.7)[row]).float()
        cosine(critic.slopes(obs, action)[1]).mean(1).sum().backward()
        return {n: p.grad for n, p in critic.named_parameters() if p.grad is not None}

    together = losses((4, 5, 6), slice(None))
    for i, seed in enumerate((4, 5, 6)):
        for name, grad in losses((seed,), slice(i, i + 1)).items():
            assert_allclose(together[name][i], grad[0], rtol=1e-4, atol=1e-6, err_msg=name)


# -- inside an update


class Diverse(SAC):
    """SAC whose critics are pushed apart: its loss holds a gradient of a gradient."""

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        losses = super().loss(batch, noise, active)
        values, slope = self.critic.slopes(batch.obs, batch.action)
        alike = cosine(slope).mean(1)
        losses.terms["critic"] = (
            losses.terms["critic"] + alike + 0.01 * values.square().mean((1, 2))
        )
        losses.metrics["alike"] = alike.detach()
        return losses


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_recorded_update_with_a_second_order_term_is_the_eager_one_in_every_bit(
    layer_norm: bool,
) -> None:
    assert_recorded_is_eager(Diverse, layer_norm=layer_norm)


@pytest.mark.cuda
def test_a_captured_update_with_a_second_order_term_is_the_eager_one() -> None:
    (captured, found), (_, expected) = (
        trained(Diverse, capture, "cuda") for capture in (True, False)
    )
    assert captured.graphs, "the test is of captured updates"
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].cpu(), value.cpu(), 1e-4, 1e-5, err_msg=name)

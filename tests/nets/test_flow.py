"""Policies from noise: flows along Euler steps, their matching loss, and one-step policies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.interface import Batch, Group, Losses
from baq_cli.agents.sac import SAC
from baq_cli.nets.flow import FlowPolicy, NoisePolicy
from baq_cli.nets.streams import SeedStream
from support.builders import KnownNoise, fill, numbers, tensor
from support.own_methods import SEEDS, assert_recorded_is_eager


def linear_flow(steps: int = 4, seeds: tuple[int, ...] = SEEDS) -> FlowPolicy:
    """Return the field v(s, x, t) = s − x/2 + t/4 of one dimension: its network has one layer."""
    flow = FlowPolicy(SeedStream(seeds, "init"), 1, 1, (), steps).double()
    with torch.no_grad():
        flow.net.layers[0].weight.copy_(tensor([1.0, -0.5, 0.25]).view(3, 1))
        flow.net.layers[0].bias.zero_()
    return flow


def known_flow(**settings: Any) -> FlowPolicy:
    flow = FlowPolicy(SeedStream(SEEDS, "init"), 3, 2, (6, 5), **settings).double()
    fill(flow)
    return flow


def test_euler_steps_of_a_linear_field_are_those_made_by_hand() -> None:
    """From x₀ = 0.4 at s = 0.2, with steps of 1/4: v is 0, 0.0625, 0.1171875, 0.165…"""
    flow = linear_flow()
    obs, start = (
        torch.full((2, 1, 1), 0.2, dtype=torch.float64),
        torch.full((2, 1, 1), 0.4, dtype=torch.float64),
    )
    x = 0.4
    for time in (0.0, 0.25, 0.5, 0.75):
        x += (0.2 - 0.5 * x + 0.25 * time) / 4
    assert x == pytest.approx(0.486181640625, rel=1e-14)
    assert_allclose(flow.carry(obs, start).detach(), [[[x]], [[x]]], rtol=1e-14)


def test_many_steps_reach_the_solution_of_the_differential_equation() -> None:
    """x' = −x/2 with s = t/4 taken off: x(1) = x₀ e^(−1/2)."""
    flow = linear_flow(steps=2_000)
    with torch.no_grad():
        flow.net.layers[0].weight[:, :, 2] = 0.0
    end = flow.carry(torch.zeros(2, 1, 1).double(), torch.full((2, 1, 1), 0.8, dtype=torch.float64))
    assert_allclose(end.detach(), torch.full((2, 1, 1), 0.8 * 0.6065306597), rtol=1e-3)


def test_a_flow_ends_within_the_bounds_and_is_not_held_there_on_its_way() -> None:
    flow = linear_flow(steps=1)
    obs = torch.tensor([-9.0, 9.0]).double().view(1, 2, 1).expand(2, -1, -1)
    assert_allclose(flow.mode(obs).detach(), [[[-1.0], [1.0]]] * 2)
    # Two steps from −6: −3.75, then −2.0; held at −1 after the first, the second would end at 0.06.
    far = linear_flow(steps=2)
    start = torch.full((2, 2, 1), -6.0, dtype=torch.float64)
    found = far.carry(torch.full((2, 2, 1), 1.5, dtype=torch.float64), start)
    x = -6.0 + (1.5 + 3.0) / 2
    x += (1.5 - 0.5 * x + 0.25 * 0.5) / 2
    assert x < -1
    assert_allclose(found.detach(), torch.full((2, 2, 1), -1.0))


def test_the_matching_error_of_a_linear_field_is_the_one_made_by_hand() -> None:
    """s = 0.2, a = 0.5, x₀ = −1, t = 0.25: x_t = −0.625, v = 0.575, a − x₀ = 1.5."""
    flow, one = linear_flow(), torch.ones(2, 1, 1).double()
    error = flow.error_at(0.2 * one, 0.5 * one, -1.0 * one, 0.25 * one)
    assert_allclose(error.detach(), ((0.575 - 1.5) ** 2 * one), rtol=1e-12)


def test_the_error_of_a_batch_draws_the_start_and_then_the_time() -> None:
    flow = known_flow()
    obs, action = tensor(numbers(2, 5, 3)), tensor(numbers(2, 5, 2, phase=0.6))
    noise: Any = KnownNoise()
    found = flow.matching_error(obs, action, noise)
    start, time = tensor(noise.normals[0]), tensor(noise.uniforms[0])
    assert start.shape == (2, 5, 2)
    assert time.shape == (2, 5, 1)
    x = time * action + (1 - time) * start
    expected = (flow.velocity(obs, x, time) - action + start).square()
    assert_allclose(found.detach(), expected.detach(), rtol=1e-12)


def test_many_actions_a_state_are_those_carried_one_by_one() -> None:
    obs, starts = tensor(numbers(2, 5, 3)), tensor(numbers(2, 5, 4, 2, phase=0.8))
    flow = known_flow(steps=3)
    many = flow.carry_many(obs, starts)
    step = NoisePolicy(SeedStream(SEEDS, "init"), 3, 2, (6,), squashed=True).double()
    fill(step)
    several = step.many_from_noise(obs, starts)
    for k in range(4):
        alone = flow.carry(obs, starts[:, :, k])
        assert_allclose(many[:, :, k].detach(), alone.detach(), rtol=1e-12)
        alone = step.from_noise(obs, starts[:, :, k])
        assert_allclose(several[:, :, k].detach(), alone.detach(), rtol=1e-12)


def test_a_flow_learns_where_the_actions_are() -> None:
    """Actions of state ±1 lie at ±0.6: so do, nearly, those that the trained flow ends at."""
    stream = SeedStream(SEEDS, "noise")
    flow = FlowPolicy(SeedStream(SEEDS, "init"), 1, 1, (32, 32))
    adam = torch.optim.Adam(flow.parameters(), 3e-3)
    obs = torch.tensor([-1.0, 1.0]).repeat(32).view(1, 64, 1).expand(2, -1, -1)
    for _ in range(300):
        adam.zero_grad()
        flow.matching_error(obs, 0.6 * obs, stream).mean().backward()
        adam.step()
    drawn = flow.draw(obs, stream).detach()
    assert (drawn - 0.6 * obs).abs().mean() < 0.1


# -- one step


def test_a_one_step_policy_is_unbounded_where_it_is_distilled_and_clipped_where_it_acts() -> None:
    policy = NoisePolicy(SeedStream(SEEDS, "init"), 3, 2, (6, 5)).double()
    fill(policy, size=3.0)
    obs, noise = tensor(numbers(2, 30, 3)), KnownNoise()
    acted = policy.draw(obs, noise)  # type: ignore[arg-type]
    raw = policy.from_noise(obs, tensor(noise.normals[0]))
    assert raw.abs().max() > 1
    assert_allclose(acted.detach(), raw.detach().clamp(-1, 1))


def test_noise_may_have_its_own_size_and_bound() -> None:
    init = SeedStream(SEEDS, "init")
    policy = NoisePolicy(init, 3, 2, (6,), noise_dim=50, noise_bound=1.5, squashed=True)
    z = policy.draw_noise(SeedStream(SEEDS, "noise"), 40)
    assert z.shape == (2, 40, 50)
    assert z.abs().max() == 1.5
    none = NoisePolicy(init, 3, 2, (6,), noise_dim=0)
    obs = torch.randn(2, 4, 3)
    assert torch.equal(none.draw(obs, SeedStream(SEEDS, "noise")), none.mode(obs))


# -- laws


def test_a_seed_draws_the_same_alone_and_among_others() -> None:
    obs = torch.from_numpy(numbers(3, 8, 3)).float()

    def drawn(seeds: tuple[int, ...], rows: Tensor) -> list[Tensor]:
        flow = FlowPolicy(SeedStream(seeds, "init"), 3, 2, (16, 16), layer_norm="after")
        step = NoisePolicy(SeedStream(seeds, "init"), 3, 2, (16, 16))
        noise = SeedStream(seeds, "noise")
        error = flow.matching_error(rows, flow.draw(rows, noise), noise)
        return [error, flow.draw_many(rows, 3, noise), step.draw(rows, noise), step.mode(rows)]

    together = drawn((4, 5, 6), obs)
    for i, seed in enumerate((4, 5, 6)):
        for one, other in zip(together, drawn((seed,), obs[i : i + 1]), strict=True):
            assert_allclose(one[i].detach(), other[0].detach(), rtol=1e-4, atol=1e-5)


def test_a_frozen_flow_passes_gradients_to_its_start_alone() -> None:
    flow, start = known_flow(steps=2), tensor(numbers(2, 3, 2, size=0.1)).requires_grad_()
    flow.carry(tensor(numbers(2, 3, 3)), start, frozen=True).sum().backward()
    assert start.grad is not None
    assert all(p.grad is None for p in flow.parameters())


class Flowing(SAC):
    """A flow by cloning, and a one-step policy distilled from it that follows the critics."""

    def build(self, init: SeedStream) -> None:
        super().build(init)
        sizes = self.spec.obs_dim, self.spec.action_dim, (16, 16)
        self.flow = FlowPolicy(init, *sizes, steps=3, layer_norm="after")
        self.one_step = NoisePolicy(init, *sizes)

    def groups(self) -> dict[str, Group]:
        modules = (self.critic, self.flow, self.one_step)
        return super().groups() | {"critic": Group(modules, 3e-4)}

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        losses = super().loss(batch, noise, active)
        cloning = self.flow.matching_error(batch.obs, batch.action, noise).mean((1, 2))
        z = self.one_step.draw_noise(noise, batch.obs.shape[1])
        with torch.no_grad():
            carried = self.flow.carry(batch.obs, z)
        action = self.one_step.from_noise(batch.obs, z)
        q = self.critic(batch.obs, action.clamp(-1, 1), frozen=True).mean((1, 2))
        distilled = (action - carried).square().mean((1, 2))
        losses.terms["critic"] = losses.terms["critic"] + cloning + distilled - q
        return losses


def test_a_recorded_update_of_a_flow_is_the_eager_one_in_every_bit() -> None:
    assert_recorded_is_eager(Flowing)

"""What policies offer methods: members, heads, frozen sampling; and what they say of exports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

from baq_cli.nets.exports import NoExport, PlainMode
from baq_cli.nets.flow import FlowPolicy, NoisePolicy
from baq_cli.nets.plain import ACTIVATIONS
from baq_cli.nets.policies import (
    ActingPolicy,
    DeterministicPolicy,
    GaussianPolicy,
    Policy,
    TanhGaussianPolicy,
    squash,
)
from baq_cli.nets.streams import SeedStream
from support.builders import KnownNoise, fill, numbers, tensor

SEEDS = (0, 1)


def made(kind: Any, seeds: tuple[int, ...] = SEEDS, hidden: Any = (6, 5), **settings: Any) -> Any:
    policy = kind(SeedStream(seeds, "init"), 3, 2, hidden, **settings).double()
    fill(policy)
    return policy


# -- several members


def test_members_act_as_the_gaussian_of_their_mixtures_moments() -> None:
    policy = made(TanhGaussianPolicy, members=3)
    obs = tensor(numbers(2, 5, 3))
    means, log_stds = (part.detach().numpy() for part in policy.heads(obs))
    assert means.shape == log_stds.shape == (2, 3, 5, 2)
    mean = means.mean(1)
    variance = (means**2 + np.exp(log_stds) ** 2).mean(1) - mean**2
    found_mean, found = (part.detach() for part in policy.head(obs))
    assert_allclose(found_mean, mean, rtol=1e-12)
    assert_allclose(found, 0.5 * np.log(variance), rtol=1e-10)
    assert_allclose(policy.mode(obs).detach(), np.tanh(mean), rtol=1e-12)
    noise = KnownNoise()
    action, log_prob = policy.sample(obs, noise)
    pre_tanh = mean + np.sqrt(variance) * noise.normals[0]
    assert_allclose(action.detach(), np.tanh(pre_tanh), rtol=1e-9)
    assert_allclose(log_prob.detach(), policy.log_prob(obs, action).detach(), rtol=1e-6)


def test_members_that_agree_are_one_of_them() -> None:
    one, three = made(TanhGaussianPolicy), made(TanhGaussianPolicy, members=3)
    with torch.no_grad():
        for own, each in zip(one.parameters(), three.parameters(), strict=True):
            each.copy_(own.expand_as(each))
    obs = tensor(numbers(2, 5, 3))
    for ours, theirs in zip(three.head(obs), one.head(obs), strict=True):
        assert_allclose(ours.detach(), theirs.detach(), rtol=1e-10)


def test_a_member_may_look_at_observations_of_its_own() -> None:
    policy = made(TanhGaussianPolicy, members=2)
    obs = tensor(numbers(2, 2, 5, 3))
    mean, log_std = policy.heads(obs)
    eps = tensor(numbers(2, 2, 5, 2, phase=0.3))
    action, log_prob = squash(mean, log_std, eps)
    assert action.shape == (2, 2, 5, 2)
    assert log_prob.shape == (2, 2, 5)
    for i in range(2):
        alone = policy.heads(obs[:, i])[0][:, i]
        assert_allclose(mean[:, i].detach(), alone.detach(), rtol=1e-12)


def test_a_seeds_members_are_the_same_alone_and_among_others() -> None:
    obs = torch.from_numpy(numbers(3, 8, 3)).float()

    def sampled(seeds: tuple[int, ...], rows: Tensor) -> Tensor:
        policy = TanhGaussianPolicy(SeedStream(seeds, "init"), 3, 2, (16, 16), members=4)
        return policy.sample(rows, SeedStream(seeds, "noise"))[0]

    together = sampled((4, 5, 6), obs)
    for i, seed in enumerate((4, 5, 6)):
        alone = sampled((seed,), obs[i : i + 1])[0]
        assert_allclose(together[i].detach(), alone.detach(), rtol=1e-5, atol=1e-6)


# -- frozen


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DeterministicPolicy, {}),
        (GaussianPolicy, {}),
        (TanhGaussianPolicy, {}),
        (TanhGaussianPolicy, {"members": 3}),
        (FlowPolicy, {"steps": 2}),
        (NoisePolicy, {}),
    ],
)
def test_a_frozen_policy_samples_the_same_and_passes_gradients_to_its_input_alone(
    kind: Any, settings: dict[str, Any]
) -> None:
    policy: ActingPolicy = made(kind, **settings)
    obs = tensor(numbers(2, 5, 3, size=0.2)).requires_grad_()
    noises: list[Any] = [KnownNoise(size=0.2) for _ in range(4)]
    action = policy.draw(obs, noises[0], frozen=True)
    assert torch.equal(action, policy.draw(obs, noises[1]))
    total = action.sum() + policy.mode(obs, frozen=True).sum()
    if isinstance(policy, Policy):
        sampled, log_prob = policy.sample(obs, noises[2], frozen=True)
        total = total + log_prob.sum() + policy.log_prob(obs, sampled, frozen=True).sum()
    total.backward()
    assert obs.grad is not None
    assert obs.grad.abs().max() > 0
    assert all(p.grad is None for p in policy.parameters())


def test_a_sample_that_is_not_clipped_keeps_its_gradient_beyond_the_bounds() -> None:
    policy = made(GaussianPolicy)
    mean = torch.full((2, 1, 2), 0.9, dtype=torch.float64).requires_grad_()
    noise: Any = KnownNoise(size=50.0)
    free = policy.sample_about(mean, noise, clip=False)
    assert free.abs().min() > 1
    free.sum().backward()
    assert mean.grad is not None
    assert_allclose(mean.grad, np.ones((2, 1, 2)))
    std = policy.head(torch.zeros(2, 1, 3).double())[1].exp()
    assert_allclose(free.detach(), 0.9 + std.detach() * tensor(noise.normals[0]), rtol=1e-12)


def test_a_pull_is_the_factor_of_the_squared_distance_in_the_regressions_loss() -> None:
    """−log π(a|s) is, but for what doesn't hang on μ, `pull` times mean_j (a_j − μ_j)²."""
    policy = made(GaussianPolicy)
    with torch.no_grad():
        policy.log_std.copy_(tensor([[[-0.7, -0.7]], [[0.4, 0.4]]]))
    obs, action = tensor(numbers(2, 5, 3)), tensor(numbers(2, 5, 2))
    mean = policy.mean(obs)
    loss = policy.log_density(mean, mean) - policy.log_density(mean, action)
    distance = (action - mean).square().mean(-1)
    assert_allclose(loss.detach(), (policy.pull()[:, None] * distance).detach(), rtol=1e-9)
    assert not policy.pull().requires_grad


# -- what can be exported


MODES: list[tuple[Any, dict[str, Any]]] = [
    (DeterministicPolicy, {}),
    (DeterministicPolicy, {"layer_norm": True}),
    (DeterministicPolicy, {"hidden": ()}),
    (GaussianPolicy, {"mean": "linear"}),
    (TanhGaussianPolicy, {}),
    (TanhGaussianPolicy, {"members": 3}),
    (TanhGaussianPolicy, {"members": 3, "hidden": ()}),
    (TanhGaussianPolicy, {"members": 3, "hidden": (6, 5, 4), "activation": "silu"}),
    *((DeterministicPolicy, {"activation": a, "layer_norm": "after"}) for a in ACTIVATIONS),
]


@pytest.mark.parametrize(("kind", "settings"), MODES)
def test_the_plain_layers_of_a_policy_give_its_mode(kind: Any, settings: dict[str, Any]) -> None:
    policy = made(kind, **settings)
    mode = policy.exports
    assert isinstance(mode, PlainMode)
    obs = tensor(numbers(2, 5, 3))
    with torch.no_grad():
        found = nn.Sequential(*mode.layers(2)).double()(obs[0]).clamp(-1, 1)
        assert_allclose(found, policy.mode(obs)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        (TanhGaussianPolicy, {"members": 2, "layer_norm": True}, "laid side by side"),
        (FlowPolicy, {}, "fresh noise"),
        (NoisePolicy, {}, "fresh noise"),
    ],
)
def test_what_can_t_act_from_a_file_says_why(
    kind: Any, settings: dict[str, Any], reason: str
) -> None:
    refusal = made(kind, **settings).exports
    assert isinstance(refusal, NoExport)
    assert reason in refusal.reason

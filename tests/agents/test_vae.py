"""The auto-encoder of SPOT and SUNG: its bound by hand, and where the bound is tight."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.parts.vae import VAE
from baq_cli.nets.streams import SeedStream
from support.builders import KnownNoise, fill, numbers, tensor

SEEDS = (0, 1)


def vae_of(seeds: tuple[int, ...] = SEEDS, **sizes: Any) -> VAE:
    model = VAE(SeedStream(seeds, "init"), **sizes).double()
    fill(model)
    return model


def test_the_bound_is_the_one_that_is_worked_out_by_hand() -> None:
    """A linear model of one action, with c = 0.3, x = 0.5, ε = 1 and −1 in two samples.

    q: μ = (0.1, −0.2) + 0.5 x, log σ = (−1, 0). Decoder: tanh(0.4 c + 0.8 z₁ − 0.6 z₂ + 0.05).
    """
    model = VAE(SeedStream((0,), "init"), 1, 1, 2, bounded=1, hidden=()).double()
    encoder, decoder = model.encoder.layers[0], model.decoder.layers[0]
    with torch.no_grad():
        encoder.weight.copy_(tensor([[0.0] * 4, [0.5, 0.5, 0.0, 0.0]]))
        encoder.bias.copy_(tensor([0.1, -0.2, -1.0, 0.0]))
        decoder.weight.copy_(tensor([[0.4], [0.8], [-0.6]]))
        decoder.bias.fill_(0.05)

    class Both:
        def normal(self, *shape: int) -> Tensor:
            assert shape == (1, 2, 2)
            return tensor([[[[1.0, 1.0], [-1.0, -1.0]]]])

    noise: Any = Both()
    found = model.negative_elbo(tensor([[[0.5]]]), tensor([[[0.3]]]), noise, samples=2)
    mean = np.array([0.35, 0.05])
    std = np.exp([-1.0, 0.0])
    kl = -0.5 * (1 + 2 * np.log(std) - mean**2 - std**2)
    made = [np.tanh(0.12 + 0.8 * z[0] - 0.6 * z[1] + 0.05) for z in (mean + std, mean - std)]
    expected = np.mean([(x - 0.5) ** 2 for x in made]) + 0.5 * kl.mean()
    assert_allclose(found.detach(), [[expected]], rtol=1e-12)


def exact_model(weight: float, offset: float) -> tuple[VAE, float]:
    """Return x = w z₁ + b + noise with its true posterior as the encoder, and the variance of x.

    The second latent number is idle; the variance of the noise is β D / (2 L) = 0.125.
    """
    model = VAE(SeedStream(SEEDS, "init"), 1, 0, 2, bounded=0, hidden=()).double()
    encoder, decoder = model.encoder.layers[0], model.decoder.layers[0]
    variance = 1 / (1 + weight**2 / 0.125)
    slope = variance * weight / 0.125
    with torch.no_grad():
        encoder.weight.copy_(tensor([[slope, 0.0, 0.0, 0.0]]))
        encoder.bias.copy_(tensor([-slope * offset, 0.0, 0.5 * math.log(variance), 0.0]))
        decoder.weight.copy_(tensor([[weight], [0.0]]))
        decoder.bias.fill_(offset)
    return model, weight**2 + 0.125


def log_normal(x: np.ndarray[Any, Any], mean: float, variance: float) -> np.ndarray[Any, Any]:
    return -0.5 * (x - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)


def test_under_the_true_posterior_every_weight_is_the_likelihood_itself() -> None:
    model, variance = exact_model(0.7, -0.2)
    data, noise = numbers(2, 6, 1), SeedStream(SEEDS, "noise")
    for samples in (1, 5):
        found = model.log_likelihood(tensor(data), None, noise, samples)
        assert_allclose(found.detach(), log_normal(data[..., 0], -0.2, variance), rtol=1e-6)


def test_the_bound_that_is_trained_is_the_likelihoods_but_for_its_scale() -> None:
    """log p(x) = −(L/β) E[negative_elbo] − D/2 log(2π σ²) where q is the true posterior."""
    model, variance = exact_model(0.7, -0.2)
    data = numbers(2, 6, 1)

    class Sides:
        """ε = ±1: what is quadratic in ε has its exact expectation over these."""

        def normal(self, *shape: int) -> Tensor:
            sides = torch.tensor([1.0, -1.0], dtype=torch.float64).view(1, 1, 2, 1)
            return sides.expand(2, shape[0], 2, shape[2])

    noise: Any = Sides()
    bound = model.negative_elbo(tensor(data), None, noise, samples=2).detach().numpy()
    found = -(2 / 0.5) * bound - 0.5 * np.log(2 * np.pi * 0.125)
    assert_allclose(found, log_normal(data[..., 0], -0.2, variance), rtol=1e-9)


def test_more_samples_bring_the_estimate_nearer_from_below() -> None:
    model, variance = exact_model(0.7, -0.2)
    with torch.no_grad():
        model.encoder.layers[0].bias[..., 0] += 0.6  # no longer the posterior
    data = numbers(2, 200, 1)
    truth = log_normal(data[..., 0], -0.2, variance).mean()
    noise = SeedStream(SEEDS, "noise")
    one, many = (model.log_likelihood(tensor(data), None, noise, k).mean().item() for k in (1, 50))
    assert one < many < truth + 0.02
    assert truth - many < 0.2 * (truth - one)


def test_only_bounded_numbers_are_bounded() -> None:
    model = vae_of(data_dim=4, condition_dim=0, latent_dim=4, bounded=2, hidden=(6, 6))
    made = model.decode(20 * tensor(numbers(2, 30, 3, 4)))
    assert made[..., 2:].abs().max() <= 1
    assert made[..., :2].abs().max() > 1


def test_a_frozen_model_passes_gradients_to_what_it_judges_alone() -> None:
    model = vae_of(data_dim=2, condition_dim=3, latent_dim=4, bounded=2, hidden=(6, 6))
    obs, action = tensor(numbers(2, 5, 3)), tensor(numbers(2, 5, 2)).requires_grad_()
    noise: Any = KnownNoise()
    bound = model.negative_elbo(action, obs, noise, frozen=True)
    (bound.sum() + model.log_likelihood(action, obs, noise, 3, frozen=True).sum()).backward()
    assert action.grad is not None
    assert all(p.grad is None for p in model.parameters())
    again: Any = KnownNoise()
    assert torch.equal(bound, model.negative_elbo(action, obs, again))


def test_a_seeds_bound_is_the_same_alone_and_among_others() -> None:
    obs = torch.from_numpy(numbers(3, 8, 3)).float()
    action = torch.from_numpy(numbers(3, 8, 2, phase=0.7)).float()

    def bound(seeds: tuple[int, ...], rows: slice) -> Tensor:
        model = VAE(SeedStream(seeds, "init"), 2, 3, 4, bounded=2, hidden=(16, 16))
        return model.negative_elbo(action[rows], obs[rows], SeedStream(seeds, "noise"))

    together = bound((4, 5, 6), slice(None))
    for i, seed in enumerate((4, 5, 6)):
        alone = bound((seed,), slice(i, i + 1))
        assert_allclose(together[i].detach(), alone[0].detach(), rtol=1e-5, atol=1e-6)


def test_what_is_common_is_likelier_after_training_than_what_is_not() -> None:
    """Actions lie at half of the state: those at the other side get a larger bound."""
    stream = SeedStream(SEEDS, "noise")
    model = VAE(SeedStream(SEEDS, "init"), 1, 1, 2, bounded=1, hidden=(16,))
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    obs = torch.tensor([-1.0, 1.0]).repeat(32).view(1, 64, 1).expand(2, -1, -1)
    for _ in range(200):
        adam.zero_grad()
        model.negative_elbo(0.5 * obs, obs, stream).mean().backward()
        adam.step()
    with torch.no_grad():
        common, strange = (
            model.negative_elbo(k * obs, obs, stream, samples=8) for k in (0.5, -0.5)
        )
    assert strange.mean() > common.mean() + 0.3

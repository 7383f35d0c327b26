"""The dynamics ensemble: its likelihood, its best members and its steps, worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.interface import Batch, Spec
from baq_cli.agents.parts.dynamics import GaussianDynamics, Imagined
from baq_cli.nets.streams import SeedStream
from support.builders import fill, numbers, small_spec, tensor, tiny_batch, tiny_spec

LOW, HIGH = -10.0, 0.5


class Rows:
    """Data of one batch, whose rows count alike."""

    def __init__(self, batch: Batch):
        self.batch = replace(batch, weight=torch.ones_like(batch.weight))

    def chunks(self) -> Iterator[Batch]:
        yield self.batch


def linear_model(members: int = 2, elites: int = 1) -> GaussianDynamics:
    """Return a model without hidden layers, learner and kept alike, with known parameters."""
    model = GaussianDynamics(tiny_spec(), (), members, elites).double()
    for net in (model.learner, model.kept):
        fill(net.net)
    return model


def by_hand(model: GaussianDynamics, batch: Batch) -> tuple[Any, Any, Any]:
    """Return mean and log-variance `[S, N, B, 3]` and the end's logit, in standardised units."""
    layer: Any = model.learner.net.layers[0]
    x = torch.cat([batch.obs, batch.action], dim=-1)
    x = ((x - model.input_mean) / model.input_std).numpy()
    out = np.einsum("sbi,snio->snbo", x, layer.weight.detach().numpy())
    out = out + layer.bias.detach().numpy()
    mean, raw, end = out[..., :3], out[..., 3:6], out[..., 6]
    raw = HIGH - np.log1p(np.exp(HIGH - raw))
    return mean, LOW + np.log1p(np.exp(raw - LOW)), end


def test_the_loss_of_two_members_is_their_likelihoods_and_the_bounds() -> None:
    model = linear_model()
    batch = tiny_batch(held_out=[[0, 1, 0], [0, 0, 1]])
    mean, log_variance, end = by_hand(model, batch)
    y = torch.cat([batch.next_obs - batch.obs, batch.reward.unsqueeze(-1)], dim=-1).numpy()
    nll = ((y[:, None] - mean) ** 2 / np.exp(log_variance) + log_variance).mean(-1)
    ended = 1 - batch.bootstrap.numpy()[:, None]
    likely = 1 / (1 + np.exp(-end))
    error = nll - ended * np.log(likely) - (1 - ended) * np.log(1 - likely)  # [S, N, B]
    assert_allclose(model.error(batch, model.learner).detach(), error, rtol=1e-12)
    used = 1 - batch.columns["held_out"].numpy()
    fit = (used[:, None] * error).sum(2) / used.sum(1)[:, None]
    expected = fit.sum(1) + 0.01 * 3 * (HIGH - LOW)
    assert_allclose(model.fit_loss(batch).detach(), expected, rtol=1e-12)


def test_a_termination_weighs_as_much_as_the_rows_that_go_on() -> None:
    model, batch = linear_model(), tiny_batch()
    plain = model.error(batch, model.learner).detach()
    model.end_weight.copy_(tensor([1.0, 4.0]))
    found = model.error(batch, model.learner).detach()
    ended = 1 - batch.bootstrap.unsqueeze(1)
    _, _, end = by_hand(model, batch)
    missed = np.log1p(np.exp(-end))
    more = (tensor([1.0, 4.0]).view(2, 1, 1) - 1) * ended
    assert_allclose(found - plain, more * missed, rtol=1e-9, atol=1e-12)
    assert (ended[1] * more[1]).any()


def test_inputs_and_targets_are_standardised_by_the_rows_that_were_seen() -> None:
    model, batch = linear_model(), tiny_batch(rows=7)
    batch = replace(
        batch, obs=torch.cat([batch.obs[..., :1] * 100 + 40, 0.25 + 0 * batch.obs[..., 1:]], -1)
    )
    halves = [
        Batch.from_tensors({k: v[:, part] for k, v in batch.tensors().items()}, {})
        for part in (slice(0, 4), slice(4, 7))
    ]
    model.standardise(halves)
    x = torch.cat([batch.obs, batch.action], dim=-1)
    standard = (x - model.input_mean) / model.input_std
    assert_allclose(standard.mean(1), np.zeros((2, 4)), atol=1e-12)
    assert_allclose(standard.std(1, unbiased=False), [[1, 0, 1, 1]] * 2, rtol=1e-9, atol=1e-12)
    assert_allclose(model.input_std[:, 0, 1], [1.0, 1.0])  # what is constant is not divided
    assert_allclose(model.input_mean[:, 0], x.mean(1), rtol=1e-12)
    assert_allclose(model.target_mean[:, 0, 2], batch.reward.mean(1), rtol=1e-12)
    ended = (1 - batch.bootstrap).sum(1)
    assert_allclose(model.end_weight, (7 - ended) / ended)


def test_what_is_predicted_is_in_the_units_of_batches() -> None:
    model, batch = linear_model(), tiny_batch()
    model.target_mean.copy_(tensor([[[0.3, -0.1, 5.0]]]))
    model.target_std.copy_(tensor([[[2.0, 0.5, 10.0]]]))
    mean, log_variance, end = by_hand(model, batch)
    found = model.predict(batch.obs, batch.action)
    before = np.concatenate([batch.obs.numpy(), np.zeros((2, 3, 1))], axis=-1)[:, None]
    expected = before + mean * np.array([2.0, 0.5, 10.0]) + np.array([0.3, -0.1, 5.0])
    assert_allclose(found.mean, expected, rtol=1e-12)
    assert_allclose(found.std, np.exp(0.5 * log_variance) * [2.0, 0.5, 10.0], rtol=1e-12)
    assert_allclose(found.end, end, rtol=1e-12)


# -- the best members


def test_each_member_of_each_seed_is_kept_when_its_own_loss_is_lowest() -> None:
    model, batch = linear_model(members=3, elites=2), tiny_batch()
    data: Any = Rows(batch)
    model.keep_better(data.chunks())
    first = model.error(batch, model.learner).detach().mean(2)
    assert_allclose(model.losses, first, rtol=1e-12)
    before = {name: p.clone() for name, p in model.kept.named_parameters()}
    with torch.no_grad():
        for p in model.learner.parameters():
            p.add_(0.02 * tensor(numbers(*p.shape, phase=2.5)))
    second = model.error(batch, model.learner).detach().mean(2)
    better = second < first
    assert better.any()
    assert not better.all()
    model.keep_better(data.chunks())
    assert_allclose(model.losses, np.minimum(first, second), rtol=1e-12)
    for name, kept in model.kept.named_parameters():
        new = dict(model.learner.named_parameters())[name]
        for s, i in np.ndindex(2, 3):
            expected = new if better[s, i] else before[name]
            assert torch.equal(kept[s, i], expected[s, i]), name
    ranks = np.argsort(model.losses.numpy(), axis=1)
    assert_allclose(model.elites, ranks[:, :2])


def test_members_are_judged_by_rows_as_these_weigh() -> None:
    model, batch = linear_model(members=3, elites=2), tiny_batch()
    weight = tensor([[1.0, 0.0, 2.0], [0.5, 0.5, 0.0]])
    halves = [
        Batch.from_tensors({k: v[:, part] for k, v in tensors.items()}, {})
        for tensors in [replace(batch, weight=weight).tensors()]
        for part in (slice(0, 1), slice(1, 3))
    ]
    model.keep_better(halves)
    error = model.error(batch, model.learner).detach().numpy()
    expected = (weight.numpy()[:, None] * error).sum(2) / weight.numpy().sum(1)[:, None]
    assert_allclose(model.losses, expected, rtol=1e-12)


def test_the_learner_goes_back_to_the_members_that_are_kept() -> None:
    model = linear_model()
    before = {name: p.clone() for name, p in model.kept.named_parameters()}
    storage = [p.data_ptr() for p in model.learner.parameters()]
    with torch.no_grad():
        for p in model.learner.parameters():
            p.add_(0.3)
    model.go_back()
    assert [p.data_ptr() for p in model.learner.parameters()] == storage, "an optimiser holds them"
    for name, p in model.learner.named_parameters():
        assert torch.equal(p, before[name]), name


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    model, batch = linear_model(), tiny_batch()
    data: Any = Rows(batch)
    with torch.no_grad():
        model.learner.net.layers[0].bias[0, 1] = float("nan")
    model.keep_better(data.chunks())
    assert model.losses.isfinite().all()
    assert all(p.isfinite().all() for p in model.kept.parameters())


def test_what_is_kept_is_measured_on_the_rows_of_now() -> None:
    model, batch = linear_model(), tiny_batch()
    model.losses.fill_(-100.0)  # of easier rows, once
    data: Any = Rows(batch)
    with torch.no_grad():
        model.kept.net.layers[0].bias[:, 0, :, :3] += 50.0
    model.keep_better(data.chunks())
    assert_allclose(model.losses, model.error(batch, model.learner).detach().mean(2), rtol=1e-12)
    assert torch.equal(model.kept.net.layers[0].bias, model.learner.net.layers[0].bias)


# -- steps


class Drawn:
    """A stream whose uniform numbers are given, and whose normal ones are a known pattern."""

    def __init__(self, uniforms: Any):
        self.uniforms = tensor(uniforms)

    def uniform(self, *shape: int) -> Tensor:
        assert self.uniforms.shape[1:] == shape
        return self.uniforms

    def normal(self, *shape: int) -> Tensor:
        return tensor(numbers(2, *shape, phase=0.4))


def test_a_step_is_a_sample_of_an_elite_drawn_for_each_row() -> None:
    model, batch = linear_model(members=3, elites=2), tiny_batch()
    model.losses.copy_(tensor([[0.3, 0.1, 0.2], [0.5, np.inf, 0.1]]))
    noise: Any = Drawn([[0.0, 0.49, 0.5], [0.99, 0.6, 0.2]])
    found = model.step(batch.obs, batch.action, noise)
    members = [[1, 1, 2], [0, 0, 2]]
    predicted = model.predict(batch.obs, batch.action)
    eps = numbers(2, 3, 3, phase=0.4)
    for s, b in np.ndindex(2, 3):
        i = members[s][b]
        sample = predicted.mean[s, i, b].numpy() + predicted.std[s, i, b].numpy() * eps[s, b]
        assert_allclose(found.next_obs[s, b], sample[:2], rtol=1e-12)
        assert_allclose(found.reward[s, b], sample[2], rtol=1e-12)
        assert found.bootstrap[s, b] == float(predicted.end[s, i, b] <= 0)
    assert len(found.bootstrap.unique()) == 2, "the case has rows of both kinds"


def test_the_penalty_is_the_longest_deviation_of_any_member() -> None:
    """Deviations (3, 4, 0) and (1, 2, 2) have the lengths 5 and 3; no elite need be the longest."""
    model, batch = linear_model(), tiny_batch()
    with torch.no_grad():
        for p in model.kept.parameters():
            p.zero_()
        model.kept.highest.fill_(40.0)
        model.kept.lowest.fill_(-60.0)
        spreads = tensor([[[3.0, 4.0, 1e-9]], [[1.0, 2.0, 2.0]]])
        model.kept.net.layers[0].bias[..., 3:6] = 2 * spreads.log()
    model.losses.copy_(tensor([[1.0, 0.0]] * 2))
    noise: Any = Drawn(np.zeros((2, 3)))
    assert_allclose(model.step(batch.obs, batch.action, noise).penalty, np.full((2, 3), 5.0))


# -- laws


STEPS = 20


def small_model(seeds: tuple[int, ...]) -> GaussianDynamics:
    return GaussianDynamics(small_spec(seeds), (16, 16), members=3, elites=2)


def trained(
    model: GaussianDynamics, spec: Spec, rows: slice, steps: int
) -> tuple[GaussianDynamics, Imagined]:
    """Return a model after a fit to `s' = s + (a₁ + a₂)/2`, and a step that it imagines."""
    rng = np.random.default_rng(3)
    obs, action, noise = (
        torch.from_numpy(rng.normal(size=(3, 64, k)))[rows].float() for k in (3, 2, 3)
    )
    nothing = torch.zeros(obs.shape[:2])
    after = obs + 0.5 * action.sum(-1, keepdim=True) + 0.01 * noise
    rest = {"discount": nothing, "weight": nothing, "constraint": nothing, "source": nothing}
    batch = Batch(obs, action, obs[..., 0], after, 1 + nothing, **rest)
    data: Any = Rows(batch)
    model.standardise(data.chunks())
    adam = torch.optim.Adam(model.learner.parameters(), 3e-3)
    for step in range(steps):
        if step % 10 == 0:
            model.keep_better(data.chunks())
        adam.zero_grad()
        model.fit_loss(batch).sum().backward()
        adam.step()
    model.keep_better(data.chunks())
    return model, model.step(obs, action, SeedStream(spec.seeds, "noise"))


def test_a_seed_fits_and_imagines_the_same_alone_and_among_others() -> None:
    seeds = (4, 5, 6)
    together, imagined = trained(small_model(seeds), small_spec(seeds), slice(None), STEPS)
    for i, seed in enumerate(seeds):
        model, own = trained(small_model((seed,)), small_spec((seed,)), slice(i, i + 1), STEPS)
        assert_allclose(together.losses[i], model.losses[0], rtol=1e-4, atol=1e-5)
        assert_allclose(imagined.penalty[i], own.penalty[0], rtol=1e-4, atol=1e-5)
        for name, value in small_model((seed,)).state_dict().items():
            assert_allclose(small_model(seeds).state_dict()[name][i], value[0], err_msg=name)


def test_what_is_fitted_predicts_rows_that_it_never_saw() -> None:
    seeds = (4, 5, 6)
    model, _ = trained(small_model(seeds), small_spec(seeds), slice(None), 150)
    generator = torch.Generator().manual_seed(1)
    obs, action = (torch.randn(3, 200, k, generator=generator) for k in (3, 2))
    found = model.predict(obs, action)
    expected = obs + 0.5 * action.sum(-1, keepdim=True)
    assert (found.mean[..., :3] - expected.unsqueeze(1)).abs().mean() < 0.3
    assert (found.end < 0).float().mean() > 0.95, "no transition terminated"


@pytest.mark.parametrize("elites", [1, 3])
def test_every_elite_is_drawn(elites: int) -> None:
    model = linear_model(members=3, elites=elites)
    model.losses.copy_(tensor([[0.0, 1.0, 2.0]] * 2))
    obs, action = (torch.zeros(2, 300, 2).double() for _ in range(2))
    model.kept.lowest.data.fill_(-60.0)
    with torch.no_grad():
        model.kept.net.layers[0].bias[..., 3:6] = -50.0
    found = model.step(obs, action, SeedStream((0, 1), "noise")).reward
    means = model.predict(obs, action).mean[..., -1]
    nearest = (means - found.unsqueeze(1)).abs().argmin(1)
    assert set(nearest.unique().tolist()) == set(range(elites))

"""The density ratio: its loss by hand, and what it learns of two Gaussians whose ratio is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from baq_cli.agents.parts.density_ratio import DensityRatio
from baq_cli.nets.streams import SeedStream
from support.builders import Array, fill, forward, numbers, tensor

SEEDS = (0, 1)


def loss_of(above: Any, below: Any) -> Any:
    """Return the loss by its formula, for the ratios at samples of p and of q."""
    gain = np.log(2 * np.asarray(above) / (np.asarray(above) + 1) + 1e-10)
    return -(np.log(2 / (np.asarray(below) + 1) + 1e-10).mean(-1) + gain.mean(-1))


def constant(value: float) -> Any:
    """Return a ratio that is the same everywhere."""
    ratio = DensityRatio(SeedStream(SEEDS, "init"), 2, (3,)).double()
    with torch.no_grad():
        for parameter in ratio.parameters():
            parameter.zero_()
        ratio.net.layers[-1].bias.fill_(value)  # type: ignore[operator, union-attr]
    return ratio


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, 0.0),
        (3.0, -np.log(0.5) - np.log(1.5)),
        (0.5, -np.log(4 / 3) - np.log(2 / 3)),
        (0.0, -np.log(2) - np.log(1e-10)),
        (-1.0, -np.log(2) - np.log(1e-10)),  # the ReLU's
    ],
)
def test_the_loss_of_a_constant_ratio(value: float, expected: float) -> None:
    x = tensor(numbers(2, 4, 2))
    assert_allclose(constant(value).loss(x, x).detach(), [expected] * 2, rtol=1e-8, atol=1e-9)


def test_the_loss_is_the_formula_over_the_samples_of_each_density() -> None:
    ratio: Any = DensityRatio(SeedStream(SEEDS, "init"), 2, (3,)).double()
    fill(ratio)
    of_p, of_q = numbers(2, 5, 2), numbers(2, 7, 2, phase=0.8)
    found = [np.maximum(forward(ratio.net, x)[:, 0, :, 0], 0) for x in (of_p, of_q)]
    assert (found[0] > 0).any()
    assert_allclose(ratio.loss(tensor(of_p), tensor(of_q)).detach(), loss_of(*found), rtol=1e-9)
    assert_allclose(ratio(tensor(of_p)).detach(), found[0], rtol=1e-9)


def test_it_begins_at_about_one() -> None:
    ratio = DensityRatio(SeedStream(SEEDS, "init"), 5, (256, 256))
    x = torch.from_numpy(numbers(2, 50, 5)).float()
    assert_allclose(ratio(x).detach(), np.ones((2, 50)), atol=0.05)


@given(
    st.lists(st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)), min_size=2, max_size=6),
    st.data(),
)
def test_no_ratio_has_a_lower_loss_than_the_true_one(pairs: Any, data: st.DataObject) -> None:
    """Over a few outcomes with the probabilities p and q: the bound is least at p/q."""
    p, q = (np.asarray(each) / np.sum(each) for each in zip(*pairs, strict=True))
    other = np.asarray([data.draw(st.floats(0.01, 20)) for _ in p])

    def bound(w: Array) -> float:
        return float(-(q * np.log(2 / (w + 1))).sum() - (p * np.log(2 * w / (w + 1))).sum())

    assert bound(p / q) <= bound(other) + 1e-12


def test_trained_on_two_gaussians_it_is_near_their_ratio() -> None:
    """p = N(1, 1) and q = N(0, 1): log w = x − 1/2. Within 0.15 of it where w is in 1/e to e."""
    ratio = DensityRatio(SeedStream(SEEDS, "init"), 1, (32, 32))
    noise, optimizer = SeedStream(SEEDS, "data"), torch.optim.Adam(ratio.parameters(), lr=3e-3)
    for step in range(1_500):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 1_500)
        optimizer.zero_grad()
        ratio.loss(noise.normal(512, 1) + 1, noise.normal(512, 1)).sum().backward()
        optimizer.step()
    x = torch.linspace(-1, 2, 13).view(1, -1, 1).expand(2, -1, -1)
    with torch.no_grad():
        found = ratio(x).numpy()
    assert (np.diff(found, axis=1) > 0).all(), "ordered as the densities' ratio"
    assert_allclose(np.log(found)[:, 2:-2], x[:, 2:-2, 0].numpy() - 0.5, atol=0.15)

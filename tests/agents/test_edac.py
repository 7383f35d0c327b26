"""EDAC: SAC-N, and a term by which critics are held apart in the directions of their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as random_arrays
from numpy.testing import assert_allclose

from baq_cli.agents.edac import similarity
from support.builders import (
    ALL_GROUPS,
    EXACT,
    Array,
    KnownNoise,
    arrays,
    backward,
    q_many,
    q_values,
    squashed_sample,
    td,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_spec,
)

ETA = 1.7


def critic_loss(agent: Any, batch: Any, loss: str = "loss") -> Array:
    return terms(getattr(agent, loss)(batch, KnownNoise(), ALL_GROUPS))["critic"]


def slopes(critic: Any, obs: Array, action: Array) -> Array:
    """Return ∇_a Q_i(s, a) `[S, N, B, A]` of critics with one hidden layer, by the chain rule."""
    first, last = critic.net.layers
    x = np.concatenate([obs, action], axis=-1)
    weight, bias = (p.detach().numpy() for p in first.parameters())
    on = np.einsum("sbi,snih->snbh", x, weight) + bias > 0
    out = last.weight.detach().numpy()[..., 0]
    return np.einsum("snah,snbh,snh->snba", weight[:, :, obs.shape[-1] :], on, out)


def pairs(gradients: Array) -> Array:
    """Return `Σ_{i≠j} cos(g_i, g_j) / (N − 1)` of `[S, N, B, A]`, one pair after the other."""
    count, total = gradients.shape[1], np.zeros(gradients[:, 0, :, 0].shape)
    for i in range(count):
        for j in range(count):
            if i != j:
                one, other = gradients[:, i], gradients[:, j]
                lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
                total += (one * other).sum(-1) / lengths
    return total / (count - 1)


def test_similarity_is_the_sum_over_ordered_pairs_over_the_others() -> None:
    """cos of (3, 4) and (0, 2) is 4/5, of (3, 4) and (−1, 0) −3/5, of the others 0."""
    three = tensor([[[[3.0, 4.0]], [[0.0, 2.0]], [[-1.0, 0.0]]]])
    assert_allclose(similarity(three), [[2 * (4 / 5 - 3 / 5 + 0) / 2]], rtol=1e-9)
    same = tensor(np.ones((1, 5, 1, 2)))
    assert_allclose(similarity(same), [[5.0]], rtol=1e-9)  # not the mean of cosines, which is 1


@given(
    random_arrays(
        float, st.tuples(st.just(1), st.integers(2, 6), st.just(2), st.integers(1, 4)),
        elements=st.floats(-5, 5).filter(lambda g: abs(g) > 1e-2),
    )
)  # fmt: skip
def test_the_closed_form_is_the_sum_over_pairs_and_has_its_bounds(gradients: Array) -> None:
    found = similarity(tensor(gradients)).numpy()
    assert_allclose(found, pairs(gradients), rtol=1e-6, atol=1e-6)
    count = gradients.shape[1]
    assert (found <= count + 1e-6).all()
    assert (found >= -count / (count - 1) - 1e-6).all()


@pytest.mark.parametrize("loss", ["loss", "online_loss"])
def test_critics_are_fitted_to_sac_ns_target_and_held_apart(loss: str) -> None:
    settings = {"critics": 4, "diversity_weight": ETA}
    agent, alone = tiny_agent("edac", **settings), tiny_agent("sac_n", critics=4)
    batch = tiny_batch()
    b = arrays(batch)
    gradients = slopes(agent.critic, b.obs, b.action)
    assert (np.linalg.norm(gradients, axis=-1) > 1e-2).all(), "no critic is flat"
    held = ETA * pairs(gradients).mean(1)
    assert np.abs(held).min() > 0.1
    assert_allclose(critic_loss(agent, batch, loss), critic_loss(alone, batch, loss) + held)
    found, expected = (
        terms(getattr(each, loss)(batch, KnownNoise(), ALL_GROUPS)) for each in (agent, alone)
    )
    for name in ("policy", "temperature"):
        assert_allclose(found[name], expected[name], **EXACT, err_msg=name)


def linear(members: int) -> Any:
    """Return an agent whose critics' hidden units are all on: Q is linear in the action."""
    agent = tiny_agent("edac", critics=members, diversity_weight=ETA)
    with torch.no_grad():
        agent.critic.net.layers[0].bias.fill_(10.0)
    return agent


def test_two_linear_critics_are_turned_apart_as_the_derivative_of_their_cosine_says() -> None:
    """With g = W w, the slope, d 2cos(g, h)/dw = 2 Wᵀ (h/|h| − cos g/|g|)/|g|."""
    agent, batch = linear(2), tiny_batch()
    last = agent.critic.net.layers[-1].weight
    q, slope = agent.critic.slopes(batch.obs, batch.action)
    (found,) = torch.autograd.grad(similarity(slope).mean(1).sum(), last)
    first = agent.critic.net.layers[0].weight.detach().numpy()[:, :, 2:]
    assert_allclose(
        q.detach(), q_values(agent.critic, *(t.numpy() for t in (batch.obs, batch.action)))
    )
    for s in range(2):
        w = last[s, :, :, 0].detach().numpy()
        g, h = (first[s, i] @ w[i] for i in range(2))
        cos = g @ h / (np.linalg.norm(g) * np.linalg.norm(h))
        for i, (one, other) in enumerate([(g, h), (h, g)]):
            size = np.linalg.norm(one)
            by_slope = (other / np.linalg.norm(other) - cos * one / size) / size
            assert_allclose(found[s, i, :, 0], 2 * first[s, i].T @ by_slope, rtol=1e-7, atol=1e-9)
    assert_allclose(similarity(slope).detach(), pairs(slope.detach().numpy()), rtol=1e-7)


def test_a_row_whose_constraint_is_nothing_holds_no_critic_apart() -> None:
    agent, batch = tiny_agent("edac", critics=3, diversity_weight=ETA), tiny_batch()
    b = arrays(batch)
    weights = np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 2.0]])
    plain = critic_loss(tiny_agent("sac_n", critics=3), batch)
    batch.constraint.copy_(tensor(weights))
    expected = ETA * (weights * pairs(slopes(agent.critic, b.obs, b.action))).mean(1)
    assert_allclose(critic_loss(agent, batch) - plain, expected, rtol=1e-7)
    agent.drop_constraint()
    assert_allclose(critic_loss(agent, batch), plain, **EXACT)


def gradients_of(algo: str, **settings: Any) -> list[Array]:
    spec = tiny_spec(action_dim=1)
    agent = tiny_agent(algo, spec, critics=3, **settings)
    batch = tiny_batch()
    batch.action.resize_(2, 3, 1)
    backward(agent.loss(batch, KnownNoise(), ALL_GROUPS))
    return [p.grad.numpy() for p in agent.critic.parameters()]


def test_with_one_action_dimension_it_learns_as_sac_n() -> None:
    """A direction is then a sign, which no parameter moves a little."""
    for found, expected in zip(
        gradients_of("edac", diversity_weight=ETA), gradients_of("sac_n"), strict=True
    ):
        assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["loss", "online_loss"])
def test_the_best_of_several_actions_is_each_critics_own_before_the_minimum(loss: str) -> None:
    settings = {"critics": 3, "diversity_weight": 0.0, "target_actions": 4}
    agent = tiny_agent("edac", max_target_backup=True, **settings)
    with torch.no_grad():
        agent.critic_target.net.layers[-1].bias.add_(7.0)
    batch, noise = tiny_batch(), KnownNoise()
    found = terms(getattr(agent, loss)(batch, noise, ALL_GROUPS))["critic"]
    b = arrays(batch)
    actions, _ = squashed_sample(agent.policy, b.next_obs, noise.normals[0])
    q = q_many(agent.critic, b.next_obs, actions)
    assert actions.shape == (2, 3, 4, 2)
    best = q.max(3).min(1)
    assert np.abs(best - q.min(1).max(2)).max() > 1e-3, "the order of the two matters here"
    y = b.reward + b.discount * best
    assert_allclose(found, td(q_values(agent.critic, b.obs, b.action), y, b.weight), **EXACT)

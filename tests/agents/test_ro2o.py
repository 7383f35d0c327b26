"""RO2O: smoothness, pessimism beside the data, and what of them stays online, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from baq_cli.agents.plans import Draw
from baq_cli.agents.ro2o import perturbed, symmetric_kl
from support.builders import (
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    finetune,
    forward,
    pretrain,
    q_values,
    small_agent,
    squashed_sample,
    td,
    temperature,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
)

EXACT = {"rtol": 1e-6, "atol": 1e-9}
"""u is float32, as the clock on the device is."""
ALL = frozenset({"critic", "policy", "temperature"})
COPIES = 4
OFF = {"q_smooth_weight": 0.0, "policy_smooth_weight": 0.0, "ood_weight": 0.0}
"""Weights with which it is SAC-N."""


def agent_of(phase: Any = "offline", **settings: Any) -> Any:
    """Return an agent of three critics and one weight at most, in float64."""
    fixed = {"critics": 3, "perturbations": COPIES, "ood_uncertainty": 1.5} | OFF
    return tiny_agent("ro2o", phase=phase, **fixed | settings)


def losses(agent: Any, loss: str = "loss", batch: Any = None) -> tuple[dict[str, Array], Any]:
    """Return an agent's loss terms, and the noise that they drew."""
    noise = KnownNoise()
    return terms(getattr(agent, loss)(batch or tiny_batch(), noise, ALL)), noise


def alone(**settings: Any) -> dict[str, Array]:
    """Return the losses of SAC-N with the same networks."""
    found, _ = losses(tiny_agent("sac_n", critics=3, **settings))
    return found


def near(obs: Array, drawn: Array, radius: float) -> Array:
    """Return every state moved by every δ_k, `[S, K, B, D]`, δ_k within ±radius."""
    delta = radius * (2 * drawn.reshape(2, COPIES, 1, 2) - 1)
    moved: Array = obs[:, None] + delta
    return moved


# -- the critics' smoothness


def linear(agent: Any) -> Array:
    """Make all hidden units of the critics active: return ∇_s Q_i, `[S, N, D]`, everywhere."""
    first, last = agent.critic.net.layers
    with torch.no_grad():
        first.bias.fill_(10.0)
    weight, out = first.weight.detach().numpy(), last.weight.detach().numpy()
    slope: Array = np.einsum("sndh,snho->snd", weight[:, :, :2], out)
    return slope


def test_a_linear_critic_is_as_rough_as_its_slope_along_the_worst_perturbation() -> None:
    """δ_i = w_i · δ_k for every state: the largest mean over critics of 0.8 δ₊² + 0.2 δ₋²."""
    agent = agent_of(q_smooth_weight=3.0, q_smooth_radius=0.2)
    slope = linear(agent)
    found, noise = losses(agent)
    (drawn,) = noise.uniforms
    assert drawn.shape == (2, COPIES, 1, 2), "one set of perturbations for a seed's batch"
    expected = np.zeros(2)
    for seed in range(2):
        rough = []
        for delta in 0.2 * (2 * drawn[seed, :, 0] - 1):
            rises = slope[seed] @ delta
            rough.append(np.mean([0.8 * r**2 if r > 0 else 0.2 * r**2 for r in rises]))
        expected[seed] = 3.0 * max(rough)
    plain = agent_of()
    linear(plain)
    assert_allclose(found["critic"] - losses(plain)[0]["critic"], expected, **EXACT)
    assert (expected > 1e-3).all()


def test_smoothness_is_the_worst_of_each_states_copies() -> None:
    agent, batch = agent_of(q_smooth_weight=3.0, q_smooth_radius=0.7), tiny_batch()
    found, noise = losses(agent, batch=batch)
    b = arrays(batch)
    states = near(b.obs, noise.uniforms[0], 0.7)
    here = q_values(agent.critic, b.obs, b.action)
    each = [q_values(agent.critic, states[:, k], b.action) - here for k in range(COPIES)]
    sides = [np.where(d > 0, 0.8, 0.2) * d**2 for d in each]
    worst = np.max([side.mean(1) for side in sides], axis=0)
    assert np.unique(np.argmax([s.mean(1) for s in sides], axis=0)).size > 1
    assert_allclose(found["critic"], alone()["critic"] + 3.0 * worst.mean(1), **EXACT)


# -- pessimism beside the data


def unsure_of(agent: Any, b: Any, noise: KnownNoise, radius: float) -> tuple[Array, Array, Array]:
    """Return std_j Q_j(ŝ, â) `[S, K, B]` of one critic less in its divisor, with ŝ and â."""
    states = near(b.obs, noise.uniforms[-1], radius)
    flat = states.reshape(2, -1, 2)
    action, _ = squashed_sample(agent.policy, flat, noise.normals[1])
    q = q_values(agent.critic, flat, action)
    std: Array = np.sqrt(((q - q.mean(1, keepdims=True)) ** 2).sum(1) / (q.shape[1] - 1))
    return std.reshape(2, COPIES, -1), flat, action


@pytest.mark.parametrize(
    ("steps", "u"), [(0, 1.5), (1, 1.4), (7, 0.8), (13, 0.2), (14, 0.2), (1e6, 0.2)]
)
def test_values_beside_the_data_are_pulled_down_by_their_spread(steps: float, u: float) -> None:
    """(Q − sg[Q − u std])² is (u std)², averaged over critics, states and copies at once."""
    settings = {"ood_weight": 0.7, "ood_radius": 0.3, "ood_decay": 0.1}
    agent, batch = agent_of(**settings, ood_uncertainty_floor=0.2), tiny_batch()
    agent.clock.write(steps, 0, 0)
    assert_allclose(agent.uncertainty(), u, rtol=1e-6)
    found, noise = losses(agent, batch=batch)
    std, _, _ = unsure_of(agent, arrays(batch), noise, 0.3)
    expected = 0.7 * ((u * std) ** 2).mean((1, 2))
    assert (expected > 1e-3).all()
    assert_allclose(found["critic"], alone()["critic"] + expected, **EXACT)


def test_the_targets_are_constants_so_that_every_critic_falls_at_the_speed_of_the_spread() -> None:
    """d/dθ is 2 u std dQ_i/dθ over N · B · K, as if the spread were a number."""
    agent, batch = agent_of(ood_weight=1.0, ood_radius=0.3), tiny_batch()
    noise = KnownNoise()
    noise.normal(1, 1)  # stands for that of the target, which is drawn before
    last = agent.critic.net.layers[-1]
    (found,) = torch.autograd.grad(agent.pessimism(batch, noise).mean(1).sum(), last.weight)
    std, states, action = unsure_of(agent, arrays(batch), noise, 0.3)
    q = agent.critic(tensor(states), tensor(action))
    fall = 2 * 1.5 * tensor(std.reshape(2, 1, -1)) * q
    (expected,) = torch.autograd.grad(fall.mean((1, 2)).sum(), last.weight)
    assert_allclose(found, expected, **EXACT)


def test_a_floor_that_u_would_have_to_rise_to_is_refused() -> None:
    """Without pessimism the floor goes too; a u that stays is its own floor."""
    with pytest.raises(ValueError, match=r"ood_uncertainty_floor 0\.1 is above ood_uncertainty 0:"):
        agent_of(ood_uncertainty=0.0)
    for u in (0.0, 0.3):
        agent = agent_of(ood_uncertainty=u, ood_uncertainty_floor=u)
        agent.clock.write(1_000_000, 0, 0)
        assert_allclose(agent.uncertainty(), u, rtol=1e-6)


def test_the_clock_is_that_of_pre_training() -> None:
    agent: Any = small_agent("ro2o", (0, 1), ood_uncertainty=1.0, ood_decay=0.1, perturbations=2)
    learner, _ = pretrain(agent, 4)  # the last of them was the one after three
    assert_allclose(agent.uncertainty(), 0.7, rtol=1e-6)
    learner.prepare()
    assert_allclose(agent.uncertainty(), 0.6, rtol=1e-6)
    assert agent.reads_clock == {"gradient_steps"}


# -- the policy


@given(
    st.lists(st.floats(-2, 2), min_size=2, max_size=2),
    st.lists(st.floats(-2, 1), min_size=2, max_size=2),
)
def test_the_divergence_is_that_of_two_gaussians_both_ways(
    means: list[float], log_stds: list[float]
) -> None:
    def kl(m: float, s: float, n: float, t: float) -> float:
        return float(np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5)

    (m, n), (s, t) = means, np.exp(log_stds)
    given = tensor([[m], [log_stds[0]], [n], [log_stds[1]]])
    found = symmetric_kl(*given)
    assert_allclose(found, kl(m, s, n, t) + kl(n, t, m, s), rtol=1e-7, atol=1e-9)
    twice = symmetric_kl(*given.expand(-1, 2))
    assert_allclose(twice, 2 * found, **EXACT)


def test_the_policy_pays_for_its_worst_change_over_a_states_copies() -> None:
    agent, batch = agent_of(policy_smooth_weight=2.0, policy_smooth_radius=0.6), tiny_batch()
    found, noise = losses(agent, batch=batch)
    b = arrays(batch)
    states = near(b.obs, noise.uniforms[-1], 0.6)

    def head(obs: Array) -> tuple[Array, Array]:
        mean, log_std = np.split(forward(agent.policy.net, obs)[:, 0], 2, axis=-1)
        return mean, np.exp(np.clip(log_std, -5, 2))

    m, s = head(b.obs)
    apart = []
    for k in range(COPIES):
        n, t = head(states[:, k])
        moved = (m - n) ** 2
        one = np.log(t / s) + (s**2 + moved) / (2 * t**2) - 0.5
        other = np.log(s / t) + (t**2 + moved) / (2 * s**2) - 0.5
        apart.append((one + other).sum(-1))
    worst = np.max(apart, axis=0).mean(1)
    assert_allclose(found["policy"], alone()["policy"] + 2.0 * worst, **EXACT)
    for name in ("critic", "temperature"):
        assert_allclose(found[name], alone()[name], **EXACT, err_msg=name)


def test_gradients_go_through_both_sides_of_the_divergence() -> None:
    agent, batch = agent_of(policy_smooth_weight=1.0, policy_smooth_radius=0.6), tiny_batch()
    last = agent.policy.net.layers[-1].bias
    (found,) = torch.autograd.grad(agent.policy_smoothness(batch, KnownNoise()).sum(), last)
    with torch.no_grad():
        last.requires_grad_(False)
        moved, size = torch.zeros_like(last), 1e-6
        for place in range(last.numel()):
            values = []
            for sign in (1, -1):
                last.view(-1)[place] += sign * size
                values.append(agent.policy_smoothness(batch, KnownNoise()).sum())
                last.view(-1)[place] -= sign * size
            moved.view(-1)[place] = (values[0] - values[1]) / (2 * size)
    assert_allclose(found, moved, rtol=1e-4, atol=1e-7)


def test_perturbations_stay_in_their_ball_and_are_one_set_for_the_batch() -> None:
    obs, noise = tiny_batch().obs, KnownNoise()
    moved = perturbed(obs, COPIES, 0.05, noise).unflatten(1, (COPIES, 3)) - obs.unsqueeze(1)
    assert moved.abs().max() <= 0.05
    assert_allclose(moved, moved[:, :, :1].expand_as(moved), rtol=1e-6, atol=1e-9)
    assert len({tuple(m) for m in moved[0, :, 0].tolist()}) == COPIES


# -- the variant of AntMaze


def test_each_critic_may_bootstrap_from_itself() -> None:
    agent, batch = agent_of(independent_targets=True), tiny_batch()
    with torch.no_grad():
        agent.critic_target.net.layers[-1].bias.add_(0.4)
    found, noise = losses(agent, batch=batch)
    b, alpha = arrays(batch), temperature(agent)[:, None]
    action, log_next = squashed_sample(agent.policy, b.next_obs, noise.normals[0])
    next_q = q_values(agent.critic_target, b.next_obs, action)
    q = q_values(agent.critic, b.obs, b.action)
    expected = np.zeros(2)
    for i in range(3):
        y = b.reward + GAMMA * b.bootstrap * (next_q[:, i] - alpha * log_next)
        expected += td(q[:, i : i + 1], y, b.weight)
    assert_allclose(found["critic"], expected, **EXACT)


def test_the_policy_may_follow_a_lower_bound_and_be_held_to_the_actions() -> None:
    agent, batch = agent_of(policy_pessimism=4.0, bc_weight=5.0), tiny_batch()
    found, noise = losses(agent, batch=batch)
    b, alpha = arrays(batch), temperature(agent)[:, None]
    action, log_prob = squashed_sample(agent.policy, b.obs, noise.normals[1])
    q = q_values(agent.critic, b.obs, action)
    bound = q.mean(1) - 4.0 * q.std(1, ddof=1)
    strayed = ((action - b.action) ** 2).mean(-1)
    expected = (alpha * log_prob - bound + 5.0 * strayed).mean(1)
    assert_allclose(found["policy"], expected, **EXACT)


# -- online

FULL = {"q_smooth_weight": 0.5, "policy_smooth_weight": 0.4, "ood_weight": 0.3, "bc_weight": 2.0}


def test_online_all_terms_stay_with_the_uncertainty_at_its_floor() -> None:
    settings = {**FULL, "ood_decay": 0.0}
    online = agent_of("online", **settings, ood_uncertainty_floor=0.25)
    offline = agent_of(**settings | {"ood_uncertainty": 0.25}, ood_uncertainty_floor=0.0)
    online.clock.write(3, 2, 0.5)
    found, _ = losses(online, "online_loss")
    expected, _ = losses(offline)
    for name in ("critic", "policy", "temperature"):
        assert_allclose(found[name], expected[name], **EXACT, err_msg=name)
    assert online.reads_clock == frozenset()


@pytest.mark.parametrize("later", [None, 0.0, 3.0])
def test_without_its_regularisers_it_is_sac_n_online_but_for_the_actions(later: Any) -> None:
    settings = {**FULL, "keep_regularisers_online": False, "online_bc_weight": later}
    agent = agent_of("online", **settings)
    found, noise = losses(agent, "online_loss")
    assert not noise.uniforms, "nothing is perturbed"
    held, _ = losses(agent_of(bc_weight=2.0 if later is None else later))
    for name in ("critic", "policy", "temperature"):
        assert_allclose(found[name], held[name], **EXACT, err_msg=name)
    offline, _ = losses(agent_of(**settings))
    full, _ = losses(agent_of(**FULL))
    assert all((offline[name] == full[name]).all() for name in full), "offline they stay"


def test_the_online_store_begins_empty_and_optimisers_go_on() -> None:
    agent: Any = small_agent("ro2o", (0, 1), perturbations=2)
    before, _ = pretrain(agent, 4)
    learner, batches = finetune(agent, before, 0)
    plan = learner.plan
    assert (plan.draws, plan.utd) == ((Draw(("online",)),), 1)
    assert (plan.warmup_env_steps, plan.capacity) == (2_500, 250_000)
    assert not plan.uses_offline
    for name, value in before.optimizer_state().items():
        assert torch.equal(learner.optimizer_state()[name], value), name
    _, batches = finetune(agent, before, 3)
    assert all(bool((batch.source == 1).all()) for batch in batches)


def test_a_row_whose_constraint_is_nothing_counts_for_the_td_term_alone() -> None:
    nothing = dict.fromkeys(FULL, 1e-300)  # which draws what a weight draws
    plain, _ = losses(agent_of(**nothing))
    batch, dropped = tiny_batch(), agent_of(**FULL)
    batch.constraint.zero_()
    dropped.drop_constraint()
    for found, _ in (losses(agent_of(**FULL), batch=batch), losses(dropped)):
        for name, value in plain.items():
            assert_allclose(found[name], value, **EXACT, err_msg=name)


def test_without_weights_it_is_sac_n_and_perturbs_nothing() -> None:
    found, noise = losses(agent_of())
    assert not noise.uniforms
    for name, value in alone().items():
        assert (found[name] == value).all(), name

"""Every term of every loss, against its formula worked out in numpy on a tiny case."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

from baq_cli.agents.objectives import (
    advantage_weight,
    expectile_loss,
    mean_abs,
    squared_distance,
    td_loss,
)
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.engine.experience.inputs import Inputs, offline_store
from baq_cli.nets.critics import QEnsemble, reduce_q
from baq_cli.nets.policies import GaussianPolicy, TanhGaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig
from support.builders import (
    ALL_GROUPS,
    EXACT,
    FORM,
    GAMMA,
    LOSSES,
    UNKNOWN_RETURN,
    Array,
    KnownNoise,
    arrays,
    batch_for,
    fill,
    forward,
    gaussian_log_prob,
    gaussian_sample,
    make_episodes,
    next_value,
    numbers,
    offline_replay,
    q_many,
    q_values,
    small_agent,
    squashed_sample,
    tanh_mean,
    td,
    temperature,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_config,
    tiny_spec,
    trained_together,
)


def evaluate(agent: Any, batch: Any, **columns: Any) -> tuple[dict[str, Array], KnownNoise, Any]:
    """Return an agent's loss terms, the noise they drew, and the batch as arrays."""
    noise = KnownNoise(batch.reward.shape[0])
    return terms(agent.loss(batch, noise, ALL_GROUPS)), noise, arrays(batch)


# -- shared mathematics


def test_the_expectile_loss_weighs_overestimates_less_than_underestimates() -> None:
    loss = expectile_loss(tensor([-2.0, 0.0, 1.0, 3.0]), 0.8)
    assert_allclose(loss, [0.2 * 4, 0.0, 0.8 * 1, 0.8 * 9], rtol=1e-6)


def test_advantage_weights_are_exponential_up_to_a_cap_and_carry_no_gradient() -> None:
    advantage = tensor([-1.0, 0.0, 0.5, 1.5, 2.0]).requires_grad_()
    weight = advantage_weight(advantage, 3.0)
    assert_allclose(weight, [math.exp(-3), 1.0, math.exp(1.5), math.exp(4.5), 100.0], **EXACT)
    assert not weight.requires_grad


def test_the_td_loss_sums_over_critics_and_averages_weighted_rows() -> None:
    q = tensor([[[1.0, 2.0], [0.0, 5.0]]])
    weight = tensor([[1.0, 0.5]])
    # critic 1: (1·1² + .5·2²)/2 = 1.5; critic 2: (1·0² + .5·5²)/2 = 6.25
    assert_allclose(td_loss(q, tensor([[0.0, 0.0]]), weight), [7.75], **EXACT)
    # one target a critic: critic 2 against (1, 1): (1·1² + .5·4²)/2 = 4.5
    each = tensor([[[0.0, 0.0], [1.0, 1.0]]])
    assert_allclose(td_loss(q, each, weight), [6.0], **EXACT)


def test_mean_abs_averages_sizes_within_a_seed_and_never_reaches_zero() -> None:
    q = tensor([[[1.0, -3.0], [2.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert_allclose(mean_abs(q), [2.0, 1e-6], **EXACT)


def test_the_action_distance_is_a_mean_over_action_dimensions() -> None:
    assert_allclose(squared_distance(tensor([[[1.0, 0.0]]]), tensor([[[0.0, 2.0]]])), [[2.5]])


def test_min_of_two_takes_the_minimum_of_one_drawn_pair_a_seed() -> None:
    q = tensor([[[9.0, 9.5], [1.0, 1.5], [5.0, 2.0]], [[3.0, 3.5], [7.0, 1.0], [0.0, 0.5]]])
    noise = SimpleNamespace(uniform=lambda n: tensor([[0.1, 0.9, 0.2], [0.4, 0.3, 0.8]]))
    # the two smallest draws choose critics 1 and 3 for the first seed, 1 and 2 for the second
    assert_allclose(reduce_q(q, "min_of_two", noise), [[5.0, 2.0], [3.0, 1.0]])  # type: ignore[arg-type]


def test_min_of_two_draws_every_pair_equally_often() -> None:
    q = tensor([[[0.0], [1.0], [2.0], [3.0]]]).float()
    stream = SeedStream((0,), "pairs")
    found = [float(reduce_q(q, "min_of_two", stream)) for _ in range(3000)]
    # the minimum is critic 1 in 3 of 6 pairs, critic 2 in 2, critic 3 in 1
    shares = [found.count(float(k)) / len(found) for k in range(4)]
    assert_allclose(shares, [3 / 6, 2 / 6, 1 / 6, 0], atol=0.03)


# -- networks


def test_layer_norm_comes_before_each_activation_of_every_critic() -> None:
    critic = tiny_agent("td3_bc", layer_norm=True, hidden=(4, 3)).critic
    x = tiny_batch()
    got = critic(x.obs, x.action).detach()
    assert_allclose(got, q_values(critic, x.obs.numpy(), x.action.numpy()), **EXACT)
    plain = QEnsemble(SeedStream((0, 1), "init"), 2, 2, (4, 3), 2).double()
    plain.net.layers.load_state_dict(critic.net.layers.state_dict())
    assert not np.allclose(got, plain(x.obs, x.action).detach())


def test_a_frozen_pass_gives_gradients_to_inputs_and_none_to_parameters() -> None:
    agent, batch = tiny_agent("td3_bc", layer_norm=True), tiny_batch()
    action = batch.action.clone().requires_grad_()
    agent.critic(batch.obs, action, frozen=True).sum().backward()
    assert action.grad is not None
    assert action.grad.abs().sum() > 0
    assert all(p.grad is None for p in agent.critic.parameters())


def test_a_squashed_sample_has_the_density_that_log_prob_reports() -> None:
    policy = tiny_agent("sac").policy
    obs, noise = tiny_batch().obs, KnownNoise()
    action, log_prob = policy.sample(obs, noise)
    assert_allclose(
        log_prob.detach(), squashed_sample(policy, obs.numpy(), noise.normals[0])[1], **EXACT
    )
    assert_allclose(policy.log_prob(obs, action).detach(), log_prob.detach(), rtol=1e-6)


def test_a_squashed_density_integrates_to_one() -> None:
    policy = TanhGaussianPolicy(SeedStream((0,), "init"), 2, 1, (3,)).double()
    fill(policy, size=0.3)
    x = np.linspace(-6, 6, 2001)
    action = np.tanh(x)  # an even grid in x: the density is steep near the bounds
    obs = tensor([[[0.3, -0.7]]]).expand(1, len(x), 2)
    density = policy.log_prob(obs, tensor(action).view(1, -1, 1)).exp().detach().numpy()[0]
    mass = (density * (1 - action**2)).sum() * (x[1] - x[0])
    assert mass == pytest.approx(1.0, abs=1e-3)


def test_the_gaussian_policys_log_std_is_kept_between_minus_five_and_two() -> None:
    policy = GaussianPolicy(SeedStream((0,), "init"), 2, 2, (3,)).double()
    obs = tensor([[[0.5, -0.5]]])
    mode = policy.mode(obs).detach()
    with torch.no_grad():
        policy.log_std.copy_(tensor([[[-9.0, 7.0]]]))
    expected = 5.0 - 2.0 - math.log(2 * math.pi)  # z = 0: only the widths count
    assert_allclose(policy.log_prob(obs, mode).detach(), [[expected]], **EXACT)


# -- who learns from what


@pytest.mark.parametrize(("algo", "loss"), LOSSES)
def test_each_term_trains_its_own_group_and_no_other(algo: str, loss: str) -> None:
    agent: Any = tiny_agent(algo, phase=FORM[loss], critics=3)
    batch = batch_for(agent)
    groups = {
        name: [
            p for m in g.modules for p in ([m] if isinstance(m, nn.Parameter) else m.parameters())
        ]
        for name, g in agent.groups().items()
    }
    if loss == "online_loss" and algo == "baq":
        del groups["behavior"]  # π_BC is frozen online
    for active in trained_together(agent):
        found = getattr(agent, loss)(batch, KnownNoise(), active)
        assert set(found.terms) == active & set(groups)
        for name in found.terms:
            agent.zero_grad()
            found.terms[name].sum().backward(retain_graph=True)
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in groups[name]), name
            moved = [p for p in agent.parameters() if p.grad is not None and p.grad.any()]
            assert {id(p) for p in moved} <= {id(p) for p in groups[name]}, name


# -- behaviour cloning


def test_bc_is_the_negative_mean_log_likelihood() -> None:
    agent = tiny_agent("bc")
    found, _, b = evaluate(agent, tiny_batch())
    expected = -gaussian_log_prob(agent.policy, b.obs, b.action).mean(1)
    assert_allclose(found["policy"], expected, **EXACT)
    assert set(found) == {"policy"}


# -- TD3+BC


TD3 = {"alpha": 2.0, "target_noise": 0.4}


def test_td3_bc_regresses_on_the_smoothed_target_policys_value() -> None:
    agent = tiny_agent("td3_bc", **TD3)
    found, noise, b = evaluate(agent, tiny_batch())
    assert np.abs(0.4 * noise.normals[0]).max() > 0.5, "the case should reach the clip"
    y = b.reward + GAMMA * b.bootstrap * next_value(agent, b, noise)
    q = q_values(agent.critic, b.obs, b.action)
    assert_allclose(found["critic"], td(q, y, b.weight), **EXACT)


FOLLOWED: dict[str, Callable[[Array], Array]] = {
    "first": lambda q: q[:, 0],
    "min": lambda q: q.min(1),
    "mean": lambda q: q,
}


@pytest.mark.parametrize("actor_q", FOLLOWED)
def test_td3_bc_weighs_cloning_against_a_value_of_size_one(actor_q: str) -> None:
    agent = tiny_agent("td3_bc", actor_q=actor_q, critics=3, **TD3)
    found, _, b = evaluate(agent, tiny_batch())
    action = tanh_mean(agent.policy, b.obs)
    q = FOLLOWED[actor_q](q_values(agent.critic, b.obs, action)).reshape(2, -1)
    value = -q.mean(1) / np.abs(q).mean(1)
    cloning = ((action - b.action) ** 2).mean((1, 2))
    assert_allclose(found["policy"], value + cloning / 2.0, **EXACT)


def test_td3_bcs_actor_follows_the_first_critic_unless_it_is_told_otherwise() -> None:
    agent, batch = tiny_agent("td3_bc", **TD3), tiny_batch()
    before = terms(agent.loss(batch, KnownNoise(), ALL_GROUPS))["policy"]
    with torch.no_grad():
        agent.critic.net.layers[-1].bias[:, 1] += 3.0
    assert_allclose(terms(agent.loss(batch, KnownNoise(), ALL_GROUPS))["policy"], before, **EXACT)


def test_td3_bcs_value_scale_is_a_constant_to_its_policy() -> None:
    agent, batch = tiny_agent("td3_bc", actor_q="mean", **TD3), tiny_batch()
    slopes = []
    action = agent.policy.mode(batch.obs)
    q = agent.critic(batch.obs, action)
    scale = np.abs(q.detach().numpy()).mean((1, 2))  # numbers, without a gradient
    cloning = (action - batch.action).square().mean((1, 2))
    for loss in (-q.mean((1, 2)) / tensor(scale) + cloning / 2.0, agent.policy_loss(batch)[0]):
        agent.zero_grad()
        loss.sum().backward()
        slopes.append([p.grad.clone() for p in agent.policy.parameters()])
    for expected, found in zip(*slopes, strict=True):
        assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_td3_bc_has_a_policy_term_only_on_its_own_steps() -> None:
    agent, batch = tiny_agent("td3_bc"), tiny_batch()
    assert set(agent.loss(batch, KnownNoise(), frozenset({"critic"})).terms) == {"critic"}
    assert agent.every == {"policy": 2}


# -- AWAC


def test_awac_regresses_on_the_policys_value_and_clones_by_advantage() -> None:
    agent = tiny_agent("awac", mean="tanh", temperature=0.5)
    found, noise, b = evaluate(agent, tiny_batch())
    y = b.reward + GAMMA * b.bootstrap * next_value(agent, b, noise)
    q = q_values(agent.critic, b.obs, b.action)
    assert_allclose(found["critic"], td(q, y, b.weight), **EXACT)
    sampled = gaussian_sample(agent.policy, b.obs, noise.normals[1])
    advantage = q.min(1) - q_values(agent.critic, b.obs, sampled).min(1)
    weight = np.minimum(np.exp(advantage / 0.5), 100.0)
    log_prob = gaussian_log_prob(agent.policy, b.obs, b.action)
    assert_allclose(found["policy"], -(weight * log_prob).mean(1), **EXACT)


def test_awacs_linear_mean_is_unbounded_in_the_density_and_clipped_when_it_acts() -> None:
    agent = tiny_agent("awac", mean="linear", temperature=0.5)
    with torch.no_grad():
        agent.policy.net.layers[-1].bias += 1.2
    found, noise, b = evaluate(agent, tiny_batch())
    mean = forward(agent.policy.net, b.obs)[:, 0]
    assert (mean > 1).any()
    std = np.exp(agent.policy.log_std.detach().numpy())
    following = forward(agent.policy.net, b.next_obs)[:, 0] + std * noise.normals[0]
    next_q = q_values(agent.critic_target, b.next_obs, np.clip(following, -1, 1)).min(1)
    y = b.reward + GAMMA * b.bootstrap * next_q
    q = q_values(agent.critic, b.obs, b.action)
    assert_allclose(found["critic"], td(q, y, b.weight), **EXACT)
    sampled = np.clip(mean + std * noise.normals[1], -1, 1)
    advantage = q.min(1) - q_values(agent.critic, b.obs, sampled).min(1)
    weight = np.minimum(np.exp(advantage / 0.5), 100.0)
    z = (b.action - mean) / std
    log_prob = (-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(-1)
    assert_allclose(found["policy"], -(weight * log_prob).mean(1), **EXACT)
    obs = tensor(b.obs)
    assert_allclose(agent.act(obs, noise).detach(), np.clip(mean, -1, 1), **EXACT)
    assert agent.explore(obs, KnownNoise()).abs().max() <= 1


def test_awacs_log_std_begins_where_it_is_told_and_stays_within_its_bounds() -> None:
    settings = {"min_log_std": -4.0, "max_log_std": -1.0, "initial_log_std": -2.5}
    config = tiny_config("awac", **settings)
    policy: Any = make_agent("awac", config, tiny_spec(), "offline").double().policy
    obs = tensor(numbers(2, 3, 2))
    mean = policy.mean(obs).detach()
    for log_std, kept in ((None, -2.5), (-9.0, -4.0), (3.0, -1.0)):
        if log_std is not None:
            policy.log_std.data.fill_(log_std)
        expected = -2 * (kept + 0.5 * math.log(2 * math.pi))  # z = 0 in two dimensions
        found = policy.log_prob(obs, mean).detach()
        assert_allclose(found, np.full((2, 3), expected), **EXACT)


# -- IQL


def test_iql_fits_an_expectile_of_the_targets_value_at_logged_actions() -> None:
    agent = tiny_agent("iql", expectile=0.8, beta=2.0)
    found, noise, b = evaluate(agent, tiny_batch())
    q_data = q_values(agent.critic_target, b.obs, b.action).min(1)
    u = q_data - forward(agent.value.net, b.obs)[:, 0, :, 0]
    assert (u < 0).any()
    assert (u > 0).any()
    assert_allclose(found["value"], (np.where(u < 0, 0.2, 0.8) * u**2).mean(1), rtol=1e-6)
    y = b.reward + GAMMA * b.bootstrap * next_value(agent, b, noise)
    q = q_values(agent.critic, b.obs, b.action)
    assert_allclose(found["critic"], td(q, y, b.weight), **EXACT)
    weight = np.minimum(np.exp(2.0 * u), 100.0)
    log_prob = gaussian_log_prob(agent.policy, b.obs, b.action)
    assert_allclose(found["policy"], -(weight * log_prob).mean(1), **EXACT)


def test_iql_draws_no_action_outside_the_data() -> None:
    noise = KnownNoise()
    tiny_agent("iql").loss(tiny_batch(), noise, ALL_GROUPS)
    assert noise.normals == []


def test_iqls_value_is_fitted_to_the_reduction_of_its_targets_that_is_asked_for() -> None:
    agent = tiny_agent("iql", expectile=0.8, critics=3, target_reduction="mean")
    found, _, b = evaluate(agent, tiny_batch())
    q_data = q_values(agent.critic_target, b.obs, b.action).mean(1)
    u = q_data - forward(agent.value.net, b.obs)[:, 0, :, 0]
    assert_allclose(found["value"], (np.where(u < 0, 0.2, 0.8) * u**2).mean(1), rtol=1e-6)


@pytest.mark.parametrize("algo", ["td3_bc", "awac", "sac", "cql"])
def test_targets_are_reduced_as_it_is_asked_for(algo: str) -> None:
    """The mean of three targets moves by a third of what one of them does; the least by nothing."""
    targets = []
    for raised in (0.0, 3.0):
        agent = tiny_agent(algo, critics=3, target_reduction="mean")
        with torch.no_grad():
            agent.critic_target.net.layers[-1].bias[:, 0] += raised
        targets.append(fitted_target(agent, bootstrap=1.0)[0])
    assert_allclose(targets[1] - targets[0], GAMMA * 3.0 / 3, rtol=1e-7)


# -- SAC


@pytest.mark.parametrize("entropy_backup", [True, False])
def test_sac_regresses_on_the_soft_value(entropy_backup: bool) -> None:
    agent = tiny_agent("sac", entropy_backup=entropy_backup)
    found, noise, b = evaluate(agent, tiny_batch())
    y = b.reward + GAMMA * b.bootstrap * next_value(agent, b, noise)
    q = q_values(agent.critic, b.obs, b.action)
    assert_allclose(found["critic"], td(q, y, b.weight), **EXACT)


def test_sac_trades_the_least_critic_against_entropy_and_steers_the_temperature() -> None:
    agent = tiny_agent("sac", target_entropy=-1.5)
    found, noise, b = evaluate(agent, tiny_batch())
    action, log_prob = squashed_sample(agent.policy, b.obs, noise.normals[-1])
    q = q_values(agent.critic, b.obs, action).min(1)
    assert_allclose(found["policy"], (temperature(agent)[:, None] * log_prob - q).mean(1), **EXACT)
    log_alpha = agent.log_alpha.detach().numpy()
    assert_allclose(found["temperature"], -log_alpha * (log_prob - 1.5).mean(1), **EXACT)


def test_sacs_target_entropy_is_minus_the_action_dimension_unless_set() -> None:
    assert tiny_agent("sac").target_entropy == -2.0
    assert tiny_agent("sac", target_entropy=-0.5).target_entropy == -0.5


# -- CQL


def conservative_gap(agent: Any, b: SimpleNamespace, noise: KnownNoise) -> Array:
    """Return `Σ_i mean_B[logsumexp_k(Q_i(s, a_k) − log q(a_k)) − Q_i(s, a)]`, `[S]`."""
    return conservative_gaps(agent, b, noise).mean(2).sum(1)


def conservative_gaps(agent: Any, b: SimpleNamespace, noise: KnownNoise) -> Array:
    """Return `logsumexp_k(Q_i(s, a_k) − log q(a_k)) − Q_i(s, a)`, `[S, N, B]`."""
    here, log_here = squashed_sample(agent.policy, b.obs, noise.normals[1])
    after, log_after = squashed_sample(agent.policy, b.next_obs, noise.normals[2])
    values = [
        q_many(agent.critic, b.obs, 2 * noise.uniforms[0] - 1) + 2 * np.log(2),
        q_many(agent.critic, b.obs, here) - log_here[:, None],
        q_many(agent.critic, b.obs, after) - log_after[:, None],
    ]
    most = np.logaddexp.reduce(np.concatenate(values, axis=3), axis=3)
    return most - q_values(agent.critic, b.obs, b.action)


CQL = {"cql_actions": 2, "cql_weight": 3.0}


@pytest.mark.parametrize("entropy_backup", [True, False])
def test_cql_adds_its_weighted_gap_to_the_td_loss(entropy_backup: bool) -> None:
    agent = tiny_agent("cql", entropy_backup=entropy_backup, **CQL)
    found, noise, b = evaluate(agent, tiny_batch())
    y = b.reward + GAMMA * b.bootstrap * next_value(agent, b, noise)
    expected = td(q_values(agent.critic, b.obs, b.action), y, b.weight)
    expected = expected + 3.0 * conservative_gap(agent, b, noise)
    assert_allclose(found["critic"], expected, **EXACT)


def test_cqls_policy_and_temperature_are_those_of_sac() -> None:
    agent = tiny_agent("cql", **CQL)
    found, noise, b = evaluate(agent, tiny_batch())
    action, log_prob = squashed_sample(agent.policy, b.obs, noise.normals[-1])
    q = q_values(agent.critic, b.obs, action).min(1)
    assert_allclose(found["policy"], (temperature(agent)[:, None] * log_prob - q).mean(1), **EXACT)
    log_alpha = agent.log_alpha.detach().numpy()
    assert_allclose(found["temperature"], -log_alpha * (log_prob - 2.0).mean(1), **EXACT)


@pytest.mark.parametrize("entropy_backup", [True, False])
def test_the_max_backup_bootstraps_on_the_best_sampled_action(entropy_backup: bool) -> None:
    agent = tiny_agent("cql", max_target_backup=True, entropy_backup=entropy_backup, **CQL)
    batch, noise = tiny_batch(), KnownNoise()
    y = agent.q_target(batch, noise)
    b = arrays(batch)
    actions, log_prob = squashed_sample(agent.policy, b.next_obs, noise.normals[0])
    q = q_many(agent.critic_target, b.next_obs, actions).min(1)  # [S, B, K]
    for seed, row in np.ndindex(q.shape[:2]):
        best = q[seed, row].argmax()
        value = q[seed, row, best]
        if entropy_backup:
            value -= temperature(agent)[seed] * log_prob[seed, row, best]
        expected = b.reward[seed, row] + GAMMA * b.bootstrap[seed, row] * value
        assert float(y[seed, row]) == pytest.approx(expected, rel=1e-9)


def test_the_lagrange_form_weighs_the_gap_above_its_target_and_moves_the_dual_by_it() -> None:
    agent = tiny_agent("cql", cql_target_gap=0.4, **CQL)
    with torch.no_grad():
        agent.log_dual.copy_(tensor([0.3, -0.2]))
    found, noise, b = evaluate(agent, tiny_batch())
    y = b.reward + GAMMA * b.bootstrap * next_value(agent, b, noise)
    gap, dual = conservative_gap(agent, b, noise), np.exp([0.3, -0.2])
    expected = td(q_values(agent.critic, b.obs, b.action), y, b.weight)
    assert_allclose(found["critic"], expected + 3.0 * dual * (gap - 2 * 0.4), **EXACT)
    assert_allclose(found["dual"], -3.0 * dual * (gap / 2 - 0.4), **EXACT)


def test_the_dual_begins_at_e_and_is_not_trained_without_its_constraint() -> None:
    config = tiny_config("cql", cql_target_gap=1.0, **CQL)
    agent: Any = make_agent("cql", config, tiny_spec(), "offline").double()
    assert_allclose(agent.dual.detach(), [math.e, math.e], rtol=1e-6)
    agent.drop_constraint()
    assert "dual" not in agent.loss(tiny_batch(), KnownNoise(), ALL_GROUPS).terms


def test_a_gap_counts_at_least_its_floor_state_by_state() -> None:
    agent, batch = tiny_agent("cql", cql_min_gap=0.0, **CQL), tiny_batch()
    noise, b = KnownNoise(), arrays(batch)
    q = agent.critic(batch.obs, batch.action)
    agent.q_target(batch, noise)  # a loss draws its target's noise first
    agent.penalty(batch, q, noise)
    gaps = conservative_gaps(agent, b, noise)
    floor = float(np.median(gaps))
    agent = tiny_agent("cql", cql_min_gap=floor, **CQL)
    found, noise, b = evaluate(agent, batch)
    y = b.reward + GAMMA * b.bootstrap * next_value(agent, b, noise)
    expected = td(q_values(agent.critic, b.obs, b.action), y, b.weight)
    gap = np.maximum(gaps, floor).mean(2).sum(1)
    assert_allclose(found["critic"], expected + 3.0 * gap, **EXACT)


def test_the_dual_is_a_million_at_most_and_what_judges_actions_is_fitted_with_it() -> None:
    agent = tiny_agent("cql", cql_target_gap=0.4, **CQL)
    with torch.no_grad():
        agent.log_dual.copy_(tensor([13.0, 14.0]))  # e^13.8 is a million
    assert_allclose(agent.dual.detach(), [math.exp(13.0), 1e6], rtol=1e-6)
    assert agent.judging() == {"critic", "dual"}
    assert tiny_agent("cql", **CQL).judging() == {"critic"}


def test_without_its_constraint_cql_is_sac_on_the_same_noise() -> None:
    agent = tiny_agent("cql", **CQL)
    agent.drop_constraint()
    found, noise, b = evaluate(agent, tiny_batch())
    y = b.reward + GAMMA * b.bootstrap * next_value(agent, b, noise)
    assert_allclose(
        found["critic"], td(q_values(agent.critic, b.obs, b.action), y, b.weight), **EXACT
    )
    assert len(noise.normals) == 2


# -- a constraint, row by row


def constrained_terms(algo: str) -> set[str]:
    """Return the losses of a method that a batch weighs row by row, of a real batch of a dataset.

    Such a term is a mean over rows: it is as much as its rows, weighed, are.
    """
    agent = small_agent(algo, (0, 1))
    batch = offline_replay(agent).batch()
    rows = batch.constraint.shape[1]

    def found(weights: Tensor) -> dict[str, Array]:
        weighed = replace(batch, constraint=weights.expand(2, rows).float())
        return terms(agent.loss(weighed, SeedStream((0, 1), "noise"), frozenset(agent.groups())))

    none = found(torch.zeros(rows))
    each = [found(row) for row in torch.eye(rows)]
    weights = np.linspace(0, 3, rows)
    for name, value in found(torch.from_numpy(weights)).items():
        expected = sum(weights[i] * (each[i][name] - none[name]) for i in range(rows))
        within = 1e-4 * max(1.0, float(np.abs(value).max()))
        assert_allclose(value - none[name], expected, rtol=1e-3, atol=within, err_msg=name)
    return {name for name in none if not np.array_equal(none[name], found(torch.ones(rows))[name])}


CONSTRAINED = {
    "policy": {"baq", "td3_bc", "adaptive_bc", "rebrac", "spot", "sung", "fql", "qc_fql"},
    "critic": {"cql", "cal_ql", "enoto", "wsrl", "off2on", "edac", "so2", "ro2o"},
}
"""The methods with a constraint in each loss; those that aren't here have none to weigh."""


@pytest.mark.parametrize("algo", [name for name, m in METHODS.items() if m.learns_offline])
def test_a_batch_says_row_by_row_how_much_a_methods_own_constraint_counts(algo: str) -> None:
    assert constrained_terms(algo) == {term for term, of in CONSTRAINED.items() if algo in of}


# -- the end of an episode


def fitted_target(agent: Any, bootstrap: float) -> tuple[Array, KnownNoise, SimpleNamespace]:
    """Read the target y `[S]` off the loss: on one row, dL/dQ_i = 2 w (Q_i − y).

    A critic's last bias moves its Q one for one; a conservative gap doesn't feel it, because it
    moves every value of the gap alike.
    """
    columns = {"mc_return": np.full((2, 1), UNKNOWN_RETURN)} if agent.name == "cal_ql" else {}
    batch = tiny_batch(rows=1, **columns)
    batch.bootstrap.fill_(bootstrap)
    batch.discount.fill_(GAMMA * bootstrap)
    noise = KnownNoise()
    agent.zero_grad()
    agent.loss(batch, noise, ALL_GROUPS).terms["critic"].sum().backward()
    slope = agent.critic.net.layers[-1].bias.grad.flatten(1).numpy()  # [S, N]
    b = arrays(batch)
    targets = q_values(agent.critic, b.obs, b.action)[:, :, 0] - slope / (2 * b.weight)
    assert_allclose(targets, np.broadcast_to(targets[:, :1], targets.shape), rtol=1e-9)
    return targets[:, 0], noise, b


@pytest.mark.parametrize("algo", ["td3_bc", "awac", "iql", "cql", "cal_ql", "enoto", "sac"])
def test_termination_stops_the_bootstrap_and_truncation_does_not(algo: str) -> None:
    settings: dict[str, dict[str, Any]] = {
        "td3_bc": {"target_noise": 0.4},
        "awac": {"mean": "tanh"},
        "cal_ql": {"max_target_backup": False},
    }
    agent = tiny_agent(algo, critics=2, **settings.get(algo, {}))
    terminated, _, b = fitted_target(agent, bootstrap=0.0)
    assert_allclose(terminated, b.reward[:, 0], rtol=1e-9)
    truncated, noise, b = fitted_target(agent, bootstrap=1.0)
    value = next_value(agent, b, noise)[:, 0]
    assert np.abs(value).min() > 1e-3
    assert_allclose(truncated - terminated, GAMMA * value, rtol=1e-9)


def test_a_truncated_last_step_is_stored_to_bootstrap_and_a_terminated_one_not_to() -> None:
    episodes = make_episodes([3, 2], terminated=[False, True])
    spec = tiny_spec(obs_dim=3)
    store = offline_store(episodes, Inputs.fit(AgentConfig(), 3, episodes), spec, (), 0.99)
    batch = store.layout.batch(store.gather(torch.arange(5).expand(2, 5)), torch.zeros(2, 5), 0.99)
    assert batch.bootstrap.tolist() == [[1, 1, 1, 1, 0]] * 2
    assert_allclose(batch.next_obs[0, 2], episodes.next_obs[2])


def test_rewards_may_be_scaled_so_that_the_datasets_returns_span_a_thousand() -> None:
    rewards = [1.0, 2.0, 3.0, 4.0, -1.0, 0.0]
    episodes = make_episodes([2, 2, 2], [True, False, True], rewards)  # returns 3, 7, −1
    config = AgentConfig(reward_scale="returns", reward_shift=0.5)
    inputs = Inputs.fit(config, 3, episodes)
    assert_allclose(inputs.reward(episodes.reward), np.array(rewards) * 1000 / 8 + 0.5, **EXACT)
    same = make_episodes([2, 2], [True, True], [1.0, 2.0, 2.0, 1.0])
    for unknown in (same, None):
        assert Inputs.fit(config, 3, unknown).reward_scale == 1.0


def test_rewards_may_be_standardised_by_the_datasets() -> None:
    rewards = [1.0, 2.0, 3.0, 6.0]  # mean 3, variance 14/4
    episodes = make_episodes([2, 2], [True, False], rewards)
    config = AgentConfig(reward_scale="standard", reward_shift=0.5)
    inputs = Inputs.fit(config, 3, episodes)
    assert_allclose(inputs.reward(episodes.reward), (np.array(rewards) - 3) / 3.5**0.5 + 0.5)
    same = Inputs.fit(config, 3, make_episodes([2, 2], [True, True], [2.0] * 4))
    assert_allclose(same.reward([2.0, 5.0]), [0.5, 3.5])
    assert_allclose(Inputs.fit(config, 3, None).reward([2.0]), [2.5])


def test_rewards_and_observations_enter_updates_in_the_units_fixed_at_pretraining() -> None:
    episodes = make_episodes([6, 6], terminated=[True, True])
    config = AgentConfig(normalize_observations=True, reward_scale=10.0, reward_shift=-5.0)
    inputs = Inputs.fit(config, 3, episodes)
    store = offline_store(episodes, inputs, tiny_spec(obs_dim=3), ("mc_return",), 0.5)
    batch = store.layout.batch(
        store.gather(torch.arange(12).expand(2, 12)), torch.zeros(2, 12), 0.5
    )
    mean, std = episodes.obs.mean(0), episodes.obs.std(0) + 1e-3
    assert_allclose(batch.obs[1], (episodes.obs - mean) / std, rtol=1e-4, atol=1e-5)
    assert_allclose(batch.next_obs[1], (episodes.next_obs - mean) / std, rtol=1e-4, atol=1e-5)
    scaled = 10 * episodes.reward - 5
    assert_allclose(batch.reward[1], scaled, rtol=1e-5)
    expected = scaled[4] + 0.5 * scaled[5]
    assert float(batch.columns["mc_return"][1, 4]) == pytest.approx(expected, rel=1e-5)

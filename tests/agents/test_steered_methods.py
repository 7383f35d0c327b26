"""What three methods add to the frame: Cal-QL, ENOTO and AdaptiveBC."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as random_arrays
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.interface import Spec
from baq_cli.agents.plans import UNION, Draw
from baq_cli.engine.experience import columns
from baq_cli.engine.updates.learner import Learner
from baq_cli.nets.critics import reduce_q, weighted_min_pair
from baq_cli.nets.streams import SeedStream
from support.builders import (
    ALL_GROUPS,
    EXACT,
    GAMMA,
    UNKNOWN_RETURN,
    Array,
    KnownNoise,
    arrays,
    dataset_store,
    numbers,
    offline_replay,
    q_many,
    q_values,
    reader_of,
    small_agent,
    squashed_mode,
    squashed_sample,
    stores_in_reach,
    td,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
)

# -- Cal-QL

FLOORS = [[UNKNOWN_RETURN, 0.4, 50.0], [-0.3, UNKNOWN_RETURN, 0.1]]
"""Returns-to-go: one unknown a seed, one above every value, the rest among the values."""


def calibrated_gap() -> tuple[SimpleNamespace, Array, Array, Array]:
    """Return a Cal-QL case, its values per kind `[S, N, B, K]` and the calibrated ones."""
    agent = tiny_agent("cal_ql", cql_actions=2)
    batch, noise = tiny_batch(mc_return=FLOORS), KnownNoise()
    q = agent.critic(batch.obs, batch.action)
    gap = agent.penalty(batch, q, noise)
    b = arrays(batch)
    here, log_here = squashed_sample(agent.policy, b.obs, noise.normals[0])
    after, log_after = squashed_sample(agent.policy, b.next_obs, noise.normals[1])
    uniform = q_many(agent.critic, b.obs, 2 * noise.uniforms[0] - 1) + 2 * np.log(2)
    raw = q_many(agent.critic, b.obs, np.concatenate([here, after], axis=2))
    log_prob = np.concatenate([log_here, log_after], axis=2)[:, None]
    floor = np.asarray(FLOORS)[:, None, :, None]
    calibrated = np.where(raw > floor, raw, floor) - log_prob
    case = SimpleNamespace(agent=agent, b=b, gap=gap, bound=raw < floor)
    return case, uniform, raw - log_prob, calibrated


def test_the_penalty_sees_the_return_where_it_exceeds_the_value() -> None:
    case, uniform, raw, calibrated = calibrated_gap()
    assert case.bound[:, :, [0, 1]].any()
    assert (~case.bound).any()
    most = np.logaddexp.reduce(np.concatenate([uniform, calibrated], axis=3), axis=3)
    q = q_values(case.agent.critic, case.b.obs, case.b.action)
    assert_allclose(case.gap.detach(), (most - q).mean(2).sum(1), **EXACT)
    unbound = np.logaddexp.reduce(np.concatenate([uniform, raw], axis=3), axis=3)
    assert (most - unbound)[case.bound.any(3)].min() > 0
    assert_allclose(most[~case.bound.any(3)], unbound[~case.bound.any(3)])


def test_no_gradient_reaches_the_critic_through_values_below_the_return() -> None:
    case, uniform, _, calibrated = calibrated_gap()
    case.gap.sum().backward()
    # A critic's last bias moves each of its values one for one, so its slope is the softmax mass
    # of the values that still depend on it, minus one for the logged action.
    values = np.concatenate([uniform, calibrated], axis=3)
    mass = np.exp(values - np.logaddexp.reduce(values, axis=3)[..., None])
    free = np.concatenate([np.ones_like(case.bound[..., :2]), ~case.bound], axis=3)
    slope = ((mass * free).sum(3) - 1).mean(2)
    found = case.agent.critic.net.layers[-1].bias.grad[:, :, 0, 0]
    assert_allclose(found, slope, rtol=1e-7, atol=1e-10)
    assert slope.max() < -0.05


def test_calibration_passes_gradients_only_to_values_above_the_return() -> None:
    agent = tiny_agent("cal_ql")
    q = tensor([[[[-1.0, 0.5, 2.0]]]]).requires_grad_()  # [S, N, B, 2K]
    batch = tiny_batch(seeds=1, rows=1, mc_return=[[1.0]])
    calibrated = agent.calibrate(q, batch)
    assert_allclose(calibrated.detach(), [[[[1.0, 1.0, 2.0]]]])
    calibrated.sum().backward()
    assert q.grad.tolist() == [[[[0.0, 0.0, 1.0]]]]


def test_the_return_of_a_running_episode_never_binds() -> None:
    agent = tiny_agent("cal_ql")
    q = tensor(numbers(1, 2, 1, 4, size=1e6))
    batch = tiny_batch(seeds=1, rows=1, mc_return=[[columns.UNKNOWN_RETURN]])
    assert torch.equal(agent.calibrate(q, batch), q)


def test_cal_ql_draws_half_of_every_batch_online() -> None:
    plan = tiny_agent("cal_ql").online_plan()
    assert plan.draws == (Draw(("online",), 0.5), Draw(("offline",), 0.5))
    assert plan.uses_offline


# -- ENOTO


@given(
    st.tuples(st.integers(1, 3), st.integers(2, 7), st.integers(1, 4)).flatmap(
        lambda shape: random_arrays(np.float64, shape, elements=st.floats(-1e3, 1e3))
    )
)
def test_weighted_min_pair_is_the_mean_minimum_over_all_pairs(q: Array) -> None:
    pairs = list(itertools.combinations(range(q.shape[1]), 2))
    brute = np.mean([np.minimum(q[:, i], q[:, j]) for i, j in pairs], axis=0)
    assert_allclose(weighted_min_pair(tensor(q)), brute, rtol=1e-9, atol=1e-9)


def test_weighted_min_pair_of_one_critic_is_its_value() -> None:
    q = tensor(numbers(2, 1, 3))
    assert torch.equal(reduce_q(q, "weighted_min_pair"), q[:, 0])


def test_enoto_bootstraps_offline_on_the_greedy_action_without_entropy() -> None:
    agent = tiny_agent("enoto", critics=3)
    batch = tiny_batch()
    b = arrays(batch)
    next_q = q_values(agent.critic_target, b.next_obs, squashed_mode(agent.policy, b.next_obs))
    y = b.reward + GAMMA * b.bootstrap * next_q.min(1)
    assert_allclose(agent.q_target(batch, KnownNoise()), y, **EXACT)


def test_enotos_gap_is_the_mean_of_the_critics_and_its_td_loss_their_sum() -> None:
    """So that α_c weighs as much against one critic's error with ten critics as with two."""
    settings = {"critics": 4, "cql_actions": 2, "target_reduction": "min"}
    ours, theirs = tiny_agent("enoto", **settings), tiny_agent("cql", **settings)
    theirs.load_state_dict(ours.state_dict())
    batch = tiny_batch()
    gaps = [
        agent.penalty(batch, agent.critic(batch.obs, batch.action), KnownNoise()).detach()
        for agent in (ours, theirs)
    ]
    assert_allclose(gaps[0], gaps[1] / 4, **EXACT)
    found = terms(ours.loss(batch, KnownNoise(), ALL_GROUPS))["critic"]
    ours.drop_constraint()
    plain = terms(ours.loss(batch, KnownNoise(), ALL_GROUPS))["critic"]
    assert_allclose(found - plain, ours.config.cql_weight * gaps[0], rtol=1e-7)


def test_enoto_weighs_losses_down_by_the_target_critics_spread() -> None:
    agent = tiny_agent("enoto", critics=4, weight_temperature=2.0)
    batch = tiny_batch()
    b = arrays(batch)
    spread = q_values(agent.critic_target, b.obs, b.action).std(1, ddof=1).mean(1)
    assert_allclose(agent.loss_weight(batch), 1 / (1 + np.exp(2.0 * spread)) + 0.5, **EXACT)


def test_enotos_online_critic_loss_is_weighted_and_bootstraps_on_pairs() -> None:
    agent = tiny_agent("enoto", phase="online", critics=3, weight_temperature=2.0)
    batch, noise = tiny_batch(), KnownNoise()
    losses = agent.online_loss(batch, noise, ALL_GROUPS)
    b = arrays(batch)
    policy_noise, target_noise = noise.normals
    spread = q_values(agent.critic_target, b.obs, b.action).std(1, ddof=1).mean(1)
    weight = 1 / (1 + np.exp(2.0 * spread)) + 0.5
    alpha = np.exp(agent.log_alpha.detach().numpy())[:, None]
    action, log_prob = squashed_sample(agent.policy, b.next_obs, target_noise)
    q = q_values(agent.critic_target, b.next_obs, action)
    pairs = [np.minimum(q[:, i], q[:, j]) for i, j in itertools.combinations(range(3), 2)]
    y = b.reward + GAMMA * b.bootstrap * (np.mean(pairs, axis=0) - alpha * log_prob)
    expected = weight * td(q_values(agent.critic, b.obs, b.action), y, b.weight)
    assert_allclose(terms(losses)["critic"], expected, **EXACT)
    action, log_prob = squashed_sample(agent.policy, b.obs, policy_noise)
    least = q_values(agent.critic, b.obs, action).min(1)
    assert_allclose(terms(losses)["policy"], (alpha * log_prob - least).mean(1), **EXACT)


@pytest.mark.parametrize("bonus", [0.0, 1.0, 10.0])
def test_enoto_explores_with_the_sample_of_highest_mean_plus_bonus(bonus: float) -> None:
    agent = tiny_agent("enoto", critics=3, ucb_actions=6, ucb_bonus=bonus)
    obs, noise = tiny_batch(rows=4).obs, KnownNoise()
    chosen = agent.explore(obs, noise).detach().numpy()
    samples, _ = squashed_sample(agent.policy, obs.numpy(), noise.normals[0])
    q = q_many(agent.critic, obs.numpy(), samples)  # [S, N, E, K]
    for seed, row in np.ndindex(2, 4):
        scores = [
            np.mean(q[seed, :, row, k]) + bonus * np.std(q[seed, :, row, k], ddof=1)
            for k in range(6)
        ]
        assert_allclose(chosen[seed, row], samples[seed, row, int(np.argmax(scores))], **EXACT)


class Turned(SeedStream):
    """Gives draws in pairs, the second of each first."""

    kept: Tensor | None = None

    def normal(self, *shape: int) -> Tensor:
        if self.kept is None:
            self.kept = super().normal(*shape)
            return super().normal(*shape)
        found, self.kept = self.kept, None
        return found


def test_enoto_by_the_plain_minimum_without_bonus_and_loss_weight_fine_tunes_as_sac_n() -> None:
    """To the bit, from one state and the same batches. ENOTO draws for its actor first."""
    plain = {"online_target": "min", "ucb_bonus": 0.0, "ucb_actions": 1, "weight_temperature": 0.0}
    shared = {"critics": 5, "temperature_learning_rate": 1e-3, "policy_learning_rate": 5e-4}
    ours = small_agent("enoto", (0, 1), phase="online", **(plain | shared))
    theirs = small_agent("sac_n", (0, 1), phase="online", **shared)
    theirs.load_state_dict(ours.state_dict())
    one, other = Learner(ours), Learner(theirs)
    assert one.learning_rates() == other.learning_rates()
    one.noise = Turned((0, 1), "noise/online")
    replay = offline_replay(theirs)
    for _ in range(25):
        batch = replay.batch()
        one.update(batch)
        other.update(batch)
    known = one.state() | ours.state_dict()
    for name, expected in (other.state() | theirs.state_dict()).items():
        assert torch.equal(known[name], expected), name
    assert not torch.equal(ours.state_dict()["log_alpha"], torch.zeros(2))
    obs = torch.linspace(-1, 1, 2 * 9 * 3).reshape(2, 9, 3)
    explored = [agent.explore(obs, SeedStream((0, 1), "explore")) for agent in (ours, theirs)]
    assert torch.equal(*explored)


def test_enoto_starts_online_with_an_empty_store() -> None:
    agent = small_agent("enoto", (0, 1))
    plan = agent.online_plan()
    assert plan.draws == (Draw(("online",)),)
    assert not plan.uses_offline
    offline, fresh = stores_in_reach(agent, plan, dataset_store(agent))
    assert offline is None
    assert fresh.size == 0


# -- AdaptiveBC


def controller() -> SimpleNamespace:
    """Return a controller with round gains: returns lie in 0..100, α starts at its limit 0.4."""
    agent = tiny_agent(
        "adaptive_bc",
        Spec((0, 1), 2, 2, return_range=(0.0, 100.0)),
        bc_weight=0.4,
        target_return=1.0,
        proportional_gain=0.01,
        derivative_gain=0.02,
        return_rate=0.5,
    )

    def end(finished: list[bool], returns: list[float], lengths: list[float]) -> list[float]:
        agent.on_episode_end(torch.tensor(finished), tensor(returns), tensor(lengths))
        return agent.bc_weight.tolist()

    return SimpleNamespace(agent=agent, end=end)


def test_the_controller_follows_a_written_history_of_returns() -> None:
    end = controller().end
    # seed 0: R .5, R̄ .5: 10 · (−.01 · .5) = −.05; seed 1 is still in its first episode
    assert end([True, False], [50, 90], [10, 30]) == pytest.approx([0.35, 0.4], abs=1e-6)
    # seed 0: R .1, R̄ .3: 5 · (−.01 · .7 + .02 · .2) = −.015; seed 1: R 1 = R̄ = target: still
    assert end([True, True], [10, 100], [5, 20]) == pytest.approx([0.335, 0.4], abs=1e-6)
    # seed 1: R .2, R̄ .6: 4 · (−.01 · .4 + .02 · .4) = +.016, held at α_0
    assert end([False, True], [70, 20], [8, 4]) == pytest.approx([0.335, 0.4], abs=1e-6)
    # seed 0: R .9, R̄ .6: 10 · (−.01 · .4) = −.04; seed 1: R .6, R̄ .6: 25 · (−.004) = −.1
    assert end([True, True], [90, 60], [10, 25]) == pytest.approx([0.295, 0.3], abs=1e-6)
    # seed 1: R −.6 (below the reference range), R̄ 0: 10 · (−.01 + .02 · .6) = +.02
    assert end([False, True], [70, -60], [8, 10]) == pytest.approx([0.295, 0.32], abs=1e-6)
    # seed 0: R .6, R̄ .6: 1000 · (−.004) = −4, held at 0
    assert end([True, False], [60, 90], [1000, 30]) == pytest.approx([0.0, 0.32], abs=1e-6)


def test_a_return_above_the_target_raises_the_cloning_weight() -> None:
    case = controller()
    case.agent.bc_weight.fill_(0.1)
    # R = R̄ = 1.5: 10 · (−.01 · −.5) = +.05
    assert case.end([True, True], [150, 150], [10, 0]) == pytest.approx([0.15, 0.1], abs=1e-6)


@pytest.mark.parametrize(("low", "high"), [(2.0, 2.0), (2.0, 2.0 + 1e-7)])
def test_data_that_all_return_alike_have_their_return_for_the_unit(low: float, high: float) -> None:
    """Demonstrations that all succeed: a failure is one below them, and not a hundred million."""
    spec = Spec((0,), 2, 2, return_range=(low, high))
    gains = {"proportional_gain": 0.01, "derivative_gain": 0.02, "return_rate": 0.5}
    agent = tiny_agent("adaptive_bc", spec, bc_weight=0.4, target_return=1.0, **gains)
    found = []
    for value in (2.0, 0.0):
        agent.on_episode_end(torch.tensor([True]), tensor([value]), tensor([4.0]))
        found.append(float(agent.bc_weight))
    # R 0, R̄ 0: 4 · (−.01 · 1) = −.04; R −1, R̄ −.5: 4 · (−.01 · 1.5 + .02 · .5) = −.02
    assert found == pytest.approx([0.36, 0.34], abs=1e-5)
    assert Spec((0,), 2, 2, return_range=(0.0, 0.0)).return_span == 1.0


def test_another_hand_over_begins_the_controller_anew() -> None:
    agent = tiny_agent("adaptive_bc", phase="online", bc_weight=0.4)
    agent.on_episode_end(torch.tensor([True, True]), tensor([-9.0, 0.2]), tensor([5.0, 5.0]))
    agent.bc_weight.fill_(0.1)
    agent.hand_over(reader_of(agent, None))
    assert agent.mean_return.isnan().all()
    assert agent.bc_weight.tolist() == pytest.approx([0.4, 0.4])


def test_the_steered_weight_is_what_multiplies_cloning() -> None:
    agent, batch = controller().agent, tiny_batch()
    found = []
    for weight in ([0.0, 0.0], [0.25, 0.5]):
        agent.bc_weight.copy_(tensor(weight))
        found.append(terms(agent.loss(batch, KnownNoise(), ALL_GROUPS))["policy"])
    action = agent.policy.mode(batch.obs).detach().numpy()
    cloning = ((action - batch.action.numpy()) ** 2).mean((1, 2))
    assert_allclose(found[1] - found[0], np.array([0.25, 0.5]) * cloning, **EXACT)


@pytest.mark.parametrize(("min_rows", "kept"), [(0, 6), (50, 50), (50_000, 120)])
def test_adaptive_bc_keeps_a_twentieth_of_the_dataset_or_the_least_rows(
    min_rows: int, kept: int
) -> None:
    agent = small_agent("adaptive_bc", (0, 1), distilled_min_rows=min_rows)
    plan = agent.online_plan()
    assert plan.draws == (UNION,)
    offline, _ = stores_in_reach(agent, plan, dataset_store(agent))
    assert offline is not None
    assert offline.reach == kept
    assert offline.subset is not None
    for rows in offline.subset:
        assert len(set(rows.tolist())) == kept
        assert 0 <= int(rows.min()) <= int(rows.max()) < 120
    if kept < 120:
        assert set(offline.subset[0].tolist()) != set(offline.subset[1].tolist())

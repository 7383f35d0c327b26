"""SDM-GAN: its pairs, target, limit and schedules by hand, its stages, and how it acts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.interface import Batch
from baq_cli.agents.parts.discriminator import Discriminator, Pairs
from baq_cli.agents.parts.loss_limit import LossLimit
from baq_cli.agents.parts.model_based import MODEL
from baq_cli.agents.plans import Draw, Plan
from baq_cli.agents.sdm_gan import ADVERSARIES
from baq_cli.engine.updates.learner import Learner
from baq_cli.nets.streams import SeedStream
from support.builders import (
    EXACT,
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    batch_for,
    dataset_store,
    forward,
    handed_over,
    numbers,
    online_form,
    pretrain,
    q_values,
    reader_of,
    small_agent,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_spec,
)

MAIN = ADVERSARIES | {"critic"}


def raw_actions(policy: Any, obs: Array, z: Array) -> Array:
    """Return f(s, z) for noise that is kept within ±3, `[S, B, A]`."""
    return forward(policy.net, np.concatenate([obs, np.clip(z, -3, 3)], axis=-1))[:, 0]


def noised(obs: Array, eps: Array, std: float) -> Array:
    return obs + np.clip(std * eps, -0.05, 0.05)


# -- the critics' target


def test_the_target_is_a_mean_over_fifty_actions_of_a_weighted_least_and_greatest() -> None:
    """Forty-nine in states with noise of their own, of which some is cut, and one in the state."""
    agent = tiny_agent("sdm_gan", target_actions=50, state_noise=0.1)
    batch, noise = tiny_batch(), KnownNoise(size=4.0)
    found = agent.next_value(batch.next_obs, noise)
    eps, z = noise.normals
    assert (eps.shape, z.shape) == ((2, 3, 49, 2), (2, 150, 1))
    assert 0 < (np.abs(0.1 * eps) > 0.05).sum() < eps.size
    assert 0 < (np.abs(z) > 3).sum() < z.size
    obs, z, values = batch.next_obs.numpy(), z.reshape(2, 3, 50, 1), []
    for k in range(50):
        near = noised(obs, eps[:, :, k], 0.1) if k < 49 else obs
        action = np.tanh(raw_actions(agent.policy_target, near, z[:, :, k]))
        q = q_values(agent.critic_target, near, action)
        values.append(0.75 * q.min(1) + 0.25 * q.max(1))
    assert_allclose(found.detach(), np.mean(values, axis=0), **EXACT)


def test_a_next_value_out_of_all_bounds_is_left_out_and_its_row_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent, batch, noise = tiny_agent("sdm_gan"), tiny_batch(), KnownNoise()
    values = tensor([[2000.0, 1999.0, -1999.0], [-2000.5, 3.0, 5e9]])
    monkeypatch.setattr(agent, "next_value", lambda obs, noise: values)
    batch = replace(
        batch,
        reward=tensor([[1.0, -9.0, 9.0], [0.5, 1.5, -1.5]]),
        discount=tensor([[0.9, 0.0, 0.9], [0.9, 0.9, 0.9]]),
    )
    agent.reward_range.copy_(tensor([[-2.0, 3.0], [-1.0, 1.0]]))
    expected = [[1.0, -2.0, 3.0 - 0.9 * 1999.0], [0.5, 1.0 + 0.9 * 3.0, -1.0]]
    assert_allclose(agent.q_target(batch, noise), expected, **EXACT)


@pytest.mark.parametrize("huber", [500.0, 0.4])
def test_the_critics_are_summed_and_large_errors_count_linearly(huber: float) -> None:
    agent, batch = tiny_agent("sdm_gan", huber=huber), tiny_batch()
    found, _ = agent.critic_loss(batch, KnownNoise())
    y, b = agent.q_target(batch, KnownNoise()).numpy(), arrays(batch)
    off = np.abs(q_values(agent.critic, b.obs, b.action) - y[:, None])
    each = np.where(off < huber, 0.5 * off**2, huber * (off - 0.5 * huber))
    assert (huber > 1) == (off < huber).all()
    assert_allclose(found.detach(), (b.weight[:, None] * each).mean(2).sum(1), **EXACT)


def test_rewards_are_kept_in_the_range_of_all_real_ones() -> None:
    agent: Any = small_agent("sdm_gan", (0, 1))
    store = dataset_store(agent)
    agent.begin_stage("dynamics", reader_of(agent, store))
    reward = store.layout.batch(store.rows, store.rows[..., 0], GAMMA).reward[0].numpy()
    expected = [reward.min() - 3 * reward.std(), reward.max() + 3 * reward.std()]
    assert_allclose(agent.reward_range, [expected] * 2, rtol=1e-5)


def test_the_models_units_are_those_of_rows_that_are_not_held_out() -> None:
    agent: Any = small_agent("sdm_gan", (0, 1))
    store = dataset_store(agent)
    agent.begin_stage("dynamics", reader_of(agent, store))
    rows, at = store.rows[0, : store.size].double().numpy(), store.layout.slices
    held_out = rows[:, at["held_out"].start] > 0
    assert 0 < held_out.sum() < len(rows)
    used = rows[~held_out]
    pairs = np.concatenate([used[:, at["obs"]], used[:, at["action"]]], axis=1)
    assert_allclose(agent.dynamics.input_mean[1, 0], pairs.mean(0), atol=1e-6)


# -- the limit of its loss


def test_the_limit_follows_the_mean_and_spread_of_so_many_losses() -> None:
    limit = LossLimit(tiny_spec(), first=10.0, every=4).double()
    losses = tensor([[1.0, 50.0], [3.0, 0.0], [10.0, 2.0], [2.0, 8.0], [7.0, 7.0]])
    allowed = []
    for number, loss in enumerate(losses):
        allowed.append(limit.allows(loss).tolist())
        for name, value in limit.after(loss).items():
            limit.get_buffer(name).copy_(value)
        if number < 3:
            assert limit.limit.tolist() == [10.0, 10.0]
    first = losses[:4].numpy()
    expected = 0.95 * 10 + 0.05 * (first.mean(0) + 3 * first.std(0))
    assert_allclose(limit.limit, expected, **EXACT)
    assert allowed == [[True, False], [True, True], [False, True], [True, True], [True, True]]
    assert_allclose(limit.seen, [[1, 7, 49]] * 2)


def test_critics_whose_loss_is_above_the_limit_stay_in_that_seed_alone() -> None:
    agent: Any = small_agent("sdm_gan", (0, 1), loss_limit_every=1_000)
    agent.critic_limit.limit.copy_(torch.tensor([1000.0, 1e-6]))
    before = {n: p.detach().clone() for n, p in agent.named_parameters()}
    pretrain(agent, 2)
    for name, p in agent.named_parameters():
        moved = [not torch.equal(p[i], before[name][i]) for i in range(2)]
        if name.startswith("critic."):
            assert moved == [True, False], name
        elif name.startswith(("policy.", "discriminator.")):
            assert moved == [True, True], name
    assert agent.critic_limit.seen[:, 0].tolist() == [2.0, 2.0], "what is refused is seen too"


# -- pairs


def test_an_action_of_data_is_taken_back_through_the_tanh_and_off_its_bounds() -> None:
    action = tensor([[[0.5, -1.0], [1.0, 0.0]]])
    pairs = Pairs.of_data(tensor(np.zeros((1, 2, 3))), action)
    bound = 0.5 * np.log((2 - 1e-7) / 1e-7)
    assert_allclose(pairs.raw, [[[0.5 * np.log(3), -bound], [bound, 0.0]]], rtol=1e-7)
    assert pairs.counts.tolist() == [[1, 1]]


def test_fakes_are_what_the_policy_does_near_states_that_go_on_and_one_step_later() -> None:
    agent = tiny_agent("sdm_gan", state_noise=0.1, members=2, elites=1)
    moved: list[Any] = []

    def step(obs: torch.Tensor, action: torch.Tensor, noise: Any) -> Any:
        moved.append((obs, action))
        goes_on = tensor([[1, 1, 0], [0, 1, 1]])
        return SimpleNamespace(next_obs=2 * obs, bootstrap=goes_on)

    agent.dynamics = torch.nn.Identity()
    agent.dynamics.step = step
    batch, noise = tiny_batch(), KnownNoise(size=4.0)
    pairs = agent.fakes(batch, noise)
    eps, z, next_z = noise.normals
    obs = noised(batch.obs.numpy(), eps, 0.1)
    raw = raw_actions(agent.policy, obs, z)
    assert_allclose(pairs.obs, np.concatenate([obs, 2 * obs], axis=1), **EXACT)
    next_raw = raw_actions(agent.policy, 2 * obs, next_z)
    assert_allclose(pairs.raw.detach(), np.concatenate([raw, next_raw], axis=1), **EXACT)
    assert_allclose(moved[0][1].detach(), np.tanh(raw), **EXACT)
    goes_on = batch.bootstrap.numpy()
    assert_allclose(
        pairs.counts, np.concatenate([goes_on, goes_on * [[1, 1, 0], [0, 1, 1]]], axis=1)
    )


def cross_entropy(discriminator: Any, obs: Array, raw: Array, label: Array) -> Array:
    logit = forward(discriminator.net, np.concatenate([obs, raw], axis=-1))[:, 0, :, 0]
    odds = 1 / (1 + np.exp(-logit))
    return -(label * np.log(odds) + (1 - label) * np.log(1 - odds))


def test_the_discriminator_has_smooth_labels_for_data_none_for_fakes_and_half_of_both() -> None:
    agent, noise = tiny_agent("sdm_gan"), KnownNoise()
    known = [tensor(numbers(2, 4, 2, phase=k)) for k in range(4)]
    data = Pairs(known[0], known[1], tensor(np.ones((2, 4))))
    counts = np.array([[1, 0, 1, 1], [0, 0, 0, 1]])
    fakes = Pairs(known[2], known[3].requires_grad_(), tensor(counts))
    net: Discriminator = agent.discriminator
    loss = net.loss(data, fakes, 0.8, noise)  # type: ignore[arg-type]
    label = 0.8 + 0.2 * noise.uniforms[0]
    of_data = cross_entropy(net, data.obs.numpy(), data.raw.numpy(), label).mean(1)
    each = cross_entropy(net, fakes.obs.numpy(), known[3].detach().numpy(), 0 * label)
    of_fakes = (counts * each).sum(1) / counts.sum(1)
    assert_allclose(loss.detach(), 0.5 * (of_data + of_fakes), **EXACT)
    loss.sum().backward()
    assert known[3].grad is None, "the policy doesn't learn from this loss"


# -- the policy


def losses(agent: Any, active: frozenset[str] = MAIN) -> tuple[Any, KnownNoise, Batch]:
    batch, noise = batch_for(agent), KnownNoise()
    return agent.loss(batch, noise, active), noise, batch


@pytest.mark.parametrize("q_scale", [0.0, 2.5])
def test_the_policy_climbs_the_least_critic_in_units_of_a_running_mean(q_scale: float) -> None:
    agent = tiny_agent("sdm_gan", gan_weight=0.7, value_weight=10.0, tau=0.25)
    agent.q_scale.fill_(q_scale)
    found, noise, batch = losses(agent)
    fakes = agent.fakes(batch.part("fake"), KnownNoise())
    label, raw = np.ones(fakes.counts.shape), fakes.raw.detach().numpy()
    each = cross_entropy(agent.discriminator, fakes.obs.numpy(), raw, label)
    counts = fakes.counts.numpy()
    obs = batch.part("value").obs.numpy()
    action = np.tanh(raw_actions(agent.policy, obs, noise.normals[-1]))
    least = q_values(agent.critic, obs, action).min(1)
    size = np.abs(least).mean(1)
    scale = q_scale or size
    generator = (counts * each).sum(1) / counts.sum(1)
    expected = -10.0 * least.mean(1) / scale + 0.7 * generator
    assert_allclose(terms(found)["policy"], expected, **EXACT)
    assert_allclose(found.becomes["q_scale"], 0.75 * scale + 0.25 * size, **EXACT)


def test_the_policys_loss_reaches_the_policy_alone() -> None:
    agent = tiny_agent("sdm_gan")
    found, _, _ = losses(agent)
    found.terms["policy"].sum().backward()
    touched = {n.split(".")[0] for n, p in agent.named_parameters() if p.grad is not None}
    assert touched == {"policy"}


@pytest.mark.parametrize(("share", "left"), [(0.0, 1.0), (0.5, 0.6), (1.0, 0.2)])
def test_the_discriminators_part_fades_online(share: float, left: float) -> None:
    settings = {"gan_weight": 3.0, "gan_weight_end": 0.2}
    online = tiny_agent("sdm_gan", phase="online", **settings)
    online.clock.write(1_000, 50, share)
    assert_allclose(online.gan_weight(), 3.0 * left, rtol=1e-6)
    offline = tiny_agent("sdm_gan", **settings)
    offline.clock.write(1_000, 50, share)
    assert offline.gan_weight() == 3.0


def test_it_is_evaluated_with_the_action_that_the_first_critic_finds_best() -> None:
    agent, noise = tiny_agent("sdm_gan", evaluation_actions=6), KnownNoise()
    obs = tensor(numbers(2, 4, 2))
    found = agent.act(obs, noise).detach().numpy()
    (z,) = noise.normals
    actions = [np.tanh(raw_actions(agent.policy, obs.numpy(), z[:, :, k])) for k in range(6)]
    first = np.stack([q_values(agent.critic, obs.numpy(), a)[:, 0] for a in actions])  # [K, S, E]
    best = first.argmax(0)
    assert len(np.unique(best)) > 1
    for s, e in np.ndindex(best.shape):
        assert_allclose(found[s, e], actions[best[s, e]][s, e], **EXACT)


# -- plans, stages, rollouts


def test_a_rollout_takes_each_states_own_action() -> None:
    agent, noise = tiny_agent("sdm_gan"), KnownNoise()
    obs = tensor(numbers(2, 5, 2))
    made = agent.imagine(obs, noise)
    expected = np.tanh(raw_actions(agent.policy, obs.numpy(), noise.normals[0]))
    assert_allclose(made["action"].detach(), expected, **EXACT)
    assert len(np.unique(expected[0, :, 0])) == 5


@pytest.mark.parametrize(
    ("steps", "odds"), [(0, 1.0), (49, 1.0), (50, 0.9), (149, 0.8), (250, 0.5), (900, 0.5)]
)
def test_real_rows_make_way_for_the_models_by_tenths(
    steps: int, odds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, nothing = tiny_agent("sdm_gan", real_share_every=50, real_share=0.5), KnownNoise()
    filled: list[int] = []
    monkeypatch.setattr(agent, "fill", lambda data, rollouts, noise: filled.append(rollouts))
    held = agent.real_odds
    agent.clock.write(steps, 0, 0.0)
    agent.refresh("rollouts", None, nothing)
    assert agent.real_odds is held, "draws that are recorded read this tensor"
    assert_allclose(held, [odds] * 2, rtol=1e-6)
    assert filled == [agent.rollouts]


def test_the_parts_of_a_batch_are_drawn_as_the_paper_says() -> None:
    settings = {"rollout_rows": 30, "horizon": 4, "rollouts_kept": 3, "real_share": 0.5}
    agent: Any = small_agent("sdm_gan", (0, 1), dynamics_steps=9, warm_up_steps=7, **settings)
    plan: Plan = agent.offline_plan()
    mixed = Draw(("offline", "model"), odds="real_odds")
    assert plan.draws == (
        replace(mixed, name="value"),
        replace(mixed, name="fake"),
        Draw(share=2.0, name="data"),
    )
    assert plan.model_capacity == 7 * 4 * 3, "7 rollouts of 4 steps are no more than 30 rows"
    fit, warm_up = plan.first
    assert (fit.groups, fit.steps, fit.rows) == (MODEL, 9, 16)
    assert (warm_up.groups, warm_up.steps) == (ADVERSARIES, 7)
    assert plan.train == MAIN

    online: Plan = online_form(agent).online_plan()
    real, made = Draw(("offline", "online"), 0.5, odds="odds"), Draw(("model",), 0.5)
    assert online.draws == (
        *(replace(draw, name=name) for name in ("value", "fake") for draw in (real, made)),
        replace(real, share=2.0, name="data"),
    )
    assert [routine.name for routine in online.routines] == ["refit", "rollouts"]
    assert not online.first


def test_counts_of_the_online_phase_are_those_of_its_keys() -> None:
    counts = {"utd": 3, "warmup_env_steps": 7, "capacity": 11}
    every = {"refit_every": 9, "refit_steps": 4, "rollout_every": 5}
    kept = {"rollout_rows": 12, "horizon": 4, "rollouts_kept": 2}
    plan = small_agent("sdm_gan", (0,), phase="online", **counts, **every, **kept).online_plan()
    assert {name: getattr(plan, name) for name in counts} == counts
    assert plan.model_capacity == 24
    refit, rollouts = plan.routines
    assert (refit.every, [stage.steps for stage in refit.stages]) == (9, [4])
    assert (rollouts.every, rollouts.stages) == (5, ())


def test_online_a_real_row_is_as_often_of_the_dataset_as_its_part_of_them_is_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows come in between two refits, so the odds are set at each rollout too."""
    rows = {"offline": 30, "online": 10}
    data: Any = SimpleNamespace(size=rows.__getitem__)
    for phase, odds in (("offline", 1.0), ("online", 0.75)):
        agent = tiny_agent("sdm_gan", phase=phase)
        monkeypatch.setattr(agent, "fill", lambda data, rollouts, noise: None)
        held = agent.odds
        agent.refresh("rollouts", data, KnownNoise())
        assert agent.odds is held, "draws that are recorded read this tensor"
        assert held.tolist() == [odds, odds]


def test_the_policy_steps_on_every_second_update_and_both_targets_follow_at_each() -> None:
    agent: Any = small_agent("sdm_gan", (0,), policy_every=2)
    learner, stepped = Learner(agent), []
    for _ in range(4):
        stepped.append("policy" in learner.active())
        assert learner.active() >= {"critic", "discriminator"}
        learner.count()
    assert stepped == [False, True, False, True]
    assert [target.follows for target in agent.targets()] == [None, None]


def test_the_warm_up_knows_no_value_and_the_target_policy_is_behind_it() -> None:
    agent = tiny_agent("sdm_gan")
    found, _, _ = losses(agent, ADVERSARIES)
    assert set(found.terms) == ADVERSARIES
    assert not found.becomes
    assert not found.applied
    whole, _, _ = losses(agent)
    assert_allclose(terms(found)["policy"], whole.metrics["generator"], **EXACT)
    policies = [[*p.parameters()] for p in (agent.policy, agent.policy_target)]
    data: Any = None
    agent.assess(data)
    assert not all(map(torch.equal, *policies))
    agent.assess(data, "warm-up")
    assert all(map(torch.equal, *policies))


def test_the_hand_over_changes_nothing_but_where_rows_come_from() -> None:
    agent: Any = small_agent("sdm_gan", (0, 1), loss_limit_every=2)
    pretrain(agent, 4)
    online = handed_over(agent)
    before, after = agent.state_dict(), online.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert (before["critic_limit.limit"] != 1000.0).all()
    assert (before["q_scale"] > 0).all()
    assert len(Learner(online).optimizer_state()) == len(Learner(agent).optimizer_state())


def test_networks_are_those_of_the_authors() -> None:
    spec = tiny_spec(obs_dim=17, action_dim=6)
    agent = tiny_agent("sdm_gan", spec, hidden=(400, 300), discriminator_hidden=(400, 300))
    for net, n_in, n_out in (
        (agent.policy.net, 17 + 8, 6),
        (agent.critic.net, 23, 1),
        (agent.discriminator.net, 23, 1),
    ):
        assert [layer.weight.shape[2:] for layer in net.layers] == [
            (n_in, 400),
            (400, 300),
            (300, n_out),
        ]
        assert net.activation == "leaky_relu"
    noise = SeedStream((0, 1), "noise")
    z = agent.policy.draw_noise(noise, 4000)
    assert float(z.abs().max()) == 3.0
    groups = agent.groups()
    assert groups["policy"].betas == groups["discriminator"].betas == (0.4, 0.999)
    assert groups["critic"].betas == (0.9, 0.999)

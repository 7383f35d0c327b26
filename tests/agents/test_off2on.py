"""Off2On: members that learn apart, one policy and each member's own target, balanced replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.plans import Draw
from baq_cli.agents.registry import METHODS
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.stores import stores_by_name
from baq_cli.engine.updates.learner import Learner
from baq_cli.nets.streams import SeedStream
from support.builders import (
    EXACT,
    Array,
    KnownNoise,
    add_online,
    arrays,
    backward,
    batch_for,
    dataset_store,
    forward,
    handed_over,
    numbers,
    online_form,
    plan_of,
    pretrain,
    q_values,
    reader_of,
    small_agent,
    stores_in_reach,
    td,
    temperature,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
)

MAIN = frozenset({"critic", "policy", "temperature"})
ONLINE_GROUPS = MAIN | {"ratio"}


# -- offline: agents that share nothing


class OfMember:
    """The numbers that one of several members draws from a known noise."""

    def __init__(self, members: int, member: int):
        self.noise, self.members, self.member = KnownNoise(), members, member

    def normal(self, _: int, *shape: int) -> Tensor:
        return self.noise.normal(self.members, *shape)[:, self.member : self.member + 1]

    def uniform(self, _: int, *shape: int) -> Tensor:
        return self.noise.uniform(self.members, *shape)[:, self.member : self.member + 1]


def test_a_lone_member_is_cql() -> None:
    settings = {"cql_weight": 2.0, "cql_actions": 3, "initial_log_std": None}
    one, cql = tiny_agent("off2on", members=1, **settings), tiny_agent("cql", **settings)
    for part in ("policy", "critic", "critic_target"):
        getattr(one, part).load_state_dict(getattr(cql, part).state_dict())
    with torch.no_grad():
        one.log_alphas.copy_(cql.log_alpha.unsqueeze(1))
    batch = tiny_batch()
    batch.constraint.copy_(tensor([[0.5, 1.0, 2.0], [1.0, 0.0, 1.0]]))
    ours, theirs = (terms(agent.loss(batch, KnownNoise(), MAIN)) for agent in (one, cql))
    for name in MAIN:
        assert_allclose(ours[name], theirs[name], **EXACT, err_msg=name)
    for agent in (one, cql):
        agent.drop_constraint()
    ours, theirs = (terms(agent.loss(batch, KnownNoise(), MAIN)) for agent in (one, cql))
    assert_allclose(ours["critic"], theirs["critic"], **EXACT)


def test_several_members_are_as_many_agents_each_with_its_own_rows() -> None:
    members, settings = 3, {"cql_actions": 2, "cql_weight": 2.0}
    agent = tiny_agent("off2on", members=members, **settings)
    batch = batch_for(agent)
    assert batch.obs.shape[1] == members * 3
    with torch.no_grad():
        agent.log_alphas.copy_(tensor(numbers(2, members)))
    found = terms(agent.loss(batch, KnownNoise(), MAIN))
    expected = {name: np.zeros(2) for name in MAIN}
    for i in range(members):
        alone = tiny_agent("off2on", members=1, **settings)
        theirs = dict(agent.named_parameters())
        with torch.no_grad():
            for name, own in alone.named_parameters():
                wide = own.shape[1] if own.ndim > 1 else 0
                own.copy_(theirs[name][:, i * wide : (i + 1) * wide] if wide else theirs[name])
        rows = {n: t[:, 3 * i : 3 * i + 3] for n, t in batch.tensors().items()}
        noise: Any = OfMember(members, i)
        for name, term in terms(alone.loss(batch.from_tensors(rows, {}), noise, MAIN)).items():
            expected[name] += term
    for name in MAIN:
        assert_allclose(found[name], expected[name], **EXACT, err_msg=name)


def test_no_members_gradient_sees_anothers_rows() -> None:
    agent = tiny_agent("off2on", members=2, cql_actions=2)
    batch = batch_for(agent)

    def gradients() -> dict[str, Tensor]:
        agent.zero_grad()
        backward(agent.loss(batch, KnownNoise(), MAIN))
        return {n: p.grad.clone() for n, p in agent.named_parameters() if p.grad is not None}

    before = gradients()
    batch.obs[:, 3:] = 0.4 * batch.obs[:, 3:] + 0.2  # the second member's
    after = gradients()
    assert {name.split(".")[0] for name in before} == {"policy", "critic", "log_alphas"}
    for name, gradient in before.items():
        wide = gradient.shape[1] // 2
        assert_allclose(after[name][:, :wide], gradient[:, :wide], atol=1e-12, err_msg=name)
        assert not torch.equal(after[name][:, wide:], gradient[:, wide:]), name


# -- online: one policy, each member's own target


def moments(policy: Any, obs: Array) -> tuple[Array, Array]:
    """Return μ and σ of the ensemble: of the mixture of the members before the tanh."""
    mean, log_std = np.split(forward(policy.net, obs), 2, axis=-1)  # [S, N, B, A]
    std = np.exp(np.clip(log_std, -20, 2))
    variance = (mean**2 + std**2).mean(1) - mean.mean(1) ** 2
    return mean.mean(1), np.sqrt(variance)


def sampled(policy: Any, obs: Array, eps: Array) -> tuple[Array, Array]:
    """Return the ensemble's action and its log density."""
    mean, std = moments(policy, obs)
    action = np.tanh(mean + std * eps)
    log_normal = -0.5 * eps**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    return action, (log_normal - np.log(1 - action**2)).sum(-1)


def members_least(critic: Any, obs: Array, action: Array, members: int) -> list[Array]:
    """Return each member's `min_c Q_ic(s, a)`, `[S, B]`: the twins of i are 2 i and 2 i + 1."""
    q = q_values(critic, obs, action)
    return [np.minimum(q[:, 2 * i], q[:, 2 * i + 1]) for i in range(members)]


def test_it_acts_by_the_moments_of_the_members_before_the_tanh() -> None:
    agent = tiny_agent("off2on", phase="online", members=3)
    obs, noise = tiny_batch().obs, KnownNoise()
    found = agent.explore(obs, noise).detach()
    assert_allclose(found, sampled(agent.policy, obs.numpy(), noise.normals[0])[0], **EXACT)
    mean, std = moments(agent.policy, obs.numpy())
    assert_allclose(agent.act(obs, noise).detach(), np.tanh(mean), **EXACT)
    assert_allclose(agent.policy.head(obs)[1].detach().exp(), std, rtol=1e-9)


def test_each_members_twins_have_their_own_target_and_the_policy_their_mean() -> None:
    members = 3
    agent = tiny_agent("off2on", phase="online", members=members)
    batch, noise = batch_for(agent), KnownNoise()
    found = terms(agent.online_loss(batch, noise, ONLINE_GROUPS))
    b = arrays(batch.part("balanced"))
    alpha = temperature(agent)[:, None]
    a, log_prob = sampled(agent.policy, b.next_obs, noise.normals[0])
    q, expected = q_values(agent.critic, b.obs, b.action), np.zeros(2)
    least = members_least(agent.critic_target, b.next_obs, a, members)
    assert np.ptp(least, axis=0).max() > 0.1, "members differ"
    for i, own in enumerate(least):
        y = b.reward + b.discount * (own - alpha * log_prob)
        expected += td(q[:, 2 * i : 2 * i + 2], y, b.weight)
    assert_allclose(found["critic"], expected, **EXACT)
    a, log_prob = sampled(agent.policy, b.obs, noise.normals[1])
    value = np.mean(members_least(agent.critic, b.obs, a, members), axis=0)
    assert_allclose(found["policy"], (alpha * log_prob - value).mean(1), **EXACT)
    surplus = (log_prob - 2).mean(1)  # two action dimensions
    log_alpha = agent.log_alpha.detach().numpy()
    assert_allclose(found["temperature"], -log_alpha * surplus, **EXACT)


def ratio_at(agent: Any, part: Any) -> Array:
    pairs = np.concatenate([part.obs.numpy(), part.action.numpy()], axis=-1)
    found: Array = np.maximum(forward(agent.ratio.net, pairs)[:, 0, :, 0], 0)
    return found


def test_the_ratio_learns_from_rows_drawn_uniformly_of_either_store() -> None:
    agent = tiny_agent("off2on", phase="online", members=2)
    batch = batch_for(agent)
    found = terms(agent.online_loss(batch, KnownNoise(), ONLINE_GROUPS))["ratio"]
    on, off = (ratio_at(agent, batch.part(store)) for store in ("online", "offline"))
    gain = np.log(2 / (off + 1) + 1e-10).mean(1) + np.log(2 * on / (on + 1) + 1e-10).mean(1)
    assert_allclose(found, -gain, **EXACT)
    draws = agent.online_plan().draws
    assert draws == (
        Draw(("offline", "online"), prioritised=True, name="balanced"),
        Draw(("offline",), name="offline"),
        Draw(("online",), name="online"),
    )


# -- balanced replay


def test_priorities_are_roots_of_the_ratio_in_units_of_the_datasets() -> None:
    agent = tiny_agent("off2on", phase="online", members=2, ratio_temperature=3.0)
    batch = batch_for(agent)
    with torch.no_grad():
        agent.ratio.net.layers[-1].bias.copy_(tensor([0.7, 0.9]).view(2, 1, 1, 1))
        agent.greatest.copy_(tensor([0.5, 700.0]))
        batch.obs[:, batch.parts["online"]] *= -4.0  # of rows that were drawn for the ratio alone
        found = agent.reprioritise(batch)
    assert_allclose(agent.greatest[1], 700.0, err_msg="it never falls")
    rooted = {part: ratio_at(agent, batch.part(part)) ** (1 / 3) for part in batch.parts}
    expected = rooted["balanced"] / (rooted["offline"].mean(1, keepdims=True) + 1e-10)
    assert (expected > 0).any()
    expected = np.clip(expected, 1e-3, 1e3)
    assert_allclose(found[:, batch.parts["balanced"]], expected, rtol=1e-9)
    assert_allclose(agent.greatest[0], max(0.5, expected[0].max()), rtol=1e-9)
    assert found[0].max() > agent.greatest[0], "rows that go by no priority don't count"


def test_a_ratio_of_nothing_leaves_the_least_priority_and_a_huge_one_the_most() -> None:
    agent = tiny_agent("off2on", phase="online", members=2)
    batch = batch_for(agent)
    with torch.no_grad():
        for parameter in agent.ratio.parameters():
            parameter.zero_()
        agent.ratio.net.layers[0].weight[:, :, 0] = 1.0
        agent.ratio.net.layers[-1].weight.fill_(1.0)
        batch.obs[:, batch.parts["offline"]] = 1e-4
        batch.obs[:, batch.parts["balanced"]] = -1.0
        assert (agent.reprioritise(batch)[:, batch.parts["balanced"]] == 1e-3).all()
        batch.obs[:, batch.parts["balanced"]] = 1e16
        assert (agent.reprioritise(batch)[:, batch.parts["balanced"]] == 1e3).all()
    assert (agent.greatest == 1e3).all()


@pytest.mark.parametrize(("share", "warmup"), [(0.5, 20), (0.75, 40)])
def test_the_first_online_rows_make_up_the_share_of_a_batch_that_is_asked_for(
    share: float, warmup: int
) -> None:
    """M = 120 rows at 1 and W at M f / ((1 − f) W): their part of the mass is f."""
    settings: dict[str, Any] = {"initial_online_share": share, "warmup_env_steps": warmup}
    agent: Any = online_form(small_agent("off2on", (0, 1), members=2, **settings))
    dataset = dataset_store(agent)
    agent.hand_over(reader_of(agent, dataset))
    assert_allclose(agent.greatest, 120 * share / ((1 - share) * warmup))
    offline, online = stores_in_reach(agent, agent.online_plan(), dataset, capacity=100)
    assert offline is not None
    assert offline.priorities is not None
    assert online.priorities is not None
    for step in range(warmup):
        add_online(agent, online, step)
    assert (offline.priorities.priorities[:, :120] == 1).all()
    mass = online.priorities.total / (online.priorities.total + offline.priorities.total)
    assert_allclose(mass, share, rtol=1e-6)
    agent.greatest.fill_(50.0)
    add_online(agent, online, warmup)
    assert_allclose(online.priorities.priorities[:, warmup], 50.0)


@pytest.mark.parametrize("warmup", [0, 1])
def test_without_a_warm_up_the_first_online_row_alone_makes_up_the_share(warmup: int) -> None:
    agent: Any = online_form(small_agent("off2on", (0, 1), members=2, warmup_env_steps=warmup))
    agent.hand_over(reader_of(agent, dataset_store(agent)))
    assert_allclose(agent.greatest, 120.0, err_msg="as much as the 120 rows of data, so a half")


def test_updates_turn_the_balance_to_rows_that_look_like_the_online_ones() -> None:
    """Half of the dataset lies where the online rows do, and comes to be drawn more often."""
    settings: dict[str, Any] = {"ratio_learning_rate": 1e-2, "ratio_temperature": 1.0}
    agent: Any = online_form(small_agent("off2on", (0,), members=1, **settings))
    dataset = dataset_store(agent)
    alike = torch.arange(120) % 2 == 0
    dataset.rows[0, :120, 0] = torch.where(alike, 1.0, -1.0)
    learner = Learner(agent)
    agent.hand_over(reader_of(agent, dataset))
    offline, online = stores_in_reach(agent, learner.plan, dataset)
    assert offline is not None
    assert offline.priorities is not None
    for step in range(30):
        add_online(agent, online, step)
        online.rows[0, step, 0] = 1.0
    stores = stores_by_name(offline, online)
    replay = Replay(learner.plan.draws, stores, SeedStream((0,), "batch"), 64, 0.99)
    for _ in range(60):
        batch = replay.batch()
        learner.update(batch)
        replay.set_priorities(learner.reprioritised(batch))
    priorities = offline.priorities.priorities[0, :120]
    assert priorities[alike].mean() > 2 * priorities[~alike].mean()


# -- the hand-over


def test_the_agents_become_the_ensemble_and_what_follows_starts_anew() -> None:
    agent: Any = small_agent("off2on", (0, 1), members=2)
    pretrain(agent, 4)
    assert torch.equal(agent.log_alpha, torch.zeros(2)), "of the ensemble, not of a member"
    assert (agent.log_alphas != 0).all()
    assert not _same(agent.critic, agent.critic_target)
    agent.log_alpha.data.fill_(1.3)  # as an online checkpoint may have it
    online = handed_over(agent)
    assert _same(online.policy, agent.policy)
    assert _same(online.critic, agent.critic)
    assert _same(online.critic_target, agent.critic)
    assert torch.equal(online.log_alpha, torch.zeros(2)), "α is 1"
    assert online.hand_over(reader_of(online, None)) == ONLINE_GROUPS == set(online.groups())
    trained = {id(p) for group in online.groups().values() for p in _parameters(group)}
    assert id(online.log_alphas) not in trained


def test_updates_wait_for_the_warm_up_and_then_come_at_once() -> None:
    agent = small_agent("off2on", (0,), phase="online", first_updates=70, warmup_env_steps=9)
    plan = plan_of(agent)
    assert (plan.warmup_env_steps, plan.first_updates, plan.utd) == (9, 70, 1)
    offline = small_agent("off2on", (0,), members=4).offline_plan()
    assert offline.draws == (Draw(share=4.0),)


def test_more_critics_than_any_machine_holds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"members · critics <= 1,000"):
        METHODS["off2on"].Config(members=501)  # type: ignore[call-arg]


def _same(one: Any, other: Any) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def _parameters(group: Any) -> list[Any]:
    found: list[Any] = []
    for module in group.modules:
        found += [module] if isinstance(module, Tensor) else [*module.parameters()]
    return found

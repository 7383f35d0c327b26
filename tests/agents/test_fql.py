"""FQL: its three losses against numbers made by hand, its one optimiser, and how it acts."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.plans import UNION
from baq_cli.engine.updates.learner import Learner
from baq_cli.nets.critics import QEnsemble
from baq_cli.nets.flow import FlowPolicy, NoisePolicy
from baq_cli.nets.streams import SeedStream
from support.builders import (
    ALL_GROUPS,
    EXACT,
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    forward,
    handed_over,
    numbers,
    offline_replay,
    q_values,
    small_agent,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_spec,
)

STEPS = 4


def one_step(agent: Any, obs: Array, z: Array) -> Array:
    """Return μ(s, z), `[S, B, A]`."""
    return forward(agent.policy.net, np.concatenate([obs, z], axis=-1))[:, 0]


def carried(agent: Any, obs: Array, z: Array) -> Array:
    """Return where Euler steps along v lead from z, clipped at the end, `[S, B, A]`."""
    x = z
    for step in range(STEPS):
        time = np.full_like(x[..., :1], step / STEPS)
        x = x + forward(agent.flow.net, np.concatenate([obs, x, time], axis=-1))[:, 0] / STEPS
    return np.clip(x, -1, 1)


@pytest.mark.parametrize("how", ["mean", "min"])
def test_every_term_is_the_papers(how: str) -> None:
    """Noise in the order of drawing: z' of the target; x₀, t; z of the distillation."""
    agent = tiny_agent("fql", flow_steps=STEPS, alpha=3.0, critics=3, target_reduction=how)
    batch, noise = tiny_batch(), KnownNoise()
    found, b = terms(agent.loss(batch, noise, ALL_GROUPS)), arrays(batch)
    next_z, start, z = noise.normals
    next_action = np.clip(one_step(agent, b.next_obs, next_z), -1, 1)
    next_q = q_values(agent.critic_target, b.next_obs, next_action)
    y = b.reward + GAMMA * b.bootstrap * (next_q.mean(1) if how == "mean" else next_q.min(1))
    errors = (q_values(agent.critic, b.obs, b.action) - y[:, None]) ** 2
    assert_allclose(found["critic"], (b.weight[:, None] * errors).mean((1, 2)), **EXACT)

    time = noise.uniforms[0]
    at = np.concatenate([b.obs, (1 - time) * start + time * b.action, time], axis=-1)
    missed = forward(agent.flow.net, at)[:, 0] - (b.action - start)
    assert_allclose(found["flow"], (missed**2).mean((1, 2)), **EXACT)

    action = one_step(agent, b.obs, z)
    distance = ((action - carried(agent, b.obs, z)) ** 2).mean(2)
    value = q_values(agent.critic, b.obs, np.clip(action, -1, 1)).mean(1)
    assert_allclose(found["policy"], (3.0 * distance - value).mean(1), **EXACT)
    agent.config = agent.config.model_copy(update={"normalize_q_loss": True})
    value = value / np.abs(value).mean(1, keepdims=True)
    found = terms(agent.loss(batch, KnownNoise(), ALL_GROUPS))
    assert_allclose(found["policy"], (3.0 * distance - value).mean(1), **EXACT)


def linear(steps: int = STEPS, alpha: float = 2.0) -> Any:
    """Return an agent of one dimension whose networks have one layer each.

    v(s, x, t) = s − x/2 + t/4,  μ(s, z) = s/2 + 2 z,  Q_1(s, a) = s + 2 a,  Q_2(s, a) = 3 a
    """
    spec = tiny_spec((0,), obs_dim=1, action_dim=1)
    agent, init = tiny_agent("fql", spec, alpha=alpha), SeedStream((0,), "init")
    agent.flow = FlowPolicy(init, 1, 1, (), steps).double()
    agent.policy = NoisePolicy(init, 1, 1, ()).double()
    agent.critic = QEnsemble(init, 1, 1, ()).double()
    known = [[[1.0, -0.5, 0.25]], [[0.5, 2.0]], [[1.0, 2.0], [0.0, 3.0]]]
    for part, weights in zip((agent.flow, agent.policy, agent.critic), known, strict=True):
        layer = part.net.layers[0]
        layer.weight.data, layer.bias.data = tensor(weights)[None, ..., None], 0 * layer.bias.data
    return agent


def test_a_linear_field_is_followed_and_distilled_as_by_hand() -> None:
    """At s = 0.2. From z = 0.4 four steps lead to 0.486181640625, and μ is 0.9. From z = 3 they
    lead beyond 1, to where they are clipped, and μ is 6.1: unclipped in the distance; 1 in Q.
    """
    agent = linear()
    batch = SimpleNamespace(obs=tensor([[[0.2], [0.2]]]), constraint=tensor([[1.0, 1.0]]))
    noise: Any = SimpleNamespace(normal=lambda *_: tensor([[[0.4], [3.0]]]))
    loss, distance = agent.policy_loss(batch, noise)
    ends = [0.486181640625, 1.0]
    assert_allclose(distance.detach(), [[(0.9 - ends[0]) ** 2, (6.1 - 1.0) ** 2]], **EXACT)
    values = [(0.2 + 2 * 0.9 + 3 * 0.9) / 2, (0.2 + 2 * 1.0 + 3 * 1.0) / 2]
    expected = [2 * distance[0, 0].item() - values[0], 2 * distance[0, 1].item() - values[1]]
    assert_allclose(loss.detach(), [expected], **EXACT)
    loss.sum().backward()
    # dQ/da is 5/2 on average, and nothing where the action was clipped
    slope = 2 * 2 * (0.9 - ends[0]) - 2.5 + 2 * 2 * (6.1 - 1.0)
    assert_allclose(agent.policy.net.layers[0].bias.grad.item(), slope, **EXACT)
    assert agent.flow.net.layers[0].bias.grad is None, "f is a constant"
    assert agent.critic.net.layers[0].bias.grad is None


def test_three_optimisers_are_the_authors_one() -> None:
    """Updates end where one Adam over all networks and the sum of all losses does."""
    agent = small_agent("fql", (0, 1), layer_norm=True)
    other: Any = copy.deepcopy(agent)
    learner, replay = Learner(agent), offline_replay(agent)
    trained = [
        p for group in other.groups().values() for m in group.modules for p in m.parameters()
    ]
    adam, noise = torch.optim.Adam(trained, 3e-4), SeedStream((0, 1), "noise/offline")
    for _ in range(20):
        batch = replay.batch()
        learner.update(batch)
        adam.zero_grad()
        torch.stack(list(other.loss(batch, noise, ALL_GROUPS).terms.values())).sum().backward()
        adam.step()
        for copied, p in zip(
            other.critic_target.parameters(), other.critic.parameters(), strict=True
        ):
            copied.data.lerp_(p.data, 0.005)
    ours = agent.state_dict()
    for name, value in other.state_dict().items():
        assert_allclose(ours[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_exploring_and_acting_are_fresh_samples_of_the_one_step_policy() -> None:
    agent = tiny_agent("fql")
    obs = tensor(numbers(2, 5, 2))
    noise: Any = KnownNoise()
    acted = [agent.act(obs, noise), agent.act(obs, noise)]
    explored = agent.explore(obs, KnownNoise())
    assert torch.equal(acted[0], explored)
    for action, z in zip(acted, noise.normals, strict=True):
        expected = np.clip(one_step(agent, obs.numpy(), z), -1, 1)
        assert_allclose(action.detach(), expected, **EXACT)
    assert not torch.equal(*acted)


def test_the_hand_over_changes_nothing_but_where_rows_come_from() -> None:
    agent = tiny_agent("fql")
    online = handed_over(agent)
    assert_same_numbers(agent.state_dict(), online.state_dict())
    before, after = (
        terms(getattr(each, name)(tiny_batch(), KnownNoise(), ALL_GROUPS))
        for each, name in ((agent, "loss"), (online, "online_loss"))
    )
    assert_same_numbers(before, after)
    plan = online.online_plan()
    assert (plan.draws, plan.utd, plan.warmup_env_steps) == ((UNION,), 1, 0)


def assert_same_numbers(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert np.array_equal(values, other[name]), name


def test_networks_are_those_of_the_authors() -> None:
    """Four layers of 512, GELU; LayerNorm behind it in critics alone; Glorot's first weights."""
    agent: Any = small_agent("fql", (0,), hidden=(512,) * 4)
    spec = agent.spec
    nets: dict[str, tuple[Any, int]] = {
        "flow": (agent.flow.net, spec.obs_dim + spec.action_dim + 1),
        "policy": (agent.policy.net, spec.obs_dim + spec.action_dim),
        "critic": (agent.critic.net, spec.obs_dim + spec.action_dim),
    }
    for name, (net, n_in) in nets.items():
        assert net.layers[0].weight.shape[2:] == (n_in, 512)
        assert (net.activation, len(net.layers)) == ("gelu", 5)
        assert net.layer_norm == ("after" if name == "critic" else False)
        weights: Tensor = net.layers[1].weight.detach()
        assert float(weights.abs().max()) == pytest.approx((6 / 1024) ** 0.5, rel=1e-3)

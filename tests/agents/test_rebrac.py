"""ReBRAC: what leaving the data costs the target and the policy, and how that ends online."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.plans import Plan, online_and_offline
from baq_cli.errors import UsageError
from support.builders import (
    ALL_GROUPS,
    EXACT,
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    dataset_store,
    online_form,
    reader_of,
    small_agent,
    tanh_mean,
    td,
    terms,
    tiny_agent,
    tiny_batch,
)
from support.recordings import ID, own_folders
from support.runs import execute, recipe_of
from support.small_data import write_steady

BETA_1, BETA_2 = 0.75, 1.25
WEIGHTS = {"policy_penalty": BETA_1, "critic_penalty": BETA_2}


def q_after(critic: Any, obs: Array, action: Array) -> Array:
    """Return Q_i(s, a), `[S, N, B]`: affine, ReLU, LayerNorm, affine."""
    x = np.concatenate([obs, action], axis=-1)
    (first, last), (norm,) = critic.net.layers, critic.net.norms
    weight, bias, out, offset, gain, shift = (
        p.detach().numpy() for layer in (first, last, norm) for p in layer.parameters()
    )
    h = np.maximum(np.einsum("sbi,snih->snbh", x, weight) + bias, 0.0)
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    return (np.einsum("snbh,snho->snbo", h * gain + shift, out) + offset)[..., 0]


def target_action(agent: Any, b: Any, noise: KnownNoise) -> Array:
    smoothing = np.clip(agent.config.target_noise * noise.normals[0], -0.5, 0.5)
    return np.clip(tanh_mean(agent.policy_target, b.next_obs) + smoothing, -1.0, 1.0)


def found(agent: Any, batch: Any) -> tuple[dict[str, Array], KnownNoise]:
    noise = KnownNoise()
    return terms(agent.loss(batch, noise, ALL_GROUPS)), noise


def test_the_targets_penalty_stands_inside_the_discounted_bootstrap() -> None:
    agent, batch = tiny_agent("rebrac", target_noise=0.4, **WEIGHTS), tiny_batch()
    losses, noise = found(agent, batch)
    b, following = arrays(batch), batch.next_action.numpy()
    action = target_action(agent, b, noise)
    strayed = ((action - following) ** 2)[..., 0] + ((action - following) ** 2)[..., 1]
    least = q_after(agent.critic_target, b.next_obs, action).min(1)
    y = b.reward + GAMMA * b.bootstrap * (least - BETA_2 * batch.has_next.numpy() * strayed)
    assert_allclose(losses["critic"], td(q_after(agent.critic, b.obs, b.action), y, b.weight))


def fitted_target(agent: Any, **row: float) -> tuple[Array, KnownNoise, Any]:
    """Read the target `[S]` of one row off the loss, whose slope in Q_i is 2 w (Q_i − y)."""
    batch = tiny_batch(rows=1)
    batch.bootstrap.fill_(row["bootstrap"])
    batch.discount.fill_(GAMMA * row["bootstrap"])
    batch.has_next.fill_(row["has_next"])
    batch.next_action.mul_(row["has_next"])
    agent.zero_grad()
    noise = KnownNoise()
    agent.loss(batch, noise, ALL_GROUPS).terms["critic"].sum().backward()
    slope = agent.critic.net.layers[-1].bias.grad.flatten(1).numpy()
    b = arrays(batch)
    q = q_after(agent.critic, b.obs, b.action)[:, :, 0]
    return (q - slope / (2 * b.weight))[:, 0], noise, batch


def test_at_an_episodes_end_there_is_no_next_action_to_pay_for() -> None:
    agent = tiny_agent("rebrac", **WEIGHTS)
    on, noise, batch = fitted_target(agent, bootstrap=1.0, has_next=1.0)
    truncated, *_ = fitted_target(agent, bootstrap=1.0, has_next=0.0)
    terminated, *_ = fitted_target(agent, bootstrap=0.0, has_next=0.0)
    b = arrays(batch)
    action = target_action(agent, b, noise)
    value = q_after(agent.critic_target, b.next_obs, action).min(1)[:, 0]
    strayed = ((action - batch.next_action.numpy()) ** 2).sum(-1)[:, 0]
    assert strayed.min() > 0.1
    assert_allclose(terminated, b.reward[:, 0], rtol=1e-7)
    assert_allclose(truncated, b.reward[:, 0] + GAMMA * value, rtol=1e-7)
    assert_allclose(on, truncated - GAMMA * BETA_2 * strayed, rtol=1e-7)


def test_the_policy_follows_the_least_critic_and_pays_for_every_dimension() -> None:
    agent, batch = tiny_agent("rebrac", critics=3, **WEIGHTS), tiny_batch()
    weights = np.array([[1.0, 0.0, 0.5], [1.0, 2.0, 1.0]])
    batch.constraint.copy_(torch.from_numpy(weights))
    losses, _ = found(agent, batch)
    b = arrays(batch)
    action = tanh_mean(agent.policy, b.obs)
    least = q_after(agent.critic, b.obs, action).min(1)
    strayed = ((action - b.action) ** 2).sum(-1)
    expected = -least.mean(1) / np.abs(least).mean(1) + BETA_1 * (weights * strayed).mean(1)
    assert_allclose(losses["policy"], expected, **EXACT)
    assert set(terms(agent.loss(batch, KnownNoise(), frozenset({"critic"})))) == {"critic"}


@pytest.mark.parametrize(("share", "left"), [(0.0, 1.0), (0.3, 0.7), (0.5, 0.5), (1.0, 0.5)])
def test_online_the_critics_pay_nothing_and_the_policy_ever_less(share: float, left: float) -> None:
    offline = tiny_agent("rebrac", **WEIGHTS)
    agent = online_form(offline)
    batch = tiny_batch()
    agent.clock.write(0, 0, share)
    losses, noise = found(agent, batch)
    b = arrays(batch)
    least = q_after(agent.critic_target, b.next_obs, target_action(agent, b, noise)).min(1)
    y = b.reward + GAMMA * b.bootstrap * least
    assert_allclose(losses["critic"], td(q_after(agent.critic, b.obs, b.action), y, b.weight))
    action = tanh_mean(agent.policy, b.obs)
    least = q_after(agent.critic, b.obs, action).min(1)
    strayed = ((action - b.action) ** 2).sum(-1).mean(1)
    value = -least.mean(1) / np.abs(least).mean(1)
    assert_allclose(losses["policy"], value + left * BETA_1 * strayed, rtol=1e-6)
    offline.clock.write(0, 0, share)
    assert_allclose(offline.penalty_left(), [BETA_1, BETA_1], rtol=1e-6)


def test_the_hand_over_keeps_all_and_halves_batches_between_the_stores() -> None:
    agent = small_agent("rebrac", (0, 1))
    assert agent.offline_plan() == Plan(next_action=True)
    online = online_form(agent)
    assert online.hand_over(reader_of(agent, dataset_store(agent))) == frozenset()
    plan = online.online_plan()
    assert (plan.draws, plan.next_action) == (online_and_offline(0.5), False)
    assert (plan.utd, plan.warmup_env_steps) == (1, 0)
    obs = torch.randn(2, 5, 3)
    assert torch.equal(online.explore(obs, KnownNoise()), online.policy.mode(obs))


def test_without_its_penalties_it_is_td3_on_the_least_critic() -> None:
    agent, batch = tiny_agent("rebrac", **WEIGHTS), tiny_batch()
    agent.drop_constraint()
    none, _ = found(tiny_agent("rebrac", policy_penalty=0.0, critic_penalty=0.0), batch)
    for name, term in found(agent, batch)[0].items():
        assert_allclose(term, none[name], **EXACT)


def test_networks_begin_with_small_last_layers() -> None:
    agent: Any = small_agent("rebrac", (0, 1))
    for net, bound in ((agent.critic.net, 3e-3), (agent.policy.net, 1e-3)):
        assert (net.layers[0].bias == np.float32(0.1)).all()
        assert net.layers[-1].weight.abs().max() <= np.float32(bound)
    assert (len(agent.critic.net.norms), len(agent.policy.net.norms)) == (2, 0)


def test_a_fine_tuning_is_not_resumed_with_another_budget_and_a_pre_training_is(
    tmp_path: Path,
) -> None:
    def run(phase: str, resume: bool = False, **budget: int) -> None:
        watched = {"episodes": 1, "background": False}
        settings = {"dataset": ID, "env": "Steady-v0", "evaluation": watched, **budget}
        source = tmp_path / "offline" if phase == "online" else None
        execute(recipe_of("rebrac", {}, **settings), tmp_path / phase, resume, source)

    with own_folders():
        write_steady(ID)
        run("offline", gradient_steps=4)
        run("offline", resume=True, gradient_steps=6)
        run("online", env_steps=4)
        with pytest.raises(UsageError, match="'rebrac' changes over the whole phase"):
            run("online", resume=True, env_steps=6)

"""SAC-N: the least of N critics in target and policy, and a hand-over that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.plans import UNION
from support.builders import (
    ALL_GROUPS,
    EXACT,
    GAMMA,
    KnownNoise,
    arrays,
    dataset_store,
    numbers,
    online_form,
    q_values,
    reader_of,
    small_agent,
    squashed_sample,
    td,
    temperature,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_config,
)


@pytest.mark.parametrize("loss", ["loss", "online_loss"])
def test_the_least_of_all_critics_is_the_target_and_what_the_policy_follows(loss: str) -> None:
    agent, noise = tiny_agent("sac_n", critics=4), KnownNoise()
    batch = tiny_batch()
    found = terms(getattr(agent, loss)(batch, noise, ALL_GROUPS))
    b, alpha = arrays(batch), temperature(agent)[:, None]
    following, log_next = squashed_sample(agent.policy, b.next_obs, noise.normals[0])
    target_q = q_values(agent.critic_target, b.next_obs, following)
    assert np.unique(target_q.argmin(1)).size > 1, "not one critic is the least everywhere"
    y = b.reward + GAMMA * b.bootstrap * (target_q.min(1) - alpha * log_next)
    assert_allclose(found["critic"], td(q_values(agent.critic, b.obs, b.action), y, b.weight))
    action, log_prob = squashed_sample(agent.policy, b.obs, noise.normals[1])
    least = q_values(agent.critic, b.obs, action).min(1)
    assert_allclose(found["policy"], (alpha * log_prob - least).mean(1), **EXACT)
    expected = -np.log(alpha[:, 0]) * (log_prob - 2.0).mean(1)
    assert_allclose(found["temperature"], expected, **EXACT)


@pytest.mark.parametrize(("bias", "std"), [(-9.0, np.exp(-5.0)), (9.0, np.exp(2.0))])
def test_log_std_ends_at_minus_five_and_two(bias: float, std: float) -> None:
    policy = tiny_agent("sac_n").policy
    with torch.no_grad():
        policy.net.layers[-1].bias[..., 2:] = bias
    log_std = policy.head(tensor(numbers(2, 5, 2)))[1].detach()
    assert_allclose(np.exp(log_std), np.full((2, 5, 2), std), **EXACT)


@pytest.mark.parametrize("algo", ["sac_n", "edac", "so2", "ro2o"])
def test_a_log_std_that_no_update_would_move_is_refused(algo: str) -> None:
    """Beyond its bounds it has no slope, and would stay there."""
    with pytest.raises(ValueError, match="initial_log_std"):
        tiny_config(algo, initial_log_std=-5.1)
    policy: Any = small_agent(algo, (0,), initial_log_std=-4.5).policy
    policy.head(torch.ones(1, 3, 3))[1].sum().backward()
    assert (policy.net.layers[-1].bias.grad[..., 2:] != 0).all()


def test_networks_begin_with_small_last_layers() -> None:
    agent: Any = small_agent("sac_n", (0, 1), critics=3)
    for net, bound in ((agent.critic.net, 3e-3), (agent.policy.net, 1e-3)):
        assert (net.layers[0].bias == np.float32(0.1)).all()
        assert net.layers[-1].weight.abs().max() <= np.float32(bound)


def test_the_hand_over_changes_nothing_but_where_batches_are_drawn() -> None:
    agent = small_agent("sac_n", (0, 1), critics=3)
    online = online_form(agent)
    fresh = online.hand_over(reader_of(agent, dataset_store(agent)))
    assert fresh == frozenset()
    for name, value in agent.state_dict().items():
        assert torch.equal(online.state_dict()[name], value), name
    plan = online.online_plan()
    assert (plan.draws, plan.utd, plan.warmup_env_steps) == ((UNION,), 1, 0)

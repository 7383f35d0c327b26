"""SO2: targets that are each critic's own, at perturbed actions, and batches of a tenth online."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.plans import UNION, Draw
from baq_cli.engine.checkpoints.continuing import continuing
from baq_cli.engine.experience.stores import stores_by_name
from baq_cli.engine.updates.learner import Learner
from support.builders import (
    GAMMA,
    Array,
    KnownNoise,
    add_online,
    arrays,
    dataset_store,
    finetune,
    handed_over,
    plan_of,
    pretrain,
    q_values,
    replay_of,
    small_agent,
    squashed_sample,
    stores_in_reach,
    td,
    terms,
    tiny_agent,
    tiny_batch,
)
from support.recordings import ID, own_folders
from support.runs import execute, last_tensors, recipe_of
from support.small_data import write_steady

EXACT = {"rtol": 1e-7, "atol": 1e-9}
ALL = frozenset({"critic", "policy", "temperature"})


def agent_of(**settings: Any) -> Any:
    """Return an online agent whose α is 0.3 and whose targets differ from its critics."""
    settings = {"critics": 3, "online_temperature": 0.3} | settings
    agent = tiny_agent("so2", phase="online", **settings)
    with torch.no_grad():
        agent.critic_target.net.layers[-1].bias.add_(0.4)
    return agent


def target_values(agent: Any, b: Any, noise: KnownNoise) -> tuple[Array, Array]:
    """Return Q̄_i(s', ã') `[S, N, B]`, and log π(a'|s') of the action before it is perturbed."""
    action, log_prob = squashed_sample(agent.policy, b.next_obs, noise.normals[0])
    config, drawn = agent.config, noise.normals[1]
    eps = np.clip(config.target_noise * drawn, -config.target_noise_clip, config.target_noise_clip)
    perturbed = np.clip(action + eps, -1, 1)
    return q_values(agent.critic_target, b.next_obs, perturbed), log_prob


@pytest.mark.parametrize("target_noise", [0.0, 0.3, 2.0])
def test_each_critic_bootstraps_from_itself_at_a_perturbed_action(target_noise: float) -> None:
    agent, batch, noise = agent_of(target_noise=target_noise), tiny_batch(), KnownNoise()
    found = terms(agent.online_loss(batch, noise, ALL))
    b = arrays(batch)
    next_q, log_next = target_values(agent, b, noise)
    q, expected = q_values(agent.critic, b.obs, b.action), np.zeros(2)
    for i in range(3):  # one critic after the other, as if each were alone
        y = b.reward + GAMMA * b.bootstrap * (next_q[:, i] - 0.3 * log_next)
        expected += (b.weight * (q[:, i] - y) ** 2).mean(1) / 3
    assert_allclose(found["critic"], expected, **EXACT)


def test_the_least_of_all_critics_is_the_target_where_it_is_asked_for() -> None:
    agent, batch, noise = agent_of(online_target="min"), tiny_batch(), KnownNoise()
    found = terms(agent.online_loss(batch, noise, ALL))
    b = arrays(batch)
    next_q, log_next = target_values(agent, b, noise)
    y = b.reward + GAMMA * b.bootstrap * (next_q.min(1) - 0.3 * log_next)
    assert_allclose(found["critic"], td(q_values(agent.critic, b.obs, b.action), y, b.weight) / 3)
    independent = agent_of().online_loss(batch, KnownNoise(), ALL)
    assert (np.abs(found["critic"] - terms(independent)["critic"]) > 1e-3).all()


def test_no_perturbation_leaves_its_clip_and_no_action_its_bounds() -> None:
    agent, noise = agent_of(target_noise=50.0, target_noise_clip=0.25), KnownNoise()
    action = tiny_batch().action
    moved = agent.perturbed(action, noise)
    assert_allclose((moved - action).abs().clamp(max=0.25), (moved - action).abs(), **EXACT)
    assert moved.abs().max() == 1.0
    inside = action.abs() < 0.75
    assert inside.any()
    assert_allclose((moved - action).abs()[inside], 0.25, **EXACT)


def test_the_policy_follows_the_least_critic_at_a_constant_temperature() -> None:
    agent, batch, noise = agent_of(), tiny_batch(), KnownNoise()
    found = terms(agent.online_loss(batch, noise, ALL))
    b = arrays(batch)
    action, log_prob = squashed_sample(agent.policy, b.obs, noise.normals[2])
    least = q_values(agent.critic, b.obs, action).min(1)
    assert_allclose(found["policy"], (0.3 * log_prob - least).mean(1), **EXACT)
    assert set(found) == {"critic", "policy"}


def test_offline_it_is_edac_to_the_last_bit() -> None:
    settings = {"critics": 3, "diversity_weight": 1.7}
    ours, theirs = (
        terms(tiny_agent(algo, **settings).loss(tiny_batch(), KnownNoise(), ALL))
        for algo in ("so2", "edac")
    )
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name] == value).all(), name


# -- what the hand-over changes


def test_the_temperature_jumps_to_its_constant_and_stays() -> None:
    agent: Any = small_agent("so2", (0, 1), utd=2, policy_every=2)
    before, _ = pretrain(agent, 5)
    assert (agent.alpha != 0.2).all()
    learner, _ = finetune(agent, before, 6)
    so2: Any = learner.agent
    assert_allclose(so2.alpha.numpy(), 0.2, rtol=1e-6)
    assert "temperature" not in so2.groups()
    scratch: Any = small_agent("so2", (0, 1), phase="online")
    assert_allclose(scratch.alpha.numpy(), 0.2, rtol=1e-6)


def test_a_temperature_that_goes_on_is_learned_when_the_policy_is() -> None:
    agent: Any = small_agent("so2", (0, 1), online_temperature=None, policy_every=3)
    before, _ = pretrain(agent, 5)
    online = handed_over(agent)
    assert torch.equal(online.log_alpha, agent.log_alpha)
    learner, _ = finetune(agent, before, 4)  # updates 6 to 9: two of them are the policy's
    so2: Any = learner.agent
    assert not torch.equal(so2.log_alpha, agent.log_alpha)


def test_optimisers_start_fresh_at_a_rate_of_their_own() -> None:
    agent: Any = small_agent("so2", (0, 1))
    before, _ = pretrain(agent, 4)
    learner, _ = finetune(agent, before, 0)
    assert not any(value.any() for value in learner.optimizer_state().values())
    assert before.learning_rates() == dict.fromkeys(("critic", "policy", "temperature"), 0.0003)
    assert learner.learning_rates() == dict.fromkeys(("critic", "policy"), 0.001)
    kept: Any = small_agent("so2", (0, 1), phase="online", online_learning_rate=None)
    assert Learner(kept).learning_rates() == dict.fromkeys(("critic", "policy"), 0.0003)


def test_the_policy_steps_once_in_ten_updates_online_and_always_offline() -> None:
    for phase, steps in (("offline", range(1, 31)), ("online", (10, 20, 30))):
        learner = Learner(small_agent("so2", (0,), phase=phase))  # type: ignore[arg-type]
        taken = []
        for step in range(1, 31):
            if "policy" in learner.active():
                taken.append(step)
            assert "critic" in learner.active()
            learner.count()
        assert taken == list(steps)
    assert (learner.plan.utd, learner.plan.warmup_env_steps) == (10, 5_000)


# -- batches


def test_a_tenth_of_a_batch_is_online_rows_and_the_rest_a_queue_as_large_as_the_dataset() -> None:
    plan = small_agent("so2", (0,), phase="online").online_plan()
    queue = Draw(("offline", "online"), 9.0, newest="offline")
    assert plan.draws == (Draw(("online",)), queue)
    for share, draws in ((1.0, (Draw(("online",)),)), (None, (UNION,))):
        agent = small_agent("so2", (0,), phase="online", online_share=share)
        assert agent.online_plan().draws == draws


@pytest.mark.parametrize("capacity", [200, 40])
@pytest.mark.parametrize("written", [3, 50, 120, 200])
def test_online_rows_push_the_oldest_of_the_dataset_out(written: int, capacity: int) -> None:
    """Of D rows of the dataset and n online ones, the queue is the last D laid end to end.

    Those that the online store has no room for are no more, and bring none of the dataset back.
    """
    agent = small_agent("so2", (0, 1), phase="online", batch_size=64, capacity=capacity)
    offline, online = stores_in_reach(agent, plan_of(agent), dataset_store(agent), capacity=200)
    assert offline is not None
    for step in range(written):
        add_online(agent, online, step)
    replay = replay_of(agent, plan_of(agent), stores_by_name(offline, online))
    kept, seen = max(0, offline.size - written), np.zeros(2)
    left = {tuple(row) for row in offline.rows[0, offline.size - kept :, :3].tolist()}
    for _ in range(4):
        batch = replay.batch()
        assert batch.source.shape == (2, 640)
        assert bool((batch.source[:, :64] == 1).all())
        seen += (batch.source[:, 64:] == 1).float().mean(1).numpy() / 4
        old = batch.obs[batch.source == 0].tolist()
        assert {tuple(row) for row in old} <= left
    new = min(written, capacity, offline.size)
    share = new / (new + kept)
    assert_allclose(seen, share, atol=5 * (share * (1 - share) / 2304) ** 0.5)


# -- whose checkpoints it continues


@pytest.fixture(scope="module")
def edac(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with own_folders():
        write_steady(ID)
        out = tmp_path_factory.mktemp("edac")
        execute(recipe("edac"), out)
        yield out


def recipe(algo: str, **settings: Any) -> Any:
    run = {"dataset": ID, "env": "Steady-v0", "gradient_steps": 5, "env_steps": 6}
    return recipe_of(algo, {"critics": 3} | settings, **run)


def test_a_checkpoint_of_edac_goes_on_with_its_networks_and_targets(
    edac: Path, tmp_path: Path
) -> None:
    assert "so2" in continuing("edac")
    execute(recipe("so2", warmup_env_steps=6), tmp_path, source=edac)  # no update
    before, after = last_tensors(edac), last_tensors(tmp_path)
    names = {n for n in before if n.startswith(("agent/critic", "agent/policy"))}
    assert {n.split("/")[1].split(".")[0] for n in names} == {"critic", "critic_target", "policy"}
    for name in names:
        assert torch.equal(before[name], after[name]), name

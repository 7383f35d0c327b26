"""PEX: which of two policies acts, what its update re-draws, and what the hand-over makes new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.plans import Draw
from baq_cli.engine.checkpoints.continuing import continuing
from baq_cli.engine.updates.learner import Learner
from baq_cli.errors import UsageError
from baq_cli.nets.streams import SeedStream
from support.builders import (
    EXACT,
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    forward,
    gaussian_log_prob,
    gaussian_sample,
    handed_over,
    numbers,
    pretrain,
    q_values,
    small_agent,
    tanh_mean,
    td,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
)
from support.recordings import ID, own_folders
from support.runs import execute, last_tensors, recipe_of
from support.small_data import write_steady

ALL = frozenset({"value", "critic", "policy"})


def softmax_choice(agent: Any, obs: Array, old: Array, new: Array) -> Array:
    """Return the probability of the new action, `[S, B]`: softmax(α min_j Q_j) of two."""
    logits = np.stack([q_values(agent.critic, obs, a).min(1) for a in (old, new)], axis=-1)
    weights = np.exp(agent.config.inverse_temperature * logits)
    share: Array = weights[..., 1] / weights.sum(-1)
    return share


def choice(agent: Any, obs: Array, noise: KnownNoise, epsilon: float) -> tuple[Array, Array]:
    """Return what the composite does, `[S, B, A]`, and where the new policy acts, `[S, B]`."""
    old, mean = (tanh_mean(policy, obs) for policy in (agent.prior, agent.policy))
    chance, of_action, of_choice = np.moveaxis(noise.uniforms[-1], -1, 0)
    sample = gaussian_sample(agent.policy, obs, noise.normals[-1])
    new = np.where((of_action < epsilon)[..., None], sample, mean)
    share = softmax_choice(agent, obs, old, new)
    takes_new = np.where(of_choice < epsilon, chance < share, share > 0.5)
    return np.where(takes_new[..., None], new, old), takes_new


def agent_of(**settings: Any) -> Any:
    """Return an online agent whose policies differ, with a wide second one."""
    agent = tiny_agent("pex", phase="online", **settings)
    with torch.no_grad():
        agent.policy.net.layers[-1].bias.add_(0.4)
    return agent


# -- acting


def test_it_explores_by_a_sample_of_the_new_policy_or_the_mode_of_the_old() -> None:
    agent, obs, noise = agent_of(inverse_temperature=3.0), tiny_batch(rows=9).obs, KnownNoise()
    found = agent.explore(obs, noise).detach()
    expected, takes_new = choice(agent, obs.numpy(), noise, epsilon=1.0)
    assert_allclose(found, expected, **EXACT)
    assert takes_new.any()
    assert not takes_new.all()


def test_the_better_by_the_online_twins_is_the_likelier_by_their_least_value() -> None:
    agent, obs = agent_of(inverse_temperature=10.0), tiny_batch(rows=5).obs
    old, new = tensor(np.full((2, 5, 2), -0.3)), tensor(np.full((2, 5, 2), 0.8))
    share = agent.new_share(obs, old, new).detach()
    assert_allclose(share, softmax_choice(agent, obs.numpy(), old.numpy(), new.numpy()), **EXACT)
    with torch.no_grad():
        agent.critic_target.net.layers[-1].bias.add_(5.0)
    assert_allclose(agent.new_share(obs, old, new).detach(), share, rtol=0)


def test_choices_are_as_frequent_as_they_are_probable() -> None:
    agent: Any = small_agent("pex", (0, 1), phase="online", inverse_temperature=1.0)
    obs, noise = tensor(numbers(2, 1, 3)).float(), SeedStream((0, 1), "acting")
    with torch.no_grad():
        agent.policy.log_std.fill_(-5.0)
        many = agent.explore(obs.expand(-1, 4_000, -1), noise)
        old, new = agent.prior.mode(obs), agent.policy.mode(obs)
        share = agent.new_share(obs, old, new)[:, 0]
        takes_new = (many - new).norm(dim=-1) < (many - old).norm(dim=-1)
    assert_allclose(takes_new.float().mean(1), share, atol=0.03)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5, 1.0])
def test_an_evaluation_draws_action_and_choice_now_and_then_each_on_its_own(epsilon: float) -> None:
    agent = agent_of(inverse_temperature=3.0, evaluation_epsilon=epsilon)
    obs, noise = tiny_batch(rows=40).obs, KnownNoise()
    found = agent.act(obs, noise).detach()
    assert_allclose(found, choice(agent, obs.numpy(), noise, epsilon)[0], **EXACT)
    if epsilon == 0.0:  # the better of two modes
        modes = [tanh_mean(policy, obs.numpy()) for policy in (agent.prior, agent.policy)]
        least = [q_values(agent.critic, obs.numpy(), mode).min(1) for mode in modes]
        better = (least[1] > least[0])[..., None]
        assert_allclose(found, np.where(better, modes[1], modes[0]), **EXACT)


def test_what_acts_is_among_the_acting_parts() -> None:
    agent, obs = agent_of(), tiny_batch().obs
    action = agent.explore(obs, KnownNoise())
    acting = {n for n in agent.state_dict() if n.startswith(agent.acting_parts())}
    with torch.no_grad():
        for name, tensor_ in agent.state_dict().items():
            if name not in acting:
                tensor_.add_(1.0)
    assert torch.equal(agent.explore(obs, KnownNoise()), action)
    assert {name.split(".")[0] for name in acting} == {"policy", "prior", "critic"}


# -- learning


def test_the_update_regresses_on_actions_that_the_composite_draws_anew() -> None:
    agent = agent_of(beta=2.0, inverse_temperature=3.0)
    batch, noise = tiny_batch(), KnownNoise()
    found = terms(agent.online_loss(batch, noise, ALL))
    b = arrays(batch)
    action, takes_new = choice(agent, b.obs, noise, epsilon=1.0)
    assert takes_new.any()
    assert not takes_new.all()
    v = forward(agent.value.net, b.obs)[:, 0, :, 0]
    advantage = q_values(agent.critic_target, b.obs, action).min(1) - v
    weight = np.minimum(np.exp(2.0 * advantage), 100.0)
    expected = -(weight * gaussian_log_prob(agent.policy, b.obs, action)).mean(1)
    assert_allclose(found["policy"], expected, **EXACT)


@pytest.mark.parametrize("phase", ["offline", "online"])
def test_values_learn_as_iqls_do_from_the_data_and_the_critics_loss_is_their_mean(
    phase: Any,
) -> None:
    agent, batch = tiny_agent("pex", phase=phase, expectile=0.8), tiny_batch()
    loss = agent.loss if phase == "offline" else agent.online_loss
    found, b = terms(loss(batch, KnownNoise(), ALL)), arrays(batch)
    v = forward(agent.value.net, b.obs)[:, 0, :, 0]
    advantage = q_values(agent.critic_target, b.obs, b.action).min(1) - v
    side = np.where(advantage < 0, 0.2, 0.8)
    assert_allclose(found["value"], (side * advantage**2).mean(1), rtol=1e-6)
    y = b.reward + GAMMA * b.bootstrap * forward(agent.value.net, b.next_obs)[:, 0, :, 0]
    expected = td(q_values(agent.critic, b.obs, b.action), y, b.weight) / 2
    assert_allclose(found["critic"], expected, **EXACT)


def test_offline_it_is_iql() -> None:
    settings = {"expectile": 0.8, "beta": 2.0}
    one, other = tiny_agent("pex", **settings), tiny_agent("iql", **settings)
    batch = tiny_batch()
    ours, theirs = (terms(agent.loss(batch, KnownNoise(), ALL)) for agent in (one, other))
    assert_allclose(ours["policy"], theirs["policy"], **EXACT)
    assert_allclose(ours["value"], theirs["value"], **EXACT)
    assert_allclose(ours["critic"], theirs["critic"] / 2, **EXACT)
    assert_allclose(
        one.act(batch.obs, KnownNoise()).detach(), other.policy.mode(batch.obs).detach()
    )
    explored = (agent.explore(batch.obs, KnownNoise()).detach() for agent in (one, other))
    assert_allclose(*explored)


# -- the hand-over


def test_the_old_policy_is_kept_and_the_new_one_begins_anew() -> None:
    agent: Any = small_agent("pex", (0, 1))
    pretrain(agent, 4)
    online = handed_over(agent)
    for name, value in agent.state_dict().items():
        where = name.replace("policy.", "prior.")
        assert torch.equal(online.state_dict()[where], value), name
    assert not torch.equal(online.policy.net.layers[0].weight, online.prior.net.layers[0].weight)
    owned = {
        id(p) for group in online.groups().values() for m in group.modules for p in m.parameters()
    }
    assert not owned & {id(p) for p in online.prior.parameters()}
    assert not any(p.requires_grad for p in online.prior.parameters())
    assert online.hand_over(None) == ALL, "all optimisers start fresh"
    plan = online.online_plan()
    assert plan.draws == (Draw(("online",), 0.5), Draw(("offline",), 0.5))


def test_it_waits_for_five_thousand_rows_and_no_rate_falls_online() -> None:
    learner = Learner(small_agent("pex", (0,), phase="online"))
    assert learner.plan.warmup_env_steps == 5_000
    rates = learner.learning_rates()
    learner.gradient_steps = 10**6
    assert learner.learning_rates() == rates


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Pre-trained checkpoints, by method, and the online run of PEX from its own."""
    with own_folders():
        write_steady(ID)
        found = {algo: tmp_path_factory.mktemp(algo) for algo in ("pex", "iql", "awac")}
        for algo, out in found.items():
            execute(recipe(algo), out)
        found["online"] = tmp_path_factory.mktemp("online")
        execute(recipe("pex"), found["online"], source=found["pex"])
        yield found


def recipe(algo: str) -> Any:
    online = {"warmup_env_steps": 2} if algo == "pex" else {}
    run = {"dataset": ID, "env": "Steady-v0", "gradient_steps": 5, "env_steps": 6}
    return recipe_of(algo, {"normalize_observations": False, "reward_scale": 1.0} | online, **run)


@pytest.mark.parametrize("source", ["pex", "iql"])
def test_a_checkpoint_of_iql_is_expanded_as_one_of_its_own(
    source: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    execute(recipe("pex"), tmp_path, source=runs[source])
    before, after = last_tensors(runs[source]), last_tensors(tmp_path)
    priors = {n: t for n, t in after.items() if n.startswith("agent/prior.")}
    assert priors
    for name, value in priors.items():
        assert torch.equal(before[name.replace("prior.", "policy.")], value)


def test_a_run_that_was_expanded_goes_on_with_both_policies(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    execute(recipe("pex"), tmp_path, source=runs["online"])
    before, after = last_tensors(runs["online"]), last_tensors(tmp_path)
    for name in (n for n in before if n.startswith("agent/prior.")):
        assert torch.equal(before[name], after[name]), name


def test_what_it_can_t_expand_is_refused_with_what_it_can(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"'baq pretrain --algo pex' first.*\(or one of iql\)"):
        execute(recipe("pex"), tmp_path, source=runs["awac"])
    assert "pex" in continuing("iql")
    assert "pex" not in continuing("awac")

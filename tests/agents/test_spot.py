"""SPOT: its constraint and λ by hand, its stage, and what the hand-over changes and leaves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.plans import Draw, Plan
from baq_cli.agents.spot import SPOT
from baq_cli.engine.updates.learner import Learner
from baq_cli.recipes.schema import Recipe
from support.builders import (
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    finetune,
    forward,
    handed_over,
    online_form,
    pretrain,
    q_values,
    small_agent,
    tanh_mean,
    td,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_spec,
)
from support.recordings import ID, own_folders
from support.runs import execute, last_tensors, recipe_of
from support.small_data import write_steady

EXACT = {"rtol": 1e-6, "atol": 1e-9}
"""λ is float32, as the clock on the device is."""
MAIN, VAE = frozenset({"critic", "policy"}), frozenset({"vae"})
PLAIN = {"policy_dropout": 0.0}


def negative_elbo(vae: Any, obs: Array, action: Array, eps: Array, beta: float) -> Array:
    """Return `mean_j (â_j − a_j)² + β mean_l KL_l` of a conditional model, `[S, B]`, one z."""
    encoded = forward(vae.encoder, np.concatenate([obs, action], axis=-1))[:, 0]
    mean, log_std = np.split(encoded, 2, axis=-1)
    log_std = np.clip(log_std, -4, 15)
    z = mean + np.exp(log_std) * eps
    made = np.tanh(forward(vae.decoder, np.concatenate([obs, z], axis=-1))[:, 0])
    kl = -0.5 * (1 + 2 * log_std - mean**2 - np.exp(log_std) ** 2)
    return ((made - action) ** 2).mean(-1) + beta * kl.mean(-1)


def test_the_stage_fits_actions_given_states() -> None:
    agent, batch, noise = tiny_agent("spot", vae_beta=0.7), tiny_batch(), KnownNoise()
    found = terms(agent.loss(batch, noise, VAE))
    b, (eps,) = arrays(batch), noise.normals
    assert eps.shape == (2, 3, 1, 4), "one z of 2|A| numbers"
    bound = negative_elbo(agent.vae, b.obs, b.action, eps[:, :, 0], 0.7)
    assert_allclose(found["vae"], bound.mean(1), rtol=1e-9)
    assert set(found) == {"vae"}
    assert tiny_agent("spot", tiny_spec(obs_dim=5, action_dim=3)).vae.latent_dim == 6


def losses(agent: Any, env_steps: float) -> tuple[dict[str, Array], SimpleNamespace, KnownNoise]:
    batch, noise = tiny_batch(), KnownNoise()
    agent.clock.write(1_000, env_steps, 0.1)
    loss = agent.online_loss if agent.phase == "online" else agent.loss
    return terms(loss(batch, noise, MAIN)), arrays(batch), noise


def value_and_strangeness(agent: Any, b: SimpleNamespace, eps: Array) -> tuple[Array, Array]:
    """Return −mean Q_1 / mean|Q_1| and mean ℓ(s, π(s)), `[S]` each."""
    action = tanh_mean(agent.policy, b.obs)
    first = q_values(agent.critic, b.obs, action)[:, 0]
    strange = negative_elbo(agent.vae, b.obs, action, eps[:, :, 0], agent.config.vae_beta)
    return -first.mean(1) / np.abs(first).mean(1), strange.mean(1)


def test_the_critics_follow_the_smoothed_target_policy_and_are_summed() -> None:
    agent = tiny_agent("spot", target_noise=0.4, **PLAIN)
    found, b, noise = losses(agent, 0)
    eps = np.clip(0.4 * noise.normals[0], -0.5, 0.5)
    action = np.clip(tanh_mean(agent.policy_target, b.next_obs) + eps, -1, 1)
    y = b.reward + GAMMA * b.bootstrap * q_values(agent.critic_target, b.next_obs, action).min(1)
    assert_allclose(found["critic"], td(q_values(agent.critic, b.obs, b.action), y, b.weight))


def test_the_policy_climbs_the_first_critic_and_pays_for_strange_actions() -> None:
    agent = tiny_agent("spot", support_weight=0.3, **PLAIN)
    found, b, noise = losses(agent, 0)
    value, strange = value_and_strangeness(agent, b, noise.normals[1])
    assert_allclose(found["policy"], value + 0.3 * strange, **EXACT)


@pytest.mark.parametrize(
    ("env_steps", "share"), [(0, 1.0), (1, 0.999), (250, 0.75), (700, 0.3), (701, 0.3), (5e6, 0.3)]
)
def test_the_constraint_falls_in_a_line_to_its_floor_with_online_steps(
    env_steps: float, share: float
) -> None:
    settings = {"support_weight": 2.0, "support_weight_end": 0.3, "support_weight_env_steps": 1_000}
    agent = tiny_agent("spot", phase="online", **settings)
    assert float(agent.weight()) == pytest.approx(2.0, abs=1e-6), "before the first step"
    found, b, noise = losses(agent, env_steps)
    value, strange = value_and_strangeness(agent, b, noise.normals[1])
    assert_allclose(found["policy"], value + 2.0 * share * strange, **EXACT)
    assert_allclose(agent.weight(), 2.0 * share, rtol=1e-6)


def test_the_clock_that_it_reads_is_of_the_online_phase() -> None:
    agent: Any = small_agent("spot", (0, 1), support_weight_env_steps=10, support_weight=1.0)
    before, _ = pretrain(agent, 6)
    assert float(agent.weight()) == 1.0
    learner = Learner(handed_over(agent))
    learner.gradient_steps, learner.env_steps = before.gradient_steps, 3
    learner.prepare()
    spot: Any = learner.agent
    assert float(spot.weight()) == pytest.approx(0.7)


# -- dropout


def test_units_of_both_policies_are_dropped_offline() -> None:
    agent, batch, noise = tiny_agent("spot", policy_dropout=0.4), tiny_batch(), KnownNoise()
    found = terms(agent.loss(batch, noise, MAIN))
    b, (of_target, of_policy) = arrays(batch), noise.uniforms

    def dropped(policy: Any, obs: Array, drawn: Array) -> Array:
        first, last = (
            (layer.weight.detach().numpy()[:, 0], layer.bias.detach().numpy()[:, 0])
            for layer in policy.net.layers
        )
        h = np.maximum(obs @ first[0] + first[1], 0) * (drawn[:, 0] >= 0.4) / 0.6
        return np.tanh(h @ last[0] + last[1])

    assert 0 < (of_policy < 0.4).sum() < of_policy.size
    first = q_values(agent.critic, b.obs, action := dropped(agent.policy, b.obs, of_policy))[:, 0]
    bound = negative_elbo(agent.vae, b.obs, action, noise.normals[1][:, :, 0], 0.5)
    expected = -first.mean(1) / np.abs(first).mean(1) + 0.1 * bound.mean(1)
    assert_allclose(found["policy"], expected, **EXACT)
    eps = np.clip(0.2 * noise.normals[0], -0.5, 0.5)
    after = np.clip(dropped(agent.policy_target, b.next_obs, of_target) + eps, -1, 1)
    y = b.reward + GAMMA * b.bootstrap * q_values(agent.critic_target, b.next_obs, after).min(1)
    assert_allclose(found["critic"], td(q_values(agent.critic, b.obs, b.action), y, b.weight))


def test_no_unit_is_dropped_online_nor_where_it_acts() -> None:
    agent = tiny_agent("spot", phase="online", policy_dropout=0.4)
    _, b, noise = losses(agent, 0)
    assert not noise.uniforms
    offline, quiet = tiny_agent("spot", policy_dropout=0.4), KnownNoise()
    assert_allclose(
        offline.act(tiny_batch().obs, quiet).detach(), tanh_mean(offline.policy, b.obs), **EXACT
    )
    assert not quiet.uniforms


# -- networks, plans and the hand-over


def test_last_layers_begin_within_their_bounds_and_others_as_ever() -> None:
    bounds = {"policy_last_bound": 1e-3, "critic_last_bound": 3e-3}
    agent: Any = small_agent("spot", (0, 1), **bounds)
    for net, bound in ((agent.policy.net, 1e-3), (agent.critic.net, 3e-3)):
        *hidden, last = net.layers
        for parameter in last.parameters():
            assert 0.5 * bound < parameter.abs().max() <= bound
        assert all(layer.weight.abs().max() > 0.1 for layer in hidden)
    plain: Any = small_agent("spot", (0, 1))
    assert plain.policy.net.layers[-1].weight.abs().max() > 0.1
    rebracs: Any = small_agent("spot", (0, 1), initialization="small_last")
    assert rebracs.policy.net.layers[-1].weight.abs().max() <= 1e-3
    assert rebracs.critic.net.layers[-1].weight.abs().max() <= 3e-3


def test_the_vae_is_trained_before_the_phase_and_never_again() -> None:
    agent: Any = small_agent("spot", (0, 1), vae_steps=9, online_discount=0.995)
    plan: Plan = agent.offline_plan()
    (stage,) = plan.first
    assert (stage.groups, stage.steps, stage.draws, plan.train) == (VAE, 9, (Draw(),), MAIN)
    online = online_form(agent)
    assert set(online.groups()) == MAIN
    after = online.online_plan()
    assert (plan.discount, after.discount, after.first) == (None, 0.995, ())
    assert after.draws == (Draw(("offline", "online")),)


@pytest.mark.parametrize("online_discount", [None, 0.9])
def test_the_hand_over_changes_the_discount_and_the_vae_stays(online_discount: Any) -> None:
    agent: Any = small_agent("spot", (0, 1), discount=0.97, online_discount=online_discount)
    before, _ = pretrain(agent, 4)
    learner, batches = finetune(agent, before, 6)
    lasting = batches[-1].discount[batches[-1].bootstrap > 0]
    assert torch.allclose(lasting, torch.tensor(online_discount or 0.97))
    spot: Any = learner.agent
    for was, now in zip(agent.vae.parameters(), spot.vae.parameters(), strict=True):
        assert torch.equal(was, now)
    assert not torch.equal(agent.policy.net.layers[0].weight, spot.policy.net.layers[0].weight)


def test_a_run_learns_online_by_the_discount_of_that_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In updates and in returns beside transitions: as one whose discount is that all along."""
    monkeypatch.setattr(SPOT, "data_columns", ("mc_return",))
    kept = lambda self, batch: {"copy": batch.columns["mc_return"]}  # noqa: E731
    monkeypatch.setattr(SPOT, "annotate", kept)

    def recipe(discount: float, online: float | None) -> Recipe:
        method = {"discount": discount, "online_discount": online, "warmup_env_steps": 2}
        run = {"dataset": ID, "env": "Steady-v0", "gradient_steps": 3, "env_steps": 9}
        return recipe_of("spot", method | {"vae_steps": 2}, **run)

    with own_folders():
        write_steady(ID)
        execute(recipe(0.97, None), tmp_path / "source")
        ends = []
        for discount, online in ((0.97, 0.8), (0.8, None), (0.97, None)):
            out = tmp_path / f"{discount}-{online}"
            execute(recipe(discount, online), out, source=tmp_path / "source")
            ends.append(last_tensors(out))
    other, wanted, before = ends
    assert all(torch.equal(other[name], wanted[name]) for name in wanted)
    changed = {name for name in wanted if not torch.equal(before[name], wanted[name])}
    assert {"agent/critic.net.layers.0.weight", "rows-00000/rows"} <= changed


@pytest.mark.parametrize("reset", [True, False])
def test_optimisers_start_fresh_at_the_hand_over_or_go_on(reset: bool) -> None:
    agent = small_agent("spot", (0, 1), reset_optimizers=reset)
    before, _ = pretrain(agent, 4)
    learner, _ = finetune(agent, before, 0)
    for name, value in learner.optimizer_state().items():
        went_on = torch.equal(value, before.optimizer_state()[name])
        assert not value.any() if reset else went_on, name

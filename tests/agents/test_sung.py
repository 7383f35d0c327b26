"""SUNG: its uncertainty, gate and choice of actions by hand, its draws, and what it hands over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.interface import OFFLINE, ONLINE
from baq_cli.agents.plans import UNION, Draw
from baq_cli.agents.registry import METHODS
from baq_cli.engine.updates.learner import Learner
from baq_cli.nets.streams import SeedStream
from support.builders import (
    EXACT,
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    dataset_store,
    finetune,
    forward,
    handed_over,
    numbers,
    online_form,
    pretrain,
    q_many,
    q_values,
    reader_of,
    small_agent,
    squashed_sample,
    tanh_mean,
    td,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_config,
)
from support.chance import is_fair
from support.numbered import filled_online, numbered_store, replay_of

BASES = METHODS["sung"].Config.bases
VAE = frozenset({"vae"})
CQL: dict[str, Any] = {"base": "cql", "cql": {"cql_actions": 2, "cql_weight": 3.0}}


def sung(phase: Any = "online", **settings: Any) -> Any:
    """Return a tiny agent whose model has known units of states."""
    agent = tiny_agent("sung", phase=phase, **settings)
    agent.uncertainty.state_mean.copy_(tensor(numbers(2, 1, 2, phase=0.4, size=0.3)))
    agent.uncertainty.state_std.copy_(tensor(1.2 + numbers(2, 1, 2, phase=0.9, size=0.5)))
    return agent


def by_hand(agent: Any, obs: Array, action: Array, eps: Array) -> Array:
    """Return `mean_j (x̂_j − x_j)² + β mean_l KL_l` of x = (s, a), `[S, B]`, for z of eps."""
    model = agent.uncertainty
    mean, std = model.state_mean.numpy(), model.state_std.numpy()
    x = np.concatenate([(obs - mean) / std, action], axis=-1)
    mean, log_std = np.split(forward(model.vae.encoder, x)[:, 0], 2, axis=-1)
    log_std = np.clip(log_std, -4, 15)
    made = forward(model.vae.decoder, mean + np.exp(log_std) * eps)[:, 0]
    free = 2 if agent.config.vae_states == "linear" else 0
    made = np.concatenate([made[..., :free], np.tanh(made[..., free:])], axis=-1)
    kl = -0.5 * (1 + 2 * log_std - mean**2 - np.exp(2 * log_std))
    return ((made - x) ** 2).mean(-1) + agent.config.vae_beta * kl.mean(-1)


# -- the uncertainty


@pytest.mark.parametrize("states", ["linear", "tanh"])
def test_uncertainty_is_what_the_model_of_pairs_misses(states: str) -> None:
    agent, batch, noise = sung(vae_states=states, vae_beta=0.7), tiny_batch(), KnownNoise()
    found = agent.uncertainty(batch.obs, batch.action, noise).detach()
    b, (eps,) = arrays(batch), noise.normals
    assert eps.shape == (2, 3, 1, 4), "one z of 2|A| numbers"
    assert_allclose(found, by_hand(agent, b.obs, b.action, eps[:, :, 0]), **EXACT)


def test_the_stage_before_the_phase_fits_it_to_pairs_in_the_datasets_units() -> None:
    agent: Any = small_agent("sung", (0, 1), vae_steps=9)
    plan, store = agent.offline_plan(), dataset_store(agent)
    (stage,) = plan.first
    assert (stage.groups, stage.steps, stage.draws) == (VAE, 9, (Draw(),))
    assert plan.train == {"critic", "policy"}
    agent.begin_stage(stage.name, reader_of(agent, store))
    obs = store.rows[0, : store.size, :3].double().numpy()
    assert_allclose(agent.uncertainty.state_mean[1, 0], obs.mean(0), atol=1e-6)
    assert_allclose(agent.uncertainty.state_std[1, 0], obs.std(0) + 1e-3, rtol=1e-6)
    tiny, batch, noise = sung("offline"), tiny_batch(), KnownNoise()
    found, b = terms(tiny.loss(batch, noise, VAE)), arrays(batch)
    expected = by_hand(tiny, b.obs, b.action, noise.normals[0][:, :, 0]).mean(1)
    assert_allclose(found["vae"], expected, **EXACT)
    assert set(found) == VAE


@pytest.mark.parametrize("base", BASES)
def test_offline_the_base_is_itself(base: str) -> None:
    agent, batch = sung("offline", base=base), tiny_batch()
    active = frozenset(agent.base.groups())
    found = terms(agent.loss(batch, KnownNoise(), active))
    alone = terms(agent.base.loss(batch, KnownNoise(), active))
    assert {name: term.tolist() for name, term in found.items()} == {
        name: term.tolist() for name, term in alone.items()
    }


# -- the gate


@pytest.mark.parametrize(
    ("rows", "settings", "kept"),
    [(256, {}, 12), (256, {"base": "cql"}, 25), (3, {}, 1), (10, {"constrained_share": 0.39}, 3)],
)
def test_so_many_rows_are_constrained_and_lambda_is_what_they_weigh_together(
    rows: int, settings: dict[str, Any], kept: int
) -> None:
    agent, batch = sung(**settings), tiny_batch(rows=rows)
    weight = agent.held(batch, KnownNoise()).numpy()
    share = agent.config.constrained_share
    times = weight * kept / (share * rows)
    assert_allclose(times, times.round(), atol=1e-9)
    assert_allclose(times.sum(1), kept)
    assert_allclose(weight.mean(1), share)
    if agent.config.gate == "most_uncertain":
        assert set(times.round().ravel()) == {0, 1}


@pytest.mark.parametrize("weight", [None, 0.7])
def test_td3_bc_clones_where_its_own_action_is_most_uncertain(weight: float | None) -> None:
    agent = sung(constrained_share=0.5, constraint_weight=weight)
    batch, noise = tiny_batch(rows=7), KnownNoise()
    found = terms(agent.online_loss(batch, noise, frozenset(agent.groups())))
    b, action = arrays(batch), tanh_mean(agent.policy, batch.obs.numpy())
    first = q_values(agent.critic, b.obs, action)[:, 0]
    uncertain = by_hand(agent, b.obs, action, noise.normals[0][:, :, 0])
    most = np.argsort(uncertain, axis=1)[:, -3:]  # ⌊0.5 · 7⌋
    gap = np.take_along_axis(((action - b.action) ** 2).mean(-1), most, axis=1).mean(1)
    value = -first.mean(1) / np.abs(first).mean(1)
    strength = 0.5 if weight is None else weight
    assert_allclose(found["policy"], value + strength / 2.5 * gap, rtol=1e-6)
    model = by_hand(agent, b.obs, b.action, noise.normals[2][:, :, 0])
    assert_allclose(found["vae"], model.mean(1), **EXACT)


def test_a_step_without_the_policy_asks_for_no_gate() -> None:
    agent, batch, noise = sung(), tiny_batch(), KnownNoise()
    found = terms(agent.online_loss(batch, noise, frozenset({"critic", "vae"})))
    alone = terms(agent.base.loss(batch, KnownNoise(), frozenset({"critic"})))
    assert found["critic"].tolist() == alone["critic"].tolist()
    assert len(noise.normals) == 2, "the target's and the VAE's"


def drawn_rows(agent: Any, b: SimpleNamespace, noise: KnownNoise) -> list[list[int]]:
    """Return the rows of each seed that its uniform numbers draw in proportion to exp U."""
    uncertain = by_hand(agent, b.obs, b.action, noise.normals[0][:, :, 0])
    odds = np.exp(uncertain) / np.exp(uncertain).sum(1, keepdims=True)
    return [
        [int(np.searchsorted(np.cumsum(p), 1 - u)) for u in drawn]
        for p, drawn in zip(odds, noise.uniforms[0], strict=True)
    ]


@pytest.mark.parametrize("target_gap", [None, 0.4])
def test_cql_is_conservative_on_drawn_rows(target_gap: float | None) -> None:
    settings = {**CQL["cql"], "cql_target_gap": target_gap}
    agent = sung(base="cql", cql=settings, constrained_share=0.6)
    batch, noise = tiny_batch(rows=5), KnownNoise()
    found, b = terms(agent.online_loss(batch, noise, frozenset(agent.groups()))), arrays(batch)
    base, (_, _, eps_here, eps_after, _, _) = agent.base, noise.normals
    next_action, _ = squashed_sample(base.policy, b.next_obs, noise.normals[1])
    y = b.reward + GAMMA * b.bootstrap * q_values(base.critic_target, b.next_obs, next_action).min(
        1
    )
    here, log_here = squashed_sample(base.policy, b.obs, eps_here)
    after, log_after = squashed_sample(base.policy, b.next_obs, eps_after)
    values = [
        q_many(base.critic, b.obs, 2 * noise.uniforms[1] - 1) + 2 * np.log(2),
        q_many(base.critic, b.obs, here) - log_here[:, None],
        q_many(base.critic, b.obs, after) - log_after[:, None],
    ]
    q = q_values(base.critic, b.obs, b.action)
    gaps = np.logaddexp.reduce(np.concatenate(values, axis=3), axis=3) - q
    rows = drawn_rows(agent, b, noise)
    assert [len(each) for each in rows] == [3, 3]
    gap = np.array([gaps[seed][:, each].mean(1).sum() for seed, each in enumerate(rows)])
    strength: Any = 3.0 * 0.6
    if target_gap is not None:
        gap = gap - 2 * target_gap
        strength = strength * np.exp(base.log_dual.detach().numpy())
        assert_allclose(found["dual"], -strength * gap / 2, **EXACT)
    assert_allclose(found["critic"], td(q, y, b.weight) + strength * gap, **EXACT)


def test_rows_are_drawn_again_and_again_in_proportion_to_exp_u() -> None:
    agent, batch, noise = sung(**CQL, constrained_share=0.8), tiny_batch(rows=5), KnownNoise()
    stream, b = SeedStream((0, 1), "gate"), arrays(batch)

    class SameZ:
        """The same z's each time, and fresh draws of rows."""

        def normal(self, *shape: int) -> Any:
            return tensor(numbers(2, *shape, phase=0.5, size=1.5))

        uniform = stream.uniform

    same: Any = SameZ()
    times = sum(agent.held(batch, same) for _ in range(400)).numpy() / (0.8 * 5 / 4)
    eps = noise.normal(5, 1, 4).numpy()
    odds = np.exp(by_hand(agent, b.obs, b.action, eps[:, :, 0]))
    assert all(is_fair(*each) for each in zip(times, odds, strict=True))
    assert (times > 0).all()


@pytest.mark.parametrize("base", BASES)
def test_with_every_row_and_lambda_one_it_is_its_base(base: str) -> None:
    """Bit for bit, in its losses: the model learns beside it."""
    agent, batch = sung(base=base, constrained_share=1.0), tiny_batch()
    active = frozenset(agent.base.groups())
    found = terms(agent.online_loss(batch, KnownNoise(), active | VAE))
    alone = terms(agent.base.online_loss(batch, KnownNoise(), active))
    assert set(found) == set(alone) | VAE
    for name, term in alone.items():
        assert found[name].tolist() == term.tolist(), name


# -- the choice of actions


def chosen(first: Array, then: Array, most: int, uniform: Array) -> Array:
    """Return, `[S, E]`, which candidate is drawn of those that are the largest by `first`."""
    found = np.empty(first.shape[:2], dtype=int)
    for at in np.ndindex(found.shape):
        kept = np.argsort(first[at])[::-1][:most]
        odds = np.exp(then[at][kept] - then[at][kept].max())
        reached = np.cumsum(odds / odds.sum())
        found[at] = kept[np.searchsorted(reached, 1 - uniform[at][0])]
    return found


@pytest.mark.parametrize("actor_q", ["first", "mean"])
def test_td3_bc_keeps_the_best_and_draws_by_uncertainty(actor_q: str) -> None:
    settings: dict[str, Any] = {"td3_bc": {"exploration_noise": 0.8, "actor_q": actor_q}}
    agent = sung(candidate_actions=6, shortlist_actions=3, **settings)
    obs, noise = tiny_batch().obs, KnownNoise()
    found = agent.explore(obs, noise).detach()
    eps, z = noise.normals
    actions = tanh_mean(agent.policy, obs.numpy())[:, :, None] + 0.8 * eps
    assert (np.abs(actions) > 1).any(), "they are judged before they are clipped"
    values = q_many(agent.critic, obs.numpy(), actions)
    value = values[:, 0] if actor_q == "first" else values.mean(1)
    z = z[:, :, 0].reshape(2, 3, 6, 4)
    uncertain = np.stack(
        [by_hand(agent, obs.numpy(), actions[:, :, k], z[:, :, k]) for k in range(6)], axis=2
    )
    one = chosen(value, uncertain, 3, noise.uniforms[0])
    expected = np.take_along_axis(actions, one[:, :, None, None], axis=2)[:, :, 0]
    assert_allclose(found, np.clip(expected, -1, 1), **EXACT)


def test_cql_keeps_the_most_uncertain_and_draws_by_value() -> None:
    agent = sung(base="cql", candidate_actions=6, shortlist_actions=3)
    obs, noise = tiny_batch().obs, KnownNoise()
    found = agent.explore(obs, noise).detach()
    eps, z = noise.normals
    actions, _ = squashed_sample(agent.policy, obs.numpy(), eps)
    value = q_many(agent.critic, obs.numpy(), actions).min(1)
    z = z[:, :, 0].reshape(2, 3, 6, 4)
    uncertain = np.stack(
        [by_hand(agent, obs.numpy(), actions[:, :, k], z[:, :, k]) for k in range(6)], axis=2
    )
    one = chosen(uncertain, value, 3, noise.uniforms[0])
    expected = np.take_along_axis(actions, one[:, :, None, None], axis=2)[:, :, 0]
    assert_allclose(found, expected, **EXACT)


def test_it_evaluates_with_its_bases_mode_and_explores_so_before_the_switch() -> None:
    for phase in ("offline", "online"):
        agent, obs = sung(phase), tiny_batch().obs
        assert_allclose(agent.act(obs, KnownNoise()).detach(), tanh_mean(agent.policy, obs.numpy()))
    offline, noise = sung("offline"), KnownNoise()
    found = offline.explore(obs, noise).detach()
    about = tanh_mean(offline.policy, obs.numpy())
    assert_allclose(found, np.clip(about + 0.1 * noise.normals[0], -1, 1), **EXACT)


# -- the draws


def test_most_of_a_batch_is_of_the_newest_online_rows() -> None:
    agent: Any = small_agent("sung", (0, 1), batch_size=256, newest_rows=20_000)
    newest, union = online_form(agent).online_plan().draws
    how: dict[str, Any] = {"newest": 20_000, "least": 230, "otherwise": "offline"}
    assert newest == Draw(("online",), 0.9, **how)
    assert (union.stores, union.share) == (("offline", "online"), pytest.approx(0.1))


def test_without_a_share_batches_are_drawn_from_all_there_is() -> None:
    agent: Any = small_agent("sung", (0, 1), online_share=None)
    assert online_form(agent).online_plan().draws == (UNION,)
    whole: Any = small_agent("sung", (0, 1), online_share=1.0)
    assert [draw.stores for draw in online_form(whole).online_plan().draws] == [("online",)]


@pytest.mark.parametrize("written", [0, 8, 9, 20])
def test_until_the_newest_rows_fill_their_part_the_dataset_does(written: int) -> None:
    agent: Any = small_agent("sung", (0, 1), batch_size=10, newest_rows=12)
    draws = online_form(agent).online_plan().draws
    replay = replay_of(draws, numbered_store(50), filled_online(written, 40), batch_size=10)
    most = torch.cat([replay.batch().reward[:, :9] for _ in range(60)], dim=1)
    source = {ONLINE if value >= 1000 else OFFLINE for value in most.flatten().tolist()}
    assert source == {ONLINE if written >= 9 else OFFLINE}
    if written >= 9:
        first = 1000 + max(0, written - 12)
        assert {int(v) for v in most.flatten()} == set(range(first, 1000 + written))


def test_online_rows_take_their_part_where_fewer_are_kept_than_it_has() -> None:
    agent: Any = small_agent("sung", (0, 1), batch_size=10, capacity=5)
    draws = online_form(agent).online_plan().draws
    for written, store in ((4, OFFLINE), (5, ONLINE), (9, ONLINE)):
        replay = replay_of(draws, numbered_store(50), filled_online(written, 5), batch_size=10)
        assert (replay.batch().source[:, :9] == store).all()


# -- the hand-over


@pytest.mark.parametrize("base", BASES)
def test_targets_are_what_they_follow_and_optimisers_start_as_the_authors(base: str) -> None:
    agent: Any = small_agent("sung", (0, 1), base=base)
    before, _ = pretrain(agent, 6)
    online = online_form(agent)
    if base == "cql":
        assert not np.allclose(agent.base.log_alpha.detach(), 0)
    fresh = online.hand_over(reader_of(online, None))  # type: ignore[arg-type]
    assert fresh == (frozenset(online.groups()) if base == "cql" else VAE)
    for target in online.targets():
        assert target.network.state_dict().keys() == target.copy.state_dict().keys()
        for name, value in target.network.state_dict().items():
            assert torch.equal(value, target.copy.state_dict()[name]), name
    if base == "cql":
        assert online.base.log_alpha.tolist() == [0, 0]  # type: ignore[union-attr]
    learner, _ = finetune(agent, before, 0)
    kept = [name for name, value in learner.optimizer_state().items() if value.any()]
    assert bool(kept) == (base == "td3_bc")


def test_the_model_learns_on_online_and_its_units_stay() -> None:
    agent: Any = small_agent("sung", (0, 1))
    pretrain(agent, 2)
    agent.uncertainty.state_mean.fill_(0.3)
    learner, _ = finetune(agent, None, 4)
    online: Any = learner.agent
    was, now = (list(each.uncertainty.vae.parameters()) for each in (agent, online))
    assert all(not torch.equal(a, b) for a, b in zip(was, now, strict=True))
    assert bool((online.uncertainty.state_mean == 0.3).all())
    assert Learner(handed_over(agent)).active() >= VAE


# -- settings


def test_defaults_are_the_authors_with_each_base() -> None:
    td3, cql = tiny_config("sung"), tiny_config("sung", base="cql")
    with_td3: dict[str, Any] = {
        "normalize_observations": True,
        "policy_learning_rate": 3e-4,
        "constrained_share": 0.05,
        "gate": "most_uncertain",
        "shortlist_by": "value",
        "shortlist_actions": 10,
        "reset_optimizers": False,
    }
    with_cql: dict[str, Any] = {
        "normalize_observations": False,
        "policy_learning_rate": 1e-4,
        "constrained_share": 0.1,
        "gate": "drawn",
        "shortlist_by": "uncertainty",
        "shortlist_actions": 20,
        "reset_optimizers": True,
    }
    for config, expected in ((td3, with_td3), (cql, with_cql)):
        assert {key: getattr(config, key) for key in expected} == expected
    base: Any = cql.base_config()  # type: ignore[attr-defined]
    assert (base.cql_weight, base.policy_learning_rate, base.hidden) == (5.0, 1e-4, (3,))


def test_what_is_said_counts_more_than_the_bases_defaults_and_reads_back() -> None:
    config: Any = tiny_config("sung", base="cql", constrained_share=0.3, policy_learning_rate=0.01)
    assert (config.constrained_share, config.policy_learning_rate) == (0.3, 0.01)
    assert type(config).model_validate(config.model_dump(mode="json")) == config

"""BAQ: its base bit for bit with the switches off, and BAQ.md's formulas with them on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.adapted import ADAPTED
from baq_cli.agents.interface import Batch
from baq_cli.agents.parts.soft import SoftActorCritic
from baq_cli.agents.plans import Draw
from baq_cli.agents.registry import method_configs
from baq_cli.errors import UsageError
from baq_cli.recipes.load import resolve
from support.builders import (
    ALL_GROUPS,
    EXACT,
    GAMMA,
    Array,
    KnownNoise,
    arrays,
    backward,
    dataset_store,
    every_column,
    fill,
    finetune,
    gaussian_log_prob,
    handed_over,
    next_value,
    pretrain,
    q_values,
    small_agent,
    squashed_mode,
    stores_in_reach,
    tanh_mean,
    td,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
)

BASES = sorted(ADAPTED)
SOFT = [name for name, base in ADAPTED.items() if issubclass(base, SoftActorCritic)]
REGRESSED = ("awac", "iql")
OFF: dict[str, Any] = {"weight": False, "priority": "off", "align": False, "relax": False}
OF_BASE: dict[str, dict[str, Any]] = {base: {} for base in BASES} | {
    "td3_bc": {"actor_q": "mean", "targets_move": "every_step"},
    "cql": {"cql_weight": 5.0, "initial_log_std": None},
}
"""What BAQ adapts, where its base alone has another default."""
SPREAD = np.array([[0.55], [0.8]])  # σ_ref of each seed
DISTANCE = np.array([[0.2, 0.4, 0.1], [0.3, 0.6, 0.5]])

# -- the switches


def shared_settings(online_share: float | None) -> dict[str, Any]:
    return {
        "critics": 4,
        "layer_norm": True,
        "target_reduction": "min_of_two",
        "normalize_observations": True,
        "warmup_env_steps": 0,
        "online_share": online_share,
        "utd": 2,
        "discount": 0.97,
        "tau": 0.02,
        "learning_rate": 1e-3,
        "policy_learning_rate": 5e-4,
        "reward_scale": 1.0,
        "initialization": "uniform",
        "policy_initialization": None,
        "last_layer_gain": None,
    }


def trained(algo: str, online_share: float | None = 0.5, **settings: Any) -> dict[str, Tensor]:
    """Pre-train and fine-tune; return the (base) method's tensors, its moments and its noise."""
    agent = small_agent(algo, (0, 1), **shared_settings(online_share), **settings)
    before, _ = pretrain(agent, 20)
    learner, _ = finetune(agent, before, 30)
    online: Any = learner.agent
    found = online.base.state_dict() if algo == "baq" else online.state_dict()
    state = {k: v for k, v in learner.state().items() if not k.startswith("optimizer.behavior")}
    return dict(found) | state


@pytest.mark.parametrize("online_share", [0.5, None])
@pytest.mark.parametrize("base", BASES)
def test_with_every_switch_off_baq_is_its_base_bit_for_bit(
    base: str, online_share: float | None
) -> None:
    plain = trained(base, online_share, **OF_BASE[base])
    ours = trained("baq", online_share, base=base, **OFF)
    assert set(ours) == set(plain)
    for name, value in plain.items():
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize(
    ("base", "settings"),
    [
        ("td3_bc", {"actor_q": "first", "targets_move": "with_policy"}),
        ("cql", {"cql_weight": 10.0, "initial_log_std": -1.0, "cql_target_gap": 0.5}),
    ],
)
def test_baq_can_be_told_to_adapt_its_base_as_the_authors_have_it(
    base: str, settings: dict[str, Any]
) -> None:
    plain = trained(base, **settings)
    ours = trained("baq", base=base, **{base: settings}, **OFF)
    assert set(ours) == set(plain)
    for name, value in plain.items():
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("switch", [{"weight": True}, {"priority": "rising"}, {"align": True}])
def test_each_switch_alone_changes_what_the_base_learns(base: str, switch: dict[str, Any]) -> None:
    settings: dict[str, Any] = OFF | {"base": base, "constraint": "kept"}
    plain = trained("baq", **settings)
    ours = trained("baq", **(settings | switch))
    assert any(not torch.equal(ours[name], value) for name, value in plain.items())


def test_base_settings_reach_the_base_from_the_section_that_decides_them() -> None:
    rates = {"learning_rate": 1e-3, "policy_learning_rate": 2e-3}
    agent = tiny_agent("baq", critics=7, discount=0.5, td3_bc={"alpha": 5.0}, **rates)
    config = agent.base.config
    assert (config.critics, config.discount, config.alpha) == (7, 0.5, 5.0)
    assert agent.groups()["critic"].learning_rate == 1e-3
    assert agent.groups()["policy"].learning_rate == 2e-3


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"align": True}, True),
        ({"align": True, "constraint": "auto"}, False),
        ({"align": False, "constraint": "auto"}, True),
        ({"align": False, "constraint": "dropped"}, False),
    ],
)
def test_the_bases_own_constraint_stays_unless_it_is_said_to_go(
    settings: dict[str, Any], kept: bool
) -> None:
    td3_bc = tiny_agent("baq", base="td3_bc", td3_bc={"alpha": 2.5}, **settings)
    before = td3_bc.base.bc_weight.clone()
    weight = handed_over(td3_bc).base.bc_weight
    assert torch.allclose(weight, before if kept else torch.zeros(2).double())
    cql = tiny_agent("baq", base="cql", cql={"cql_weight": 5.0}, **settings)
    resumed = tiny_agent("baq", base="cql", phase="online", cql={"cql_weight": 5.0}, **settings)
    for agent in (handed_over(cql), resumed):
        assert agent.base.cql_weight.tolist() == [5.0 if kept else 0.0] * 2
        assert agent.base.penalised == kept


@pytest.mark.parametrize("share", [0.25, 0.5, None])
@pytest.mark.parametrize("priority", ["rising", "off"])
def test_the_plan_draws_the_online_share_and_priorities_act_inside_each_store(
    share: float | None, priority: str
) -> None:
    agent = tiny_agent("baq", online_share=share, priority=priority, warmup_env_steps=7)
    plan, by = agent.online_plan(), priority != "off"
    expected = (
        (Draw(("offline", "online"), 1.0, by),)
        if share is None
        else (Draw(("online",), share, by), Draw(("offline",), 1 - share, by))
    )
    assert plan.draws == expected
    assert plan.warmup_env_steps == 7


def test_a_base_that_reads_the_clock_reads_that_of_the_run() -> None:
    agent = tiny_agent("baq", base="rebrac", phase="online", **OFF)
    agent.clock.write(10, 5, 0.25)
    assert agent.reads_clock == {"share"}
    assert_allclose(agent.base.penalty_left(), 0.01 * 0.75, rtol=1e-6)


def test_rlpds_updates_an_environment_step_leave_its_pretraining_alone() -> None:
    """Its policy steps once an environment step, of which pre-training has none."""
    offline = tiny_agent("baq", base="rlpd", phase="offline", utd=4)
    online = tiny_agent("baq", base="rlpd", phase="online", utd=4)
    assert offline.every.get("policy", 1) == 1
    assert online.every == {"policy": 4, "temperature": 4}


def test_dropping_a_bases_constraint_leaves_its_value_terms() -> None:
    """ReBRAC's penalty and EDAC's diversity go as TD3+BC's cloning and CQL's gap do."""
    dropped: dict[str, Any] = {"phase": "online", "constraint": "dropped"}
    rebrac = tiny_agent("baq", base="rebrac", **dropped).base
    assert rebrac.policy_penalty.tolist() == rebrac.critic_penalty.tolist() == [0.0, 0.0]
    edac = tiny_agent("baq", base="edac", **dropped).base
    assert edac.diversity_weight.tolist() == [0.0, 0.0]


def test_another_base_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError) as refused:
        resolve([{"algo": "baq", "baq": {"base": "bc"}}], method_configs())
    assert all(f"'{base}'" in str(refused.value) for base in [*BASES, "bc"])


# -- the formulas


def a_baq(confidence: Any = (0.25, 0.5), **settings: Any) -> Any:
    """Return an agent with κ, d_ref and σ_ref set."""
    fixed = {"distance_limit": None, "critics": 3, "target_reduction": "min"}
    one_action = {"cal_ql": {"max_target_backup": False}}
    agent = tiny_agent("baq", phase="online", **(fixed | one_action | settings))
    agent.confidence.copy_(tensor(confidence))
    agent.distance_reference.copy_(tensor([0.4, 0.05]))
    agent.uncertainty_reference.copy_(tensor(SPREAD[:, 0]))
    if agent.config.base in REGRESSED:
        with torch.no_grad():
            agent.policy.log_std.copy_(tensor([[[-0.5, 0.1]], [[0.3, -1.0]]]))
    return agent


def test_the_distance_is_the_mean_squared_gap_to_the_behaviours_mean_action() -> None:
    agent, batch = a_baq(), tiny_batch()
    b = arrays(batch)
    expected = ((tanh_mean(agent.behavior.kept, b.obs) - b.action) ** 2).mean(-1)
    assert_allclose(agent.distance(batch.obs, batch.action).detach(), expected, **EXACT)


def test_the_weight_falls_with_distance_and_rises_to_one_with_confidence() -> None:
    agent = a_baq(confidence=(0.25, 1.0), k_q=3.0)
    found = agent.td_weight(tensor(DISTANCE))
    assert_allclose(found[0], np.exp(-3.0 * 0.75 * DISTANCE[0]), **EXACT)
    assert_allclose(found[1], [1.0, 1.0, 1.0], **EXACT)


def test_distances_are_scaled_down_to_the_limit_and_never_up() -> None:
    agent = a_baq(confidence=(0.0, 0.0), distance_limit=0.1, k_q=2.0, k_p=4.0)
    scaled = DISTANCE * np.array([[0.1 / 0.4], [1.0]])  # d_ref is .4 for one seed, .05 for other
    distance = tensor(DISTANCE)
    assert_allclose(agent.scaled(distance), scaled, **EXACT)
    assert_allclose(agent.td_weight(distance), np.exp(-2 * scaled), **EXACT)
    assert_allclose(agent.priority(distance), 1 - np.exp(-4 * scaled) + 0.05, **EXACT)
    unlimited = a_baq(distance_limit=None)
    assert torch.equal(unlimited.scaled(distance), distance)


def test_a_median_distance_of_zero_leaves_distances_as_they_are() -> None:
    agent = a_baq(distance_limit=0.1)
    agent.distance_reference.zero_()
    assert torch.equal(agent.scaled(tensor(DISTANCE)), tensor(DISTANCE))


@given(st.lists(st.floats(0, 4), min_size=2, max_size=6), st.floats(0, 20), st.floats(1e-3, 1))
def test_priorities_are_monotone_and_bounded_and_never_zero(
    distances: list[float], k_p: float, floor: float
) -> None:
    d = np.sort(distances)[None].repeat(2, 0)
    rising = a_baq(priority="rising", k_p=k_p, priority_floor=floor).priority(tensor(d)).numpy()
    falling = a_baq(priority="falling", k_p=k_p, priority_floor=floor).priority(tensor(d)).numpy()
    assert_allclose(rising, 1 - np.exp(-k_p * d) + floor, rtol=1e-9, atol=1e-9)
    assert_allclose(falling, np.exp(-k_p * d) + floor, rtol=1e-9, atol=1e-9)
    assert (np.diff(rising) >= 0).all()
    assert (np.diff(falling) <= 0).all()
    for found in (rising, falling):
        assert found.min() >= floor * (1 - 1e-9)
        assert found.max() <= 1 + floor + 1e-9


def test_uncertainty_is_the_critics_spread_over_its_reference_clipped_to_one() -> None:
    agent = a_baq()
    q = np.array([[[0.0, 0.0], [0.1, 3.0], [0.2, 6.0]], [[1.0, 0.0], [1.0, 0.3], [1.0, 0.0]]])
    expected = [[0.1 / 0.55, 1.0], [0.0, np.sqrt(0.03) / 0.8]]
    assert_allclose(agent.uncertainty(tensor(q)), expected, **EXACT)
    assert not agent.uncertainty(tensor(q).requires_grad_()).requires_grad


def test_transitions_enter_a_store_with_their_distance_and_priority() -> None:
    agent = small_agent("baq", (0, 1))
    offline, _ = stores_in_reach(agent, agent.online_plan(), dataset_store(agent))
    assert offline is not None
    assert offline.priorities is not None
    index = torch.arange(120).expand(2, 120)
    batch = offline.layout.batch(offline.gather(index), torch.zeros(2, 120), 0.99)
    mean = tanh_mean(agent.behavior.kept, batch.obs.numpy())
    distance = ((mean - batch.action.numpy()) ** 2).mean(-1)
    assert_allclose(batch.columns["behavior_distance"], distance, rtol=1e-4, atol=1e-6)
    priority = 1 - np.exp(-3 * distance * 0.1) + 0.05  # d_ref is 1 before pre-training ends
    leaves = offline.priorities.priorities[:, :120]
    assert_allclose(leaves, priority, rtol=1e-4, atol=1e-6)


# -- the online loss


def online_batch(online: Any = None) -> Batch:
    batch = tiny_batch(**(every_column() | {"behavior_distance": DISTANCE}))
    return batch if online is None else replace(batch, source=tensor(online))


def online_terms(agent: Any, batch: Batch) -> tuple[dict[str, Array], KnownNoise]:
    noise = KnownNoise()
    return terms(agent.online_loss(batch, noise, ALL_GROUPS)), noise


@pytest.mark.parametrize("base", BASES)
def test_only_the_td_term_is_weighted(base: str) -> None:
    settings: dict[str, Any] = {"base": base, "align": False, "relax": False, "k_q": 2.0}
    batch = online_batch()
    plain, noise = online_terms(a_baq(weight=False, **settings), batch)
    agent = a_baq(weight=True, **settings)
    weighted, _ = online_terms(agent, batch)
    for name in set(plain) - {"critic"}:
        assert np.array_equal(weighted[name], plain[name]), name
    b = arrays(batch)
    y = b.reward + GAMMA * b.bootstrap * next_value(agent.base, b, noise)
    q = q_values(agent.critic, b.obs, b.action)
    w = np.exp(-2.0 * np.array([[0.75], [0.5]]) * DISTANCE)  # 1 − κ is .75 and .5
    change = td(q, y, b.weight * w) - td(q, y, b.weight)
    averaged = 1 / agent.critic.members if base == "rlpd" else 1  # over critics, or summed
    assert_allclose(weighted["critic"] - plain["critic"], averaged * change, **EXACT)
    assert np.abs(change).min() > 1e-3
    rest = plain["critic"] - averaged * td(q, y, b.weight)  # CQL's penalty, EDAC's, or nothing
    beside = base in ("cql", "cal_ql", "edac")
    assert (np.abs(rest) > 0.1).all() if beside else np.allclose(rest, 0, atol=1e-8)


def size_of_loss(agent: Any, batch: Batch, q: Array) -> Array:
    """Return the size of the base's policy loss: of its value term, or a regression's pull."""
    if agent.config.base in REGRESSED:
        weight = agent.base.loss(batch, KnownNoise(), ALL_GROUPS).metrics["awr_weight"].numpy()
        precision = np.exp(-2 * agent.policy.log_std.detach().numpy()[:, 0])
        return np.asarray(weight * precision.sum(-1) / 2)
    return np.abs(q).mean((1, 2)) if agent.config.base in SOFT else np.ones(2)


@pytest.mark.parametrize("base", BASES)
def test_the_alignment_adds_the_uncertain_gap_to_the_behaviour(base: str) -> None:
    """λ · scale · (1 − κ) · mean_B[u · mean_j (π − π_BC)²], scale the size of the base's loss."""
    settings: dict[str, Any] = {"base": base, "weight": False, "constraint": "kept"}
    agent, batch = a_baq(align=True, align_weight=1.5, **settings), online_batch()
    with_term, _ = online_terms(agent, batch)
    without, _ = online_terms(a_baq(align=False, **settings), batch)
    b = arrays(batch)
    action = (squashed_mode if base in SOFT else tanh_mean)(agent.policy, b.obs)
    q = q_values(agent.critic, b.obs, action)
    u = np.clip(q.std(1, ddof=1) / SPREAD, 0, 1)
    assert (u < 1).any()
    assert (u == 1).any()
    gap = (u * ((action - tanh_mean(agent.behavior.kept, b.obs)) ** 2).mean(-1)).mean(1)
    term = 1.5 * size_of_loss(agent, batch, q) * np.array([0.75, 0.5]) * gap
    assert_allclose(with_term["policy"] - without["policy"], term, **EXACT)
    for name in set(without) - {"policy"}:
        assert np.array_equal(with_term[name], without[name]), name


def test_a_mean_beyond_the_bounds_is_held_to_what_it_does() -> None:
    """AWAC's linear mean acts clipped; where it was handed over, that is no distance to itself."""
    linear = {"base": "awac", "awac": {"mean": "linear"}, "align_to": "handover", "bound": 0.01}
    agent, batch = a_baq(**linear), online_batch()
    with torch.no_grad():
        agent.policy.net.layers[-1].bias.fill_(3.0)
    for copy in (agent.anchor, agent.slow):
        copy.load_state_dict(agent.policy.state_dict())
    assert (agent.policy.mean(batch.obs) > 1).any()
    found = agent.online_loss(batch, KnownNoise(), ALL_GROUPS).metrics
    assert found["alignment"].tolist() == found["bound"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("base", BASES)
def test_the_alignment_pulls_the_policy_alone(base: str) -> None:
    """Its gradient holds u and the scale constant, and reaches neither critics nor π_BC."""
    settings: dict[str, Any] = {"base": base, "weight": False, "relax": False, "constraint": "kept"}
    batch = online_batch()
    slopes = []
    for align in (True, False):
        agent = a_baq(align=align, align_weight=1.5, **settings)
        losses = agent.online_loss(batch, KnownNoise(), ALL_GROUPS)
        backward(losses)
        slopes.append({n: p.grad for n, p in agent.named_parameters() if p.grad is not None})
    pulled = {n for n in slopes[0] if not torch.equal(slopes[0][n], slopes[1][n])}
    assert pulled
    assert all(name.startswith("base.policy.") for name in pulled)
    # against the slope of the same term with u and the scale written as numbers
    b = arrays(batch)
    action = agent.policy.mode(batch.obs)
    q = q_values(agent.critic, b.obs, action.detach().numpy())
    u = np.clip(q.std(1, ddof=1) / SPREAD, 0, 1)
    scale = size_of_loss(agent, batch, q)
    gap = (action - tensor(tanh_mean(agent.behavior.kept, b.obs))).square().mean(-1)
    factor = 1.5 * scale[:, None] * np.array([[0.75], [0.5]]) * u
    agent.zero_grad()
    (tensor(factor) * gap).mean(1).sum().backward()
    for name, p in agent.base.policy.named_parameters():
        name = f"base.policy.{name}"
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        assert_allclose(slopes[0][name] - slopes[1][name], expected, rtol=1e-7, atol=1e-10)


ONLINE = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]


def known_uncertainty(agent: Any, batch: Batch) -> Array:
    obs = batch.obs.numpy()
    action = (squashed_mode if agent.config.base in SOFT else tanh_mean)(agent.policy, obs)
    q = q_values(agent.critic, obs, action)
    return np.clip(q.std(1, ddof=1) / SPREAD, 0, 1)


@pytest.mark.parametrize("base", BASES)
def test_confidence_follows_calm_on_online_rows_at_the_rate_of_the_skipped_steps(base: str) -> None:
    agent, batch = a_baq(base=base, confidence_rate=0.1), online_batch(ONLINE)
    policy_every = 2 if base in ("td3_bc", "rebrac") else 1
    u = known_uncertainty(agent, batch)
    online_terms(agent, batch)
    calm = np.array([1 - (u[0, 0] + u[0, 2]) / 2, 1 - u[1, 1]])
    before = np.array([0.25, 0.5])
    # k steps at rate r, all towards the same calm: 1 − (1 − r)^k of the way
    expected = before
    for _ in range(policy_every):
        expected = expected + 0.1 * (calm - expected)
    assert_allclose(agent.confidence, expected, rtol=1e-6)
    assert np.abs(expected - before).min() > 1e-3


def test_confidence_moves_only_with_the_policy_and_only_when_relaxing() -> None:
    batch = online_batch(ONLINE)
    delayed = a_baq(base="td3_bc")
    delayed.online_loss(batch, KnownNoise(), frozenset({"critic"}))
    assert delayed.confidence.tolist() == [0.25, 0.5]
    held = a_baq(base="td3_bc", relax=False)
    online_terms(held, batch)
    assert held.confidence.tolist() == [0.25, 0.5]


def test_a_batch_without_online_rows_leaves_a_seeds_confidence_alone() -> None:
    agent = a_baq(base="iql", confidence_rate=0.5)
    online_terms(agent, online_batch([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    assert float(agent.confidence[0]) == 0.25
    assert float(agent.confidence[1]) != 0.5


def test_weight_and_alignment_use_the_confidence_from_before_the_update() -> None:
    batch = online_batch(ONLINE)
    moving, _ = online_terms(a_baq(base="iql", confidence_rate=1.0), batch)
    still, _ = online_terms(a_baq(base="iql", relax=False), batch)
    for name, value in still.items():
        assert np.array_equal(moving[name], value), name


# -- π_BC


def test_the_behaviour_model_fits_only_rows_that_are_not_held_out() -> None:
    agent = tiny_agent("baq")
    mask = np.array([[0, 1, 0], [1, 1, 0]])
    batch = tiny_batch(held_out=mask)
    b = arrays(batch)
    log_prob = gaussian_log_prob(agent.behavior.learner, b.obs, b.action)
    expected = [-(log_prob[0, 0] + log_prob[0, 2]) / 2, -log_prob[1, 2]]
    found = terms(agent.loss(batch, KnownNoise(), ALL_GROUPS))
    assert_allclose(found["behavior"], expected, **EXACT)
    all_held_out = terms(agent.loss(tiny_batch(held_out=np.ones((2, 3))), KnownNoise(), ALL_GROUPS))
    assert_allclose(all_held_out["behavior"], [0.0, 0.0])


def test_the_behaviour_model_trains_beside_the_base_and_changes_nothing_in_it() -> None:
    batch = tiny_batch(held_out=np.zeros((2, 3)))
    agent = tiny_agent("baq", base="iql")
    ours = terms(agent.loss(batch, KnownNoise(), ALL_GROUPS))
    plain = terms(agent.base.loss(batch, KnownNoise(), ALL_GROUPS))
    assert set(ours) == {*plain, "behavior"}
    for name, value in plain.items():
        assert np.array_equal(ours[name], value), name


class Rows:
    """Offline data in two chunks that remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[bool | None, int | None]] = []
        self.batch = tiny_batch(rows=7)

    def chunks(self, held_out: bool | None = None, most_rows: int | None = None) -> Iterator[Batch]:
        self.asked.append((held_out, most_rows))
        for part in (slice(0, 4), slice(4, 7)):
            fields = {n: t[:, part] for n, t in self.batch.tensors().items()}
            yield Batch.from_tensors(fields, {})


def held_out_loss(policy: Any, data: Rows) -> Array:
    return -gaussian_log_prob(policy, data.batch.obs.numpy(), data.batch.action.numpy()).mean(1)


def test_the_best_held_out_behaviour_model_is_kept_for_each_seed() -> None:
    agent, data = tiny_agent("baq"), Rows()
    learner = agent.behavior.learner
    losses, weights = [], []
    for phase in (0.0, 1.3, 2.1, 4.0, 5.2):
        fill(learner, phase=phase)
        losses.append(held_out_loss(learner, data))
        weights.append({n: p.detach().clone() for n, p in learner.named_parameters()})
        agent.assess(data)
    best = np.argmin(losses, axis=0)
    assert best[0] != best[1], "the case should tell the seeds apart"
    assert 4 not in best, "the last should not be the best"
    for seed in (0, 1):
        for name, kept in agent.behavior.kept.named_parameters():
            assert torch.equal(kept[seed], weights[best[seed]][name][seed]), name
    assert_allclose(agent.behavior.loss, np.min(losses, axis=0), **EXACT)
    assert {asked[0] for asked in data.asked} == {True}


def test_the_kept_behaviour_model_takes_no_gradient_steps() -> None:
    agent = small_agent("baq", (0, 1))
    before, _ = pretrain(agent, 5)
    kept = {n: p.clone() for n, p in agent.behavior.kept.named_parameters()}
    online: Any = finetune(agent, before, 5)[0].agent
    for name, p in online.behavior.kept.named_parameters():
        assert torch.equal(p, kept[name]), name


def test_calibration_numbers_are_the_median_distance_and_the_spreads_ninetieth_percentile() -> None:
    agent, data = tiny_agent("baq", critics=3), Rows()
    agent.finish_offline(data)
    obs, action = data.batch.obs.numpy(), data.batch.action.numpy()
    distance = ((tanh_mean(agent.behavior.kept, obs) - action) ** 2).mean(-1)
    assert_allclose(agent.distance_reference, np.median(distance, axis=1), **EXACT)
    spread = q_values(agent.critic, obs, tanh_mean(agent.policy, obs)).std(1, ddof=1)
    assert_allclose(agent.uncertainty_reference, np.percentile(spread, 90, axis=1), **EXACT)
    assert [asked[0] for asked in data.asked] == [True, None]


def test_critics_of_one_mind_on_all_data_are_certain_there_and_not_undefined() -> None:
    agent, data = tiny_agent("baq", critics=3), Rows()
    with torch.no_grad():
        for p in agent.critic.parameters():
            p.copy_(p[:, :1].expand_as(p).clone())
    agent.finish_offline(data)
    q = agent.critic(data.batch.obs, agent.policy.mode(data.batch.obs))
    assert agent.uncertainty(q).tolist() == [[0.0] * 7] * 2


# -- what is logged


def test_diagnostics_tell_offline_from_online_rows() -> None:
    agent = a_baq(confidence=(0.0, 0.0), k_q=1.0)
    found = agent.diagnose(online_batch([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    weight = np.exp(-DISTANCE)
    assert_allclose(found["online_share"], [2 / 3, 0], **EXACT)
    assert_allclose(found["distance_online_mean"], [(0.2 + 0.1) / 2, np.nan], **EXACT)
    assert_allclose(found["distance_offline_mean"], [0.4, 1.4 / 3], **EXACT)
    assert_allclose(found["weight_offline_q50"], [weight[0, 1], weight[1, 2]], **EXACT)
    share = weight.mean(1) ** 2 / (weight**2).mean(1)
    assert_allclose(found["weight_effective_share"], share, **EXACT)

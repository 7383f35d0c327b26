"""What BAQ's confidence follows, against numbers worked out by hand, and its state in runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from baq_cli.agents.adapted import BAQConfig
from baq_cli.agents.base import frozen_copy
from baq_cli.agents.interface import ONLINE, Batch
from baq_cli.agents.parts.confidence import (
    CONFIDENCES,
    Calibration,
    Confidence,
    Dual,
    Evidence,
    RelativeSpread,
    Returns,
    Spread,
)
from baq_cli.engine.phases import run as engine_run
from baq_cli.engine.updates.learner import Learner
from baq_cli.errors import UsageError
from support.builders import (
    ALL_GROUPS,
    KnownNoise,
    dataset_store,
    fill,
    q_values,
    reader_of,
    small_agent,
    squashed_mode,
    tanh_mean,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_spec,
)
from support.recordings import ID, own_folders
from support.runs import assert_same_end, execute, last_tensors, recipe_of, states, stopped_at
from support.small_data import write_steady
from support.small_methods import small

NAMES = sorted(CONFIDENCES)
WARMUP = 20
SPEC = replace(tiny_spec(), return_range=(-100.0, 100.0))
"""A tenth of the range of returns, by which they may fall, is 20."""


def seen(rate: float = 0.5, online: Any = None, **columns: Any) -> Evidence:
    """Return two rows a seed, online unless said otherwise; u, gap and size are columns too."""
    source = np.ones((2, 2)) if online is None else np.asarray(online)
    known = {"uncertainty": np.zeros((2, 2)), "gap": np.zeros((2, 2)), "size": np.ones(2)} | columns
    u, gap, size = (tensor(known.pop(name)) for name in ("uncertainty", "gap", "size"))
    batch = tiny_batch(rows=2, **known)
    return Evidence(replace(batch, source=ONLINE * tensor(source)), u, gap, size, rate)


def of(kind: type[Confidence], **buffers: Any) -> Any:
    found = kind(SPEC, WARMUP).double()
    for name, value in buffers.items():
        getattr(found, name).copy_(tensor(value))
    return found


def ends(gauge: Confidence, *episodes: tuple[Any, Any, Any]) -> None:
    """Tell of episodes' ends: which seeds', their returns, their lengths."""
    for finished, returns, lengths in episodes:
        gauge.on_episode_end(torch.tensor(finished), tensor(returns), tensor(lengths))


BOTH = [True, True]

# -- the spread


def test_the_spread_lets_confidence_follow_the_calm_of_online_rows() -> None:
    evidence = seen(0.5, online=[[1, 0], [0, 0]], uncertainty=[[0.2, 1.0], [0.5, 0.5]])
    # seed 0: ¼ + ½ (1 − 0.2 − ¼); seed 1 has no online row
    assert_allclose(of(Spread).moved(tensor([0.25, 0.75]), evidence), [0.525, 0.75])


def test_critics_that_agree_as_before_on_larger_values_are_calmer() -> None:
    gauge, first = of(RelativeSpread), seen(0.5, uncertainty=[[0.4, 0.6]] * 2, size=[2.0, 10.0])
    # ¼ + ½ (1 − 0.5 − ¼): the first sizes are what later ones are measured by
    assert_allclose(gauge.moved(tensor([0.25, 0.25]), first), [0.375, 0.375])
    later = seen(0.5, uncertainty=[[0.4, 0.6]] * 2, size=[8.0, 5.0])
    # seed 0: values four times as large, ¼ + ½ (1 − 0.125 − ¼); seed 1: smaller ones count as first
    assert_allclose(gauge.moved(tensor([0.25, 0.25]), later), [0.5625, 0.375])


def test_without_relaxation_confidence_stays() -> None:
    kappa = tensor([0.25, 0.75])
    assert torch.equal(of(Confidence).moved(kappa, seen(1.0)), kappa)


# -- calibration


def test_calibration_is_full_where_values_came_true_and_none_at_half_a_deviation() -> None:
    gauge = of(Calibration, return_spread=[4.0, 10.0], episodes=[3, 3])
    columns = {"entry_value": [[9.0, 7.0], [5.0, 5.0]], "mc_return": [[7.0, 5.0], [2.0, 8.0]]}
    evidence = seen(0.5, episode_ended=[[1, 2], [2, 3]], **columns)
    # seed 0: (2/4 + 2/4) / 2 = ½: o stays ½; seed 1: (.3 − .3) / 2 = 0: o is halfway to 0
    assert_allclose(gauge.moved(tensor([0.0, 0.0]), evidence), [0.0, 0.5])
    assert_allclose(gauge.overestimation, [0.5, 0.25])


def test_calibration_sees_the_newest_episodes_that_ended_and_nothing_else() -> None:
    gauge = of(Calibration, return_spread=[1.0, 1.0], episodes=[12, 1])
    # seed 0: episode 2 of 12 is none of the newest ten, 3 is; seed 1: one runs, one is the data's
    columns = {"entry_value": [[9.0, 0.1], [9.0, 9.0]], "mc_return": [[0, 0], [-1e9, 0]]}
    evidence = seen(1.0, [[1, 1], [1, 0]], episode_ended=[[2, 3], [0, 1]], **columns)
    kappa = gauge.moved(tensor([0.0, 0.0]), evidence)
    assert_allclose(gauge.overestimation, [0.1, 0.5])
    assert_allclose(kappa, [0.8, 0.0])


def test_calibration_counts_no_more_than_a_deviation_of_one_batch() -> None:
    gauge = of(Calibration, return_spread=[1.0, 1.0], episodes=[1, 1])
    columns = {"entry_value": [[50.0] * 2, [-50.0] * 2], "mc_return": np.zeros((2, 2))}
    evidence = seen(0.5, episode_ended=np.ones((2, 2)), **columns)
    assert_allclose(gauge.moved(tensor([0.0, 0.0]), evidence), [0.0, 1.0])
    assert_allclose(gauge.overestimation, [0.75, -0.25])


def test_calibration_numbers_finished_episodes_of_each_seed() -> None:
    gauge = of(Calibration)
    numbers = [
        gauge.on_episode_end(torch.tensor(finished), tensor([0, 0]), tensor([1, 1]))[
            "episode_ended"
        ].tolist()
        for finished in ([True, False], [True, True])
    ]
    assert numbers == [[1, 0], [2, 1]]


@given(st.floats(0.1, 50), st.floats(-20, 20))
def test_calibration_is_blind_to_the_scale_and_the_offset_of_values(
    scale: float, offset: float
) -> None:
    value, follows = np.array([[3.0, 1.0], [2.0, 2.5]]), np.array([[2.5, 0.9], [1.8, 2.6]])
    kappas = []
    for a, b in ((1.0, 0.0), (scale, offset)):
        gauge = of(Calibration, return_spread=[a * 2.0, a * 2.0], episodes=[1, 1])
        columns = {"entry_value": a * value + b, "mc_return": a * follows + b}
        evidence = seen(0.3, episode_ended=np.ones((2, 2)), **columns)
        kappas.append(gauge.moved(tensor([0.0, 0.0]), evidence))
    assert_allclose(kappas[1], kappas[0], rtol=1e-6, atol=1e-9)


def test_the_unit_of_calibration_is_the_deviation_of_the_datasets_returns() -> None:
    how = {"confidence": "calibration", "base": "cal_ql", "reward_scale": 0.01}
    agent: Any = small_agent("baq", (0, 1), phase="online", **how)
    data = reader_of(agent, dataset_store(agent))
    agent.confidence.copy_(torch.tensor([0.0, 0.5]))
    agent.hand_over(data)
    returns = torch.cat([batch.columns["mc_return"] for batch in data.chunks()], 1).numpy()
    assert returns.std(1).max() < 0.5, "no deviation is too small to be a unit"
    assert_allclose(agent.gauge.return_spread, returns.std(1), rtol=1e-4)
    assert agent.gauge.overestimation.tolist() == [0.5, 0.25]  # κ goes on from where it is


def test_calibration_without_a_dataset_is_refused_where_a_spread_of_one_was_taken() -> None:
    agent = small_agent("baq", (0,), phase="online", confidence="calibration", online_share=1.0)
    with pytest.raises(UsageError, match="draws from none"):
        agent.hand_over(reader_of(agent, None))


@pytest.mark.parametrize("base", ["td3_bc", "iql", "cql"])
def test_transitions_enter_with_the_value_that_the_policy_follows(base: str) -> None:
    agent, batch = online_agent("calibration", base=base), tiny_batch(mc_return=np.zeros((2, 3)))
    with torch.no_grad():
        columns = agent.annotate(batch)
    q = q_values(agent.critic, batch.obs.numpy(), batch.action.numpy())
    expected = q.mean(1) if base == "td3_bc" else q.min(1)
    assert_allclose(columns["entry_value"], expected, rtol=1e-9)
    assert columns["episode_ended"].tolist() == np.zeros((2, 3)).tolist()


# -- returns


def test_returns_follow_a_written_history() -> None:
    gauge, kappa = of(Returns), tensor([0.0, 0.0])
    ends(gauge, (BOTH, [10.0, -40.0], [10, 25]))  # seed 1: its first, longer than the warm-up
    assert gauge.moved(kappa, seen()).tolist() == [0.0, 0.0]
    # seed 0: 20 steps, still warm: R_w 20; seed 1: R̄ −40 + .2 · (−30 + 40) = −38, above R_w
    ends(gauge, (BOTH, [30.0, -30.0], [10, 5]))
    assert gauge.reference.tolist() == [20.0, -40.0]
    assert gauge.moved(kappa, seen(0.5)).tolist() == [0.0, 0.5]
    # seed 0: R̄ 20 + .2 · (−30 − 20) = 10, a fall of 10/200, half of what is borne
    ends(gauge, ([True, False], [-30.0, 99.0], [10, 9]))
    assert_allclose(gauge.fall, [0.05, -0.01])
    assert_allclose(gauge.moved(kappa, seen(0.5)), [0.25, 0.5])
    # seed 0: R̄ 10 + .2 · (−90 − 10) = −10, a fall of .15: confidence goes
    ends(gauge, ([True, False], [-90.0, 0.0], [10, 9]))
    assert_allclose(gauge.moved(tensor([0.8, 0.8]), seen(0.5)), [0.4, 0.9])


def test_where_all_data_return_alike_a_fall_is_a_part_of_that_return() -> None:
    """Demonstrations that all return −8: a return of −8.4 has fallen by a twentieth."""
    gauge: Any = Returns(replace(SPEC, return_range=(-8.0, -8.0)), WARMUP).double()
    ends(gauge, (BOTH, [-8.0, -8.0], [5, 5]), (BOTH, [-8.0, -10.0], [30, 30]))
    # R̄ is −8 and −8.4: f / 0.1 is 0 and ½
    assert_allclose(gauge.fall, [0.0, 0.05], atol=1e-12)
    assert_allclose(gauge.moved(tensor([0.0, 0.0]), seen(1.0)), [1.0, 0.5], atol=1e-9)


def test_another_hand_over_forgets_the_returns_of_the_phase_before() -> None:
    gauge = of(Dual)
    ends(gauge, (BOTH, [10.0, 10.0], [30, 30]), (BOTH, [10.0, 10.0], [30, 30]))
    assert gauge.widened.tolist() == [30.0, 30.0]
    agent = online_agent("dual")
    gauge.begin(reader_of(agent, None), tensor([0.5, 0.5]), tensor([0.2, 0.0]))
    assert [b.abs().sum() for n, b in gauge.named_buffers() if n != "nearest"] == [0] * 6
    assert_allclose(gauge.nearest, [0.2, 1e-3])


# -- the dual variable


@pytest.mark.parametrize(
    ("name", "counted"), [("calibration", "episodes"), ("relative_spread", "first_size")]
)
def test_another_hand_over_counts_and_measures_from_the_start(name: str, counted: str) -> None:
    agent = small_agent("baq", (0, 1), phase="online", confidence=name)
    agent.gauge.get_buffer(counted).fill_(7.0)
    agent.hand_over(reader_of(agent, dataset_store(agent)))
    assert agent.gauge.get_buffer(counted).tolist() == [0.0, 0.0]


def test_the_allowed_distance_stays_a_number_however_long_returns_hold() -> None:
    gauge = of(Dual, nearest=[0.5, 0.5], widened=[1e5, 1e12])
    assert_allclose(gauge.allowed, [0.5 * math.exp(10), 0.5 * math.exp(20)])


def test_the_allowed_distance_widens_with_every_step_while_returns_hold() -> None:
    gauge = of(Dual, nearest=[0.1, 0.2])
    ends(gauge, (BOTH, [0.0, 0.0], [50, 50]))
    assert_allclose(gauge.allowed, [0.1, 0.2])
    # seed 0 holds (R̄ −10, a fall of .05); seed 1 falls (R̄ −24, .12) and can't narrow below 0
    ends(gauge, (BOTH, [-50.0, -120.0], [5000, 3000]))
    assert_allclose(gauge.allowed, [0.1 * math.exp(0.5), 0.2])
    ends(gauge, ([True, False], [-200.0, 0.0], [2000, 9]))  # seed 0 falls to −48
    assert_allclose(gauge.allowed, [0.1 * math.exp(0.3), 0.2])


def test_confidence_rises_within_the_allowed_distance_and_falls_beyond_it() -> None:
    gauge = of(Dual, nearest=[0.1, 0.1])
    evidence = seen(0.2, online=[[1, 0], [1, 1]], gap=[[0.05, 9.0], [0.1, 0.14]])
    # seed 0: 1 − .05/.1 = ½; seed 1: 1 − .12/.1 = −.2
    assert_allclose(gauge.moved(tensor([0.5, 0.5]), evidence), [0.6, 0.46])
    far = seen(0.2, gap=[[4.0, 4.0], [0.0, 0.0]])
    assert_allclose(gauge.moved(tensor([0.1, 0.9]), far), [0.0, 1.0])  # at most ρ, within [0, 1]


@given(
    st.sampled_from(NAMES),
    st.lists(st.tuples(st.floats(-300, 300), st.integers(1, 2000)), max_size=8),
    st.floats(0, 2),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_confidence_stays_between_none_and_full(
    name: str, episodes: list[tuple[float, int]], gap: float, u: float, kappa: float
) -> None:
    gauge, now = of(CONFIDENCES[name]), tensor([kappa, 1 - kappa])
    columns = {"entry_value": [[gap] * 2] * 2, "mc_return": [[1.0] * 2] * 2}
    evidence = seen(
        0.7,
        uncertainty=[[u] * 2] * 2,
        gap=[[gap] * 2] * 2,
        episode_ended=np.ones((2, 2)),
        **columns,
    )
    for value, length in episodes:
        ends(gauge, (BOTH, [value, -value], [length, length]))
        now = gauge.moved(now, evidence)
        assert ((now >= 0) & (now <= 1)).all()


# -- in BAQ


def online_agent(confidence: str, **settings: Any) -> Any:
    """Return an online agent with κ, d_ref and σ_ref set."""
    fixed = {"distance_limit": None, "critics": 3, "target_reduction": "min"}
    how = {"phase": "online", "spec": SPEC, "confidence": confidence}
    agent = tiny_agent("baq", **(fixed | how | settings))
    agent.confidence.copy_(tensor([0.25, 0.5]))
    agent.distance_reference.copy_(tensor([0.4, 0.05]))
    agent.uncertainty_reference.copy_(tensor([0.55, 0.8]))
    return agent


def update(agent: Any, batch: Batch) -> Any:
    return terms(agent.online_loss(batch, KnownNoise(), ALL_GROUPS))


def three_rows(**columns: Any) -> Batch:
    known = {"behavior_distance": [[0.2, 0.4, 0.1], [0.3, 0.6, 0.5]], "mc_return": np.zeros((2, 3))}
    known |= {"entry_value": np.ones((2, 3)), "episode_ended": np.ones((2, 3))}
    return replace(tiny_batch(**(known | columns)), source=tensor(np.ones((2, 3))))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("base", ["td3_bc", "iql", "cql"])
def test_an_update_moves_confidence_as_its_rule_says(name: str, base: str) -> None:
    agent = online_agent(name, base=base, confidence_rate=0.1)
    ends(agent.gauge, (BOTH, [0.0, 50.0], [1500, 1500]), (BOTH, [0.0, 0.0], [10, 10]))
    before, batch = agent.confidence.clone(), three_rows()
    action = (squashed_mode if base == "cql" else tanh_mean)(agent.policy, batch.obs.numpy())
    u = q_values(agent.critic, batch.obs.numpy(), action).std(1, ddof=1) / [[0.55], [0.8]]
    gap = ((action - tanh_mean(agent.behavior.kept, batch.obs.numpy())) ** 2).mean(-1)
    rate = 0.19 if base == "td3_bc" else 0.1  # the policy steps at every second update
    alike = of(type(agent.gauge))
    alike.load_state_dict(agent.gauge.state_dict())
    size = np.abs(q_values(agent.critic, batch.obs.numpy(), action)).mean((1, 2))
    evidence = Evidence(batch, tensor(u.clip(0, 1)), tensor(gap), tensor(size), rate)
    expected = alike.moved(before, evidence)
    update(agent, batch)
    assert_allclose(agent.confidence, expected, rtol=1e-6)
    assert (agent.confidence != before).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_confidence_follows_changes_nothing_else_of_an_update(name: str) -> None:
    expected = update(online_agent("spread"), three_rows())
    for term, value in update(online_agent(name), three_rows()).items():
        assert np.array_equal(value, expected[term]), term


@pytest.mark.parametrize("base", ["td3_bc", "cql"])
def test_the_bound_adds_what_the_policy_moved_beyond_it(base: str) -> None:
    """λ_b · scale · mean_B[((1 − κ) mean_j (π − π̃)² − δ)⁺]; κ widens it."""
    plain, batch = online_agent("spread", base=base), three_rows()
    agent = online_agent("spread", base=base, bound=0.03, bound_weight=7.0)
    fill(agent.slow, phase=0.4)
    obs, mode = batch.obs.numpy(), squashed_mode if base == "cql" else tanh_mean
    action = mode(agent.policy, obs)
    moved = ((action - mode(agent.slow, obs)) ** 2).mean(-1)
    beyond = (np.array([[0.75], [0.5]]) * moved - 0.03).clip(0)
    assert (beyond == 0).any()
    assert (beyond > 0).any()
    q = q_values(agent.critic, obs, action)
    scale = np.abs(q).mean((1, 2)) if base == "cql" else 1.0
    found = update(agent, batch)["policy"] - update(plain, batch)["policy"]
    assert_allclose(found, 7.0 * scale * beyond.mean(1), rtol=1e-7, atol=1e-12)


def test_alignment_can_hold_to_the_policy_that_was_handed_over() -> None:
    """λ (1 − κ) mean_B[u mean_j (π − π_0)²], in place of the distance to π_BC."""
    plain, batch = online_agent("spread", align=False), three_rows()
    agent = online_agent("spread", align_to="handover", align_weight=7.0)
    fill(agent.anchor, phase=0.4)
    obs = batch.obs.numpy()
    action = tanh_mean(agent.policy, obs)
    u = (q_values(agent.critic, obs, action).std(1, ddof=1) / [[0.55], [0.8]]).clip(0, 1)
    strayed = ((action - tanh_mean(agent.anchor, obs)) ** 2).mean(-1)
    found = update(agent, batch)["policy"] - update(plain, batch)["policy"]
    assert_allclose(found, 7.0 * np.array([0.75, 0.5]) * (u * strayed).mean(1), rtol=1e-7)


def test_what_was_handed_over_stays_as_it_was() -> None:
    agent = small_agent("baq", (0, 1), phase="online", align_to="handover")
    fill(agent.anchor, phase=3.0)
    agent.hand_over(reader_of(agent, dataset_store(agent)))
    learner, start = Learner(agent), frozen_copy(agent.policy)
    for _ in range(4):
        learner.update(tiny_columns(agent))
    for was, kept in zip(start.parameters(), agent.anchor.parameters(), strict=True):
        assert torch.equal(was, kept)
    assert not torch.equal(next(start.parameters()), next(agent.policy.parameters()))


def test_full_confidence_bounds_nothing() -> None:
    plain, agent = online_agent("spread"), online_agent("spread", bound=1e-6)
    fill(agent.slow, phase=2.0)
    for each in (plain, agent):
        each.confidence.fill_(1.0)
    assert update(agent, three_rows())["policy"].tolist() == pytest.approx(
        update(plain, three_rows())["policy"].tolist()
    )


def test_the_slow_policy_begins_as_the_policy_and_follows_it_at_its_own_rate() -> None:
    agent = small_agent("baq", (0, 1), phase="online", bound=0.01, bound_rate=0.25)
    fill(agent.slow, phase=3.0)
    agent.hand_over(reader_of(agent, dataset_store(agent)))
    learner, start = Learner(agent), frozen_copy(agent.policy)
    rows = tiny_columns(agent)
    for step in range(4):
        before = [p.clone() for p in agent.slow.parameters()]
        learner.update(rows)
        moves = 0.25 if step % 2 else 0.0  # with the policy
        followed = zip(before, agent.policy.parameters(), agent.slow.parameters(), strict=True)
        for was, policy, now in followed:
            torch.testing.assert_close(now, was + moves * (policy.detach() - was))
    assert any(not torch.equal(a, b) for a, b in zip(start.parameters(), before, strict=True))


def tiny_columns(agent: Any) -> Batch:
    data = reader_of(agent, dataset_store(agent))
    batch = next(iter(data.chunks(most_rows=8)))
    return replace(batch, columns=batch.columns | agent.annotate(batch))


# -- in runs


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pre-training of two seeds, which any confidence continues."""
    out = tmp_path_factory.mktemp("source")
    with own_folders(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_run, "METRICS_EVERY", 3)
        write_steady(ID)
        execute(recipe((0, 1), {}), out)
        yield out


def recipe(seeds: tuple[int, ...], settings: dict[str, Any]) -> Any:
    watched = {"episodes": 1, "background": False}
    watched |= {"every_gradient_steps": 10, "every_env_steps": 7}
    run = {"seeds": list(seeds), "env": "Steady-v0", "evaluation": watched, "dataset": ID}
    fast = {"confidence_rate": 0.1}
    return recipe_of("baq", small("baq") | fast | settings, **run, gradient_steps=10, env_steps=24)


OWN = ("agent/gauge.", "agent/slow.", "agent/anchor.", "agent/confidence")
CHOICES = [
    *({"confidence": name} for name in NAMES if name != BAQConfig().confidence),
    *({"bound": 1e-4}, {"align_to": "handover"}),
]


@pytest.mark.parametrize("settings", CHOICES, ids=lambda s: "-".join(map(str, s.values())))
def test_its_state_is_in_checkpoints_and_each_seeds_own(
    settings: dict[str, Any], source: Path, tmp_path: Path
) -> None:
    together = recipe((0, 1), settings)
    execute(together, tmp_path / "whole", source=source)
    last = last_tensors(tmp_path / "whole")
    own = {n: t for n, t in last.items() if n.startswith(OWN)}
    calibrated = settings.get("confidence") == "calibration"
    went_by = own["agent/gauge.overestimation"] - 0.5 if calibrated else own["agent/confidence"]
    assert (went_by != 0).any()
    for name in list(states(tmp_path / "whole"))[1:3]:
        parts = stopped_at(tmp_path / "whole", name, tmp_path / name)
        execute(together, parts, resume=True, source=source)
        assert_same_end(tmp_path / "whole", parts)
    execute(recipe((1,), settings), tmp_path / "alone", source=source)
    alone = last_tensors(tmp_path / "alone")
    for name, value in own.items():  # as near as rounding stays through episodes and updates
        assert_allclose(alone[name][0], value[1], rtol=0.02, atol=0.01, err_msg=name)

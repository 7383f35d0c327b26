"""What methods are held by online is what they compute, not what is said of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from baq_cli.advice.anchors import anchors_of, configured, with_data, without_data
from baq_cli.agents.base import CONSTRAINTS, Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.plans import Plan
from baq_cli.agents.registry import METHODS, make_agent
from support.builders import KnownNoise, batch_for, handed_over, terms, tiny_agent, trained_together

BOTH = sorted(n for n, m in METHODS.items() if m.learns_offline and m.learns_online)
ONLINE = sorted(n for n, m in METHODS.items() if m.learns_online)
BY_RETURNS = {"adaptive_bc"}
"""Whose constraint moves when episodes end, not with the losses."""
OTHER_BATCHES = {"off2on"}
"""Whose two losses have no batch in common."""


@pytest.mark.parametrize("algo", sorted(METHODS))
def test_a_method_of_both_phases_says_what_becomes_of_its_constraint(algo: str) -> None:
    said = METHODS[algo].constraint_online
    assert said in CONSTRAINTS
    assert (said == "none") == (algo not in BOTH)


def at_the_end(agent: Agent) -> Agent:
    """Put an agent's clock where whatever falls with time has fallen."""
    agent.clock.write(1e9, 1e9, 1.0)
    return agent


@pytest.mark.parametrize("algo", sorted(set(BOTH) - OTHER_BATCHES))
def test_a_constraint_that_stays_leaves_the_losses_as_they_were(algo: str) -> None:
    """At the same parameters, on the same rows: before the hand-over, and at the phase's end."""
    before = tiny_agent(algo)
    after: Any = handed_over(before)
    for agent in (before, after):
        at_the_end(agent)
    batch, shared = batch_for(after), trained_together(before)[0] & trained_together(after)[0]
    anew = {"policy"} if "policy" in METHODS[algo].fresh_online else set()
    offline = terms(before.loss(batch, KnownNoise(), shared))
    online = terms(after.online_loss(batch, KnownNoise(), shared))
    same = [np.allclose(offline[n], online[n]) for n in offline.keys() & online.keys() - anew]
    if METHODS[algo].constraint_online == "stays":
        assert all(same)
    elif algo in BY_RETURNS:
        assert type(after).on_episode_end is not Agent.on_episode_end
    else:
        assert not all(same)


def plan_with(algo: str, **settings: Any) -> Plan:
    spec = Spec((0,), 2, 1, device=torch.device("meta"))
    return make_agent(algo, configured(algo, settings), spec, "online").online_plan()


@pytest.mark.parametrize("algo", ONLINE)
def test_a_stance_is_of_what_a_methods_batches_are_drawn_from(algo: str) -> None:
    method = METHODS[algo]
    anchors, plan = anchors_of(method), plan_with(algo)
    reached = {store for draw in plan.draws for store in draw.stores}
    assert anchors.data == ("offline" in reached)
    assert anchors.stance in ("policy", "both")
    assert anchors_of(method, scratch=True).stance in ("data", "neither")
    if anchors.data_share is not None:
        real = [d for d in plan.draws if d.stores != ("model",)]
        assert anchors.data_share == pytest.approx(
            sum(d.share for d in real if d.stores == ("offline",)) / sum(d.share for d in real)
        )


@pytest.mark.parametrize("algo", BOTH)
def test_settings_take_the_dataset_out_of_the_batches_and_put_it_in(algo: str) -> None:
    method = METHODS[algo]
    out, into = without_data(method, {}), with_data(method, {})
    assert out is not None or into is not None
    for settings, inside in ((out, False), (into, True)):
        if settings is None:
            continue
        plan = plan_with(algo, **settings)
        reached = {store for draw in plan.draws for store in draw.stores}
        assert ("offline" in reached) == inside
        if not inside:
            held = METHODS[algo].constraint_online in ("stays", "relaxes")
            assert plan.warmup_env_steps > 0 or held
    own = anchors_of(method).stance
    assert {"policy": out, "both": into}[own] == {}


def test_what_each_paper_is_known_for() -> None:
    """The names that the regimes' authors give to the two ends, and what lies between."""
    found = {algo: anchors_of(METHODS[algo], scratch=algo not in BOTH) for algo in ONLINE}
    assert found["wsrl"].stance == "policy"  # leaves the data, warms up
    assert found["rlpd"].stance == "data"  # from scratch beside the data
    assert found["sac"].stance == "neither"
    assert {found[algo].stance for algo in ("iql", "cal_ql", "td3_bc", "pex")} == {"both"}
    assert found["pex"].keeps_policy
    assert replace(found["iql"], constraint="ends").stance == "data"  # nothing holds its policy

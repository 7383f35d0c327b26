"""When target networks follow: at every step, or with the group that they are told to follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baq_cli.agents.interface import Target
from baq_cli.agents.plans import Stage
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.updater import Updater
from baq_cli.units import Phase
from support.builders import offline_replay, small_agent

TAU = 0.25


def copies(agent: Any) -> list[tuple[Tensor, Tensor]]:
    """Return every target's parameters beside those that it follows."""
    pairs = []
    for target in agent.targets():
        both = zip(target.network.parameters(), target.copy.parameters(), strict=True)
        pairs += [(ours.detach().clone(), theirs.detach().clone()) for ours, theirs in both]
    return pairs


@pytest.mark.parametrize("record_after", [1, 1_000])
@pytest.mark.parametrize(
    ("algo", "settings", "moves"),
    [
        ("td3_bc", {}, lambda step: step % 2 == 0),
        ("td3_bc", {"policy_every": 3}, lambda step: step % 3 == 0),
        ("td3_bc", {"targets_move": "every_step"}, lambda step: True),
        ("adaptive_bc", {}, lambda step: step % 2 == 0),
        ("baq", {}, lambda step: True),
        ("baq", {"td3_bc": {"targets_move": "with_policy"}}, lambda step: step % 2 == 0),
        ("iql", {}, lambda step: True),
    ],
)
def test_targets_follow_by_tau_on_their_steps_and_rest_on_others(
    algo: str, settings: dict[str, Any], moves: Any, record_after: int
) -> None:
    agent = small_agent(algo, (0, 1), tau=TAU, **settings)
    learner = Learner(agent)
    updater = Updater(learner, offline_replay(agent), record_after=record_after)
    for step in range(1, 8):
        before = copies(agent)
        updater.step()
        for (_, was), (followed, now) in zip(before, copies(agent), strict=True):
            expected = was + TAU * (followed - was) if moves(step) else was
            torch.testing.assert_close(now, expected, rtol=1e-6, atol=1e-7)
    assert bool(updater.records) == (record_after == 1)


def test_in_a_stage_that_targets_follow_those_of_groups_that_rest_follow_too() -> None:
    agent = small_agent("td3_bc", (0, 1), tau=TAU)
    learner, replay = Learner(agent), offline_replay(agent)
    for _ in range(2):
        Updater(learner, replay).step()
    stage = Stage("critics", frozenset({"critic"}), learner.plan.draws, 1, follow=True)
    before = copies(agent)
    Updater(learner, replay, stage=stage).step()
    for (_, was), (followed, now) in zip(before, copies(agent), strict=True):
        torch.testing.assert_close(now, was + TAU * (followed - was), rtol=1e-6, atol=1e-7)
        assert not torch.equal(now, was)


def test_an_update_moves_a_seeds_parameters_by_its_share_and_others_whole() -> None:
    found = []
    for shares in ([1.0, 1.0], [0.25, 1.0]):
        learner = Learner(small_agent("sac", (0, 1)))
        before = {n: p.detach().clone() for n, p in learner.agent.named_parameters()}
        learner.scale_updates(np.array(shares))
        Updater(learner, offline_replay(learner.agent)).step()
        now = learner.agent.named_parameters()
        found.append({n: p.detach() - before[n] for n, p in now if "target" not in n})
    whole, held = found
    for name, moved in held.items():
        assert moved[0].any()
        torch.testing.assert_close(moved[0], 0.25 * whole[name][0], rtol=1e-3, atol=1e-7, msg=name)
        assert torch.equal(moved[1], whole[name][1]), name


def test_a_number_that_is_none_is_found_in_a_target_too() -> None:
    agent: Any = small_agent("td3_bc", (0, 1))
    learner = Learner(agent)
    assert learner.not_finite() == {}
    name, parameter = next(iter(agent.critic_target.named_parameters()))
    with torch.no_grad():
        parameter[1].view(-1)[0] = float("inf")
    assert list(learner.not_finite()) == [f"critic_target.{name}"]


@pytest.mark.parametrize("phase", ["offline", "online"])
def test_a_target_of_no_group_is_refused(phase: Phase) -> None:
    agent: Any = small_agent("td3_bc", (0,), phase=phase)
    agent.targets = lambda: [Target(agent.critic, agent.critic_target, "actor")]
    with pytest.raises(ValueError, match="'actor', which is no parameter group"):
        Learner(agent)

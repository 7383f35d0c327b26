"""When target networks follow: at every step, or with the group that they are told to follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from baq_cli.agents.interface import Target
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


@pytest.mark.parametrize("phase", ["offline", "online"])
def test_a_target_of_no_group_is_refused(phase: Phase) -> None:
    agent: Any = small_agent("td3_bc", (0,), phase=phase)
    agent.targets = lambda: [Target(agent.critic, agent.critic_target, "actor")]
    with pytest.raises(ValueError, match="'actor', which is no parameter group"):
        Learner(agent)

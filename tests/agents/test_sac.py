"""SAC: what its batches are drawn from, and how often; its losses are in test_losses.py."""

from __future__ import annotations

from baq_cli.agents.plans import Draw, Plan
from support.builders import small_agent


def test_batches_are_online_rows_alone_as_often_as_is_said() -> None:
    agent = small_agent("sac", (0,), phase="online", utd=3, warmup_env_steps=7, capacity=11)
    expected = Plan((Draw(("online",)),), utd=3, warmup_env_steps=7, capacity=11)
    assert agent.online_plan() == expected
    assert not agent.online_plan().uses_offline

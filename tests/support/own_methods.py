"""Methods that a test writes for itself, trained in small: as they are written, and recorded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from baq_cli.agents.sac import SAC
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.updater import Updater
from support.builders import offline_replay, small_spec, tiny_config

SEEDS = (0, 1)


def trained(
    method: type[SAC], capture: bool, device: str = "cpu", **settings: Any
) -> tuple[Updater, dict[str, Tensor]]:
    """Return the updater after some offline updates, and all numbers that they left."""
    config = tiny_config("sac", hidden=(16, 16), batch_size=16, **settings)
    agent = method(config, small_spec(SEEDS, device), "offline").to(device)
    learner = Learner(agent)
    updater = Updater(learner, offline_replay(agent), capture, record_after=4)
    for _ in range(16):
        updater.step()
    return updater, agent.state_dict() | learner.state() | learner.metrics


def assert_recorded_is_eager(method: type[SAC], **settings: Any) -> None:
    """Check that a record leaves the numbers that the method leaves as it is written, all bits."""
    (recorded, found), (eager, expected) = (
        trained(method, capture, **settings) for capture in (True, False)
    )
    assert recorded.records, "the check is of recorded updates"
    assert not eager.records
    for name, value in expected.items():
        assert torch.equal(found[name], value), name

"""Limits on the wall clock: they hold in the process that acts, and the log tells of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.envs.safety import ENDED
from baq_cli.errors import LimitReached
from baq_cli.runs import transitions
from baq_cli.untrusted import TRUST_VARIABLE
from support.clocked_runs import (
    ENV_STEPS,
    WARMUP,
    assert_no_process_is_left,
    assert_repeats,
    clocked,
    recipe,
)

Array = np.ndarray[Any, Any]
CHANGE = 0.2


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")


def acted(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text())["limits"]
    return found


def test_the_acting_process_keeps_to_the_largest_change_and_training_can_be_repeated(
    tmp_path: Path,
) -> None:
    safety = {"max_action_change": CHANGE, "rest_action": 0}
    clocked(recipe(safety=safety), tmp_path / "run")
    records = transitions.read(tmp_path / "run" / transitions.NAME).records
    action, proposed = records["action"][:, 0], records["proposed"][:, 0]
    before = np.where(records["step_in_episode"] == 0, 0.0, np.roll(action, 1))
    assert np.abs(action - before).max() < CHANGE + 1e-6
    limited = records["intervention"] == transitions.LIMIT
    assert_array_equal(limited, action != proposed)
    assert limited[:WARMUP].any()
    found = acted(tmp_path / "run")
    assert found["acted"]["max_action_change"] == [int(limited.sum())]
    assert found["env_steps"] == ENV_STEPS
    assert_repeats(tmp_path / "run", tmp_path / "again")
    assert acted(tmp_path / "again") == found, "what limits did is in the log"


def test_a_late_action_stops_the_robot_and_saves_everything(tmp_path: Path) -> None:
    """Nothing is in time that may be late by no more than a nanosecond."""
    safety = {"watchdog": {"max_late_seconds": 1e-9, "then": "stop"}, "hold_action": 0.5}
    with pytest.raises(LimitReached, match="a limit stopped the run: watchdog, seed 0"):
        clocked(recipe(safety=safety), tmp_path)
    assert_no_process_is_left()
    records = transitions.read(tmp_path / transitions.NAME).records
    assert records["truncated"][-1]
    assert records["action"][-1, 0] == np.float32(0.25), "half of a torque up to 2, held"
    assert records["intervention"][-1] == transitions.LIMIT
    (stop,) = acted(tmp_path)["stops"]
    assert stop["limit"] == "watchdog"
    assert records["limits"][-1] & ENDED
    assert ckpt.load(tmp_path).state["control"]["ended"] == [], "its return is not the policy's"

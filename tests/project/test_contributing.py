"""The method that CONTRIBUTING.md works out: it is one, and computes what its card says."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from baq_cli.agents.base import FAMILIES
from baq_cli.cli.cards import card_of
from baq_cli.recipes.keys import keys_of
from support.builders import ALL_GROUPS, KnownNoise, fill, gaussian_log_prob, tiny_batch, tiny_spec
from support.places import REPOSITORY

GUIDE = REPOSITORY / "CONTRIBUTING.md"
RETURNS = np.array([[1.0, 0.0, 0.5], [0.5, 0.0, 1.0]])


@pytest.fixture(scope="module")
def method() -> Any:
    """Return the class in the guide's block of a whole file."""
    (block,) = [
        b for b in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S) if "RWC" in b
    ]
    names: dict[str, Any] = {"__name__": "rwc"}
    exec(compile(block, "rwc.py", "exec"), names)
    return names["RWC"]


def loss(method: Any, focus: float) -> tuple[Any, Any, Any]:
    agent = method(method.Config(hidden=(3,), focus=focus), tiny_spec(), "offline").double()
    fill(agent)
    batch = tiny_batch(episode_return=RETURNS)
    found = agent.loss(batch, KnownNoise(), ALL_GROUPS).terms["policy"].detach().numpy()
    log_prob = gaussian_log_prob(agent.policy, batch.obs.numpy(), batch.action.numpy())
    return found, log_prob, agent


def test_its_rows_are_weighted_by_the_returns_of_their_episodes(method: Any) -> None:
    found, log_prob, agent = loss(method, focus=3.0)
    assert agent.spec.return_range == (0.0, 1.0)
    assert_allclose(found, -(np.exp(3.0 * (RETURNS - 1)) * log_prob).mean(1), rtol=1e-9)


def test_without_focus_it_is_cloning(method: Any) -> None:
    found, log_prob, _ = loss(method, focus=0.0)
    assert_allclose(found, -log_prob.mean(1), rtol=1e-9)


def test_it_says_what_the_registry_asks_of_a_method(method: Any) -> None:
    card = card_of(method)
    assert set(card.sections) == {"Offline", "Departures"}
    assert method.family in FAMILIES
    assert all(key.meaning for key in keys_of(method.Config))

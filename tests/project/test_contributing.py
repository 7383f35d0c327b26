"""The method that CONTRIBUTING.md works out: it is one, and computes what its card says."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from baq_cli.agents.base import FAMILIES
from baq_cli.agents.registry import METHODS
from baq_cli.cli.cards import card_of
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.keys import keys_of
from support.builders import ALL_GROUPS, KnownNoise, fill, gaussian_log_prob, tiny_batch, tiny_spec
from support.places import REPOSITORY

GUIDE = REPOSITORY / "CONTRIBUTING.md"
RETURNS = np.array([[1.0, 0.0, 0.5], [0.5, 0.0, 1.0]])


def run_file(named: str) -> dict[str, Any]:
    """Run the guide's block of a whole file that names something; return its names."""
    found = re.findall(r"^ *```python\n(.*?)```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    (block,) = [block for block in found if named in block]
    names: dict[str, Any] = {"__name__": "rwc"}
    exec(compile(dedent(block), "rwc.py", "exec"), names)
    return names


@pytest.fixture(scope="module")
def method() -> Any:
    """Return the class in the guide's block of a whole file."""
    return run_file("class RWC")["RWC"]


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


def test_its_test_passes_as_it_stands_once_it_is_registered(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "rwc", method)
    run_file("def test_good_episodes")["test_good_episodes_count_more"]()
    monkeypatch.setattr(method, "loss", method.__mro__[1].loss)
    with pytest.raises(AssertionError):
        run_file("def test_good_episodes")["test_good_episodes_count_more"]()


def test_the_guide_names_each_default_that_the_page_of_baselines_needs_a_row_of(
    method: Any,
) -> None:
    common, own = AgentConfig().model_dump(mode="json"), method.Config().model_dump(mode="json")
    differ = {key for key in own.keys() & common.keys() if own[key] != common[key]}
    rows = re.findall(r"^6\. \*\*Rows\*\*.*$", GUIDE.read_text(), re.MULTILINE)[0]
    assert {key for key in common if f"`{key}`" in rows} == differ

"""What a dataset is like, and which methods that speaks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from baq_cli.advice import pretraining
from baq_cli.advice.pretraining import CHUNKS, MOST, RETURNS, candidates
from baq_cli.advice.traits import Traits, action_noise, scale_of_returns, traits_of
from baq_cli.agents.registry import METHODS
from baq_cli.bench.cost import Cost
from baq_cli.envs.scores import Reference
from support.builders import make_episodes

Array = np.ndarray[Any, Any]


def rows(count: int = 4_000) -> tuple[Array, np.random.Generator]:
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (count, 2)).astype(np.float32), rng


def test_actions_that_follow_from_observations_have_no_noise_and_those_at_random_all() -> None:
    obs, rng = rows()
    smooth = np.sin(obs @ np.array([[2.0, 1.0], [-1.0, 3.0]])).astype(np.float32)
    assert action_noise(obs, smooth) == pytest.approx(0.0, abs=0.01)
    assert action_noise(1e3 * obs + 7, smooth) == pytest.approx(0.0, abs=0.01)
    assert action_noise(obs, rng.uniform(-1, 1, (len(obs), 2))) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_share_of_chance_in_actions_is_found(share: float) -> None:
    obs, rng = rows()
    mean = np.sin(3 * obs[:, :1])
    noise = rng.normal(0, np.sqrt(share / (1 - share) * mean.var()), mean.shape)
    assert action_noise(obs, mean + noise) == pytest.approx(share, abs=0.06)


def test_actions_that_never_change_say_nothing_of_chance() -> None:
    obs, _ = rows(50)
    assert action_noise(obs, np.zeros((50, 1))) is None
    assert action_noise(np.zeros((50, 2)), obs) == 1.0  # nothing is seen that could decide


def test_returns_are_measured_by_a_reference_or_by_the_data() -> None:
    returns = np.array([-3.0, 1.0, 7.0])
    assert scale_of_returns(returns, None)[0] == 10.0
    known = Reference("made", 5.0, -15.0, "by hand")
    assert scale_of_returns(returns, known)[0] == 20.0


def of(rewards: list[float], lengths: tuple[int, ...] = (50, 50)) -> Traits:
    episodes = make_episodes(list(lengths), [True, *[False] * (len(lengths) - 1)], rewards)
    return traits_of(episodes, {}, None)


def test_rewards_are_none_sparse_or_dense() -> None:
    none, dense = of([-1.0] * 100), of(list(np.arange(100.0)))
    sparse = of([*[-1.0] * 49, 0.0, *[-1.0] * 50])
    assert [(t.rewarded, t.sparse) for t in (none, sparse, dense)] == [
        (False, False), (True, True), (True, False),
    ]  # fmt: skip
    assert sparse.reward_changes == pytest.approx(0.01)
    assert sparse.terminated == 0.5
    assert sparse.cut_after == 50


# -- what speaks for which


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count nothing: methods whose names come first are the cheapest."""
    ranked = sorted(METHODS)
    monkeypatch.setattr(
        pretraining, "costs", lambda names: {n: Cost(ranked.index(n), None) for n in names}
    )


@pytest.fixture
def plain(costs: None) -> Traits:
    return of(list(np.sin(np.arange(100.0))))


def kinds(traits: Traits) -> list[str]:
    return [each.kind for each in candidates(traits)]


def test_without_rewards_there_is_imitation_alone(plain: Traits) -> None:
    (only,) = candidates(replace(plain, reward_range=(0.0, 0.0)))
    assert set(only.methods) <= {n for n, m in METHODS.items() if m.family == "imitation"}
    assert "bc" in only.methods


def test_one_behaviour_of_one_quality_is_cloned_first(plain: Traits) -> None:
    one = replace(plain, spread=0.05, action_noise=0.01)
    assert kinds(one)[:2] == ["imitation", "policy constraint"]


def test_mixed_quality_is_for_values_and_broad_actions_for_ensembles(plain: Traits) -> None:
    mixed = replace(plain, spread=0.5, action_noise=0.6, action_coverage=1.0)
    assert kinds(mixed)[:4] == [
        "policy constraint", "adaptive constraint", "ensemble", "conservative critic",
    ]  # fmt: skip
    narrow = replace(mixed, action_coverage=0.2)
    assert "ensemble" not in kinds(narrow)
    assert kinds(narrow)[-1] == "imitation"


def test_the_cheapest_methods_of_a_kind_stand_first(plain: Traits) -> None:
    for each in candidates(replace(plain, spread=0.5, action_coverage=1.0)):
        assert list(each.methods) == sorted(each.methods)
        assert 0 < len(each.methods) <= MOST
        assert all(METHODS[name].learns_offline for name in each.methods)


def test_sparse_rewards_are_for_methods_that_say_they_read_returns_or_act_in_chunks(
    plain: Traits,
) -> None:
    found = {each.kind: each for each in candidates(replace(plain, reward_changes=0.01))}
    assert "cal_ql" in found[RETURNS].methods
    assert "qc_fql" in found[CHUNKS].methods
    assert "1.0%" in found[RETURNS].why

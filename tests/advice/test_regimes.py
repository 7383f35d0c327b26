"""Which regime a policy and its data are in, how sure that is, and what would make it surer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.advice.regimes import FEWEST, REGIMES, Comparison, compare

Array = np.ndarray[Any, Any]


def spread(mean: float, std: float, count: int) -> Array:
    """Return returns of a mean and a sample standard deviation, without chance."""
    z = np.linspace(-1.0, 1.0, count)
    return mean + std * (z - z.mean()) / z.std(ddof=1)


def of(policy: float, data: float, margin: float, std: float = 1.0, count: int = 20) -> Comparison:
    """Compare two seeds of a policy with data, all of one spread."""
    both = np.stack([spread(policy - 0.5, std, count), spread(policy + 0.5, std, count)])
    return compare(both, spread(data, std, 50), margin)


# -- by hand


@pytest.mark.parametrize(
    ("policy", "regime"), [(10.0, "superior"), (1.0, "comparable"), (-8.0, "inferior")]
)
def test_a_policy_far_above_or_below_its_data_or_near_them_is_in_its_regime(
    policy: float, regime: str
) -> None:
    found = of(policy, 1.0, margin=3.0)
    assert found.regime == regime
    assert found.possible == [regime]
    assert found.difference.value == pytest.approx(policy - 1.0)
    assert found.chances is not None
    assert found.chances[found.regime] > 0.999
    assert found.more_episodes is None


def test_a_difference_at_the_margin_is_too_close_to_tell() -> None:
    found = of(4.0, 1.0, margin=3.0)
    assert found.regime is None
    assert found.possible == ["superior", "comparable"]
    assert found.chances is not None
    assert found.chances["superior"] == pytest.approx(0.5, abs=0.05)
    assert found.above is not None
    assert found.above > 0.999


def test_a_mean_is_over_seeds_and_chance_within_them() -> None:
    """Seeds that differ are no chance: the same policies play again."""
    apart = np.stack([spread(-100.0, 1.0, 30), spread(100.0, 1.0, 30)])
    found = compare(apart, spread(0.0, 1.0, 100), margin=2.0)
    assert found.policy.value == pytest.approx(0.0)
    assert found.policy_std == pytest.approx(1.0)
    # two seeds of thirty: √(1/2 · 1/30) ≈ 0.13; of an interval, 2 · 1.96 times that
    assert found.policy.high - found.policy.low == pytest.approx(0.506, rel=0.1)
    assert found.regime == "comparable"


def test_pairs_that_began_alike_tell_what_their_sides_alone_do_not() -> None:
    starts = spread(0.0, 100.0, 12)
    policy = (starts + 3.0 + spread(0.0, 0.5, 12)[::-1])[None]
    assert compare(policy, starts, margin=1.0).regime is None
    found = compare(policy, starts, margin=1.0, paired=True)
    assert found.regime == "superior"
    # their difference has a spread of about a half: √(0.5² / 12) ≈ 0.14
    assert found.difference.high - found.difference.low == pytest.approx(0.56, rel=0.15)


@pytest.mark.parametrize("few", ["policy", "data"])
def test_fewer_than_five_episodes_name_no_regime(few: str) -> None:
    sides = {"policy": 20, "data": 20} | {few: FEWEST - 1}
    found = compare(spread(9, 1, sides["policy"])[None], spread(0, 1, sides["data"]), 1.0)
    assert (found.regime, found.chances, found.above) == (None, None, None)
    assert found.possible == list(REGIMES)
    assert found.more_episodes == (1 if few == "policy" else None)


def test_one_episode_has_no_interval() -> None:
    found = compare(spread(9, 1, 9)[None], np.array([0.0]), 1.0)
    assert np.isnan([found.data.low, found.data.high, found.data_std]).all()
    assert found.data.value == 0.0


# -- laws


@given(
    shift=st.floats(-1e3, 1e3),
    scale=st.floats(0.01, 100),
    gap=st.floats(-3, 3),
    seed=st.integers(0),
)
def test_units_of_returns_do_not_matter(shift: float, scale: float, gap: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy, data = rng.normal(gap, 1, (2, 9)), rng.normal(0, 1, 12)
    first = compare(policy, data, 0.7)
    other = compare(shift + scale * policy, shift + scale * data, scale * 0.7)
    assert first.chances is not None
    assert other.chances is not None
    for regime in REGIMES:  # rounding may move a resample across the margin
        assert first.chances[regime] == pytest.approx(other.chances[regime], abs=2e-3)
    assert sum(first.chances.values()) == pytest.approx(1.0)
    assert set(first.possible) >= ({first.regime} if first.regime else set())


def test_uncertainty_falls_with_the_root_of_the_episodes() -> None:
    def width(count: int) -> float:
        found = compare(spread(0, 5, count)[None], spread(0, 1e-9, 50), 1.0)
        return found.difference.high - found.difference.low

    assert width(40) / width(160) == pytest.approx(2.0, rel=0.1)
    assert width(40) / width(640) == pytest.approx(4.0, rel=0.1)


@given(gap=st.floats(1.2, 3.0), std=st.floats(2.0, 6.0))
def test_as_many_more_episodes_as_are_said_do_tell(gap: float, std: float) -> None:
    data = spread(0.0, 0.5, 100)
    found = compare(spread(gap, std, 8)[None], data, 1.0)
    if found.regime is not None or found.more_episodes is None:
        return
    if 8 + found.more_episodes > 20_000:
        return
    many = compare(spread(gap, std, round(1.3 * (8 + found.more_episodes)))[None], data, 1.0)
    assert many.regime == "superior"
    half = compare(spread(gap, std, max(5, (8 + found.more_episodes) // 3))[None], data, 1.0)
    assert half.regime is None


def test_no_number_of_the_policys_episodes_makes_up_for_too_few_of_the_data() -> None:
    found = compare(spread(1.5, 1.0, 10)[None], spread(0.0, 5.0, 10), 1.0)
    assert found.regime is None
    assert found.more_episodes is None
    assert compare(spread(1.5, 1.0, 100_000)[None], spread(0.0, 5.0, 10), 1.0).regime is None


def test_a_regime_is_named_wrongly_about_as_rarely_as_it_says() -> None:
    """At the margin itself both sides of it are wrong: each may be named in 5 of 100 cases."""
    rng = np.random.default_rng(1)
    found = [compare(rng.normal(1, 1, (1, 30)), rng.normal(0, 1, 30), 1.0) for _ in range(300)]
    wrong = np.mean([each.regime == "superior" for each in found])
    assert wrong < 0.09  # 5 %, a bootstrap's optimism, and three standard errors of 300

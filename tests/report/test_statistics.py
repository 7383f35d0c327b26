"""A run's statistics, on curves whose numbers can be worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.integrate
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.report.curves import Curve
from baq_cli.report.definitions import (
    DEFINITIONS,
    Goals,
    best_score,
    deepest_dip,
    dip_env_steps,
    env_steps_to_threshold,
    handover_score,
    online_mean,
    regret,
)
from baq_cli.report.summary import Statistic, summarise
from baq_cli.report.tables import as_records

NEVER = math.inf
EVERY_1000 = range(0, 9000, 1000)
"""Nine evaluations over 8000 env_steps: the first quarter holds those at 1000 and 2000."""


def online(*returns, counters=EVERY_1000, unit="env_steps") -> Curve:
    lines = np.array(returns, dtype=np.float64)
    return Curve("baq", "online", unit, np.array(counters), lines, tuple(range(len(lines))))


def curves(least=2):
    """Strategy of curves of one to three seeds, with evaluations at any distances."""
    counters = st.sets(st.integers(1, 1000), min_size=least - 1, max_size=12)
    return counters.flatmap(
        lambda later: st.lists(
            st.lists(st.integers(-9, 9), min_size=len(later) + 1, max_size=len(later) + 1),
            min_size=1,
            max_size=3,
        ).map(lambda returns: online(*returns, counters=[0, *sorted(later)]))
    )


def moved(curve: Curve, scale=1.0, shift=0.0, stretch=1) -> Curve:
    counters, returns = stretch * curve.counters, scale * curve.returns + shift
    return Curve("", "online", curve.unit, counters, returns, curve.seeds)


# -- dips


@pytest.mark.parametrize(
    ("returns", "depth", "length"),
    [
        pytest.param((5, 6, 7, 8, 8, 8, 8, 8, 8), 0, 0, id="none"),
        pytest.param((5, 5, 5, 5, 5, 5, 5, 5, 5), 0, 0, id="the same is no dip"),
        pytest.param((5, 3, 5, 8, 8, 8, 8, 8, 8), 2, 2000, id="back at the second"),
        pytest.param((5, 3, 4, 4, 4, 6, 6, 6, 6), 2, 5000, id="back after the first quarter"),
        pytest.param((5, 3, 6, 4, 6, 6, 6, 6, 6), 2, 4000, id="back, but not yet for good"),
        pytest.param((5, 3, 6, 6, 6, 6, 6, 6, 4), 2, NEVER, id="below at the end"),
        pytest.param((5, 4, 1, 1, 1, 1, 1, 1, 1), 4, NEVER, id="collapsed"),
        pytest.param((5, 3, 3, 3, 3, 3, 3, 3, 5), 2, 8000, id="back at the very end"),
        pytest.param((5, 6, 6, 1, 6, 6, 6, 6, 6), 0, 0, id="a later fall is no dip"),
        pytest.param((5, 6, 6, 6, 6, 6, 6, 6, 1), 0, 0, id="a late collapse is no dip"),
        pytest.param((5, 3, 6, 6, 6, 6, 2, 6, 6), 2, 7000, id="a dip lasts through later falls"),
        pytest.param((-5, -9, -4, -4, -4, -4, -4, -4, -4), 4, 2000, id="below zero"),
    ],
)
def test_dips_by_hand(returns, depth, length):
    curve = online(returns)
    assert deepest_dip(curve).tolist() == [depth]
    assert dip_env_steps(curve).tolist() == [length]


def test_seeds_dip_by_themselves():
    curve = online((5, 1, 9, 9, 9, 9, 9, 9, 9), (9, 9, 1, 9, 1, 9, 9, 9, 1), [5] * 9)
    assert deepest_dip(curve).tolist() == [4, 8, 0]
    assert dip_env_steps(curve).tolist() == [2000, NEVER, 0]


@given(curves())
def test_a_dip_has_a_length_just_when_it_has_a_depth(curve):
    depth, length = deepest_dip(curve), dip_env_steps(curve)
    assert ((depth == 0) == (length == 0)).all()
    ended_below = curve.returns[:, -1] < curve.returns[:, 0]
    np.testing.assert_array_equal(np.isinf(length), ended_below & (depth > 0))


@given(curves(), st.sampled_from([0.5, 4.0]), st.integers(-20, 20), st.integers(1, 5))
def test_units_of_score_and_of_steps_are_apart(curve, scale, shift, stretch):
    other = moved(curve, scale, shift, stretch)
    np.testing.assert_array_equal(deepest_dip(other), scale * deepest_dip(curve))
    np.testing.assert_array_equal(dip_env_steps(other), stretch * dip_env_steps(curve))
    np.testing.assert_allclose(online_mean(other), scale * online_mean(curve) + shift)
    np.testing.assert_allclose(
        regret(other, scale * 10 + shift), scale * stretch * regret(curve, 10), atol=1e-6
    )
    np.testing.assert_array_equal(
        env_steps_to_threshold(other, scale * 3 + shift), stretch * env_steps_to_threshold(curve, 3)
    )


def test_no_dip_is_known_without_a_hand_over():
    for curve in (online((5, 1, 6), counters=[1000, 2000, 3000]), online((5,), counters=[0])):
        assert np.isnan(deepest_dip(curve)).all()
        assert np.isnan(dip_env_steps(curve)).all()
    assert np.isnan(handover_score(online((5, 1), counters=[1, 2]))).all()


# -- area and regret


def test_the_area_is_that_of_trapezia():
    curve = online((0, 10, 10, 30), (4, 4, 4, 4), counters=[0, 100, 200, 600])
    area = 100 * 5 + 100 * 10 + 400 * 20
    assert online_mean(curve).tolist() == [area / 600, 4]
    assert regret(curve, 30).tolist() == [600 * 30 - area, 600 * 26]
    assert regret(curve, 3)[1] == -600, "better than the optimum"
    late = online((2, 4), counters=[500, 700])
    assert (online_mean(late).item(), regret(late, 10).item()) == (3, 200 * 7)


@given(curves(), st.integers(-20, 20))
def test_area_and_regret_fill_the_optimums_rectangle(curve, optimum):
    area = scipy.integrate.trapezoid(curve.returns, curve.counters, axis=1)
    np.testing.assert_allclose(online_mean(curve) * curve.counters[-1], area, atol=1e-9)
    np.testing.assert_allclose(
        regret(curve, optimum) + area, optimum * curve.counters[-1], atol=1e-9
    )


@given(curves())
def test_evaluating_more_often_along_the_line_changes_no_area(curve):
    middle = (curve.returns[:, 1:] + curve.returns[:, :-1]) / 2
    returns = np.insert(curve.returns, range(1, len(curve.counters)), middle, axis=1)
    counters = 2 * curve.counters
    between = (counters[1:] + counters[:-1]) // 2
    finer = online(*returns, counters=np.insert(counters, range(1, len(counters)), between))
    np.testing.assert_allclose(online_mean(finer), online_mean(curve), atol=1e-9)


def test_one_evaluation_spans_no_area():
    assert np.isnan(online_mean(online((5,), counters=[0]))).all()
    assert np.isnan(regret(online((5,), counters=[0]), 9)).all()


# -- best and threshold


def test_best_and_first_at_the_threshold():
    curve = online((1, 8, 3, 9), (9, 1, 1, 1), (1, 2, 3, 4), counters=[0, 10, 20, 30])
    assert best_score(curve).tolist() == [9, 9, 4]
    assert env_steps_to_threshold(curve, 8).tolist() == [10, 0, NEVER]
    assert env_steps_to_threshold(curve, 4).tolist() == [10, 0, 30]


@given(curves(), st.integers(-9, 9))
def test_a_higher_threshold_takes_no_less(curve, threshold):
    lower = env_steps_to_threshold(curve, threshold)
    higher = env_steps_to_threshold(curve, threshold + 1)
    assert (higher >= lower).all()
    np.testing.assert_array_equal(np.isfinite(lower), best_score(curve) >= threshold)


# -- what is not known


def test_a_seed_with_a_missing_evaluation_is_unknown_where_it_matters():
    curve = online((5, 3, 6, 6, np.nan, 6, 6, 6, 6), (5, 6, 6, 6, np.nan, 6, 6, 6, 6), [5] * 9)
    assert deepest_dip(curve).tolist() == [2, 0, 0]
    np.testing.assert_array_equal(dip_env_steps(curve), [np.nan, 0, 0])
    for values in (
        online_mean(curve),
        regret(curve, 9),
        best_score(curve),
        env_steps_to_threshold(curve, 5),
    ):
        assert np.isnan(values).tolist() == [True, True, False]


def test_evaluation_numbers_are_not_environment_steps():
    summary = summarise(
        "baq", {"online": online([5] * 9, unit="evaluations")}, "Hopper-v5", goals=Goals(9, 1)
    )
    for name, definition in DEFINITIONS.items():
        known = definition.unit == "score" and definition.phase == "online"
        assert summary[name].count == known, name


def test_without_goals_what_is_measured_against_them_is_unknown():
    summary = summarise("baq", {"online": online([5] * 9)}, "Hopper-v5")
    unknown = {name for name in DEFINITIONS if not summary[name].count}
    assert unknown == {"offline", "regret", "env_steps_to_threshold"}


# -- over seeds


def test_one_seed_that_never_recovers_leaves_no_mean():
    curve = online([5, 3, *[6] * 7], [5, 3, *[4] * 7], [5] * 9)
    summary = summarise("baq", {"online": curve}, "Hopper-v5", goals=Goals(threshold=5.5))
    length = summary["dip_env_steps"]
    assert length.values.tolist() == [2000, NEVER, 0]
    assert length.never.tolist() == [False, True, False]
    assert length.count == 3
    assert np.isnan([length.mean, length.std, length.low, length.high]).all()
    (record,) = as_records([summary])
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["dip_env_steps"] == {
        "mean": None,
        "std": None,
        "low": None,
        "high": None,
        "count": 2,
        "never": 1,
        "per_seed": [2000, None, 0],
    }
    assert record["env_steps_to_threshold"]["never"] == 2
    assert record["deepest_dip"]["mean"] == pytest.approx(4 / 3)


def test_never_is_told_from_unknown():
    statistic = Statistic(np.array([np.nan, np.inf, 3.0, 5.0]))
    assert statistic.count == 3
    assert statistic.never.tolist() == [False, True, False, False]
    assert np.isnan(statistic.mean)
    known = Statistic(np.array([np.nan, 3.0, 5.0]))
    assert (known.count, known.mean) == (2, 4)


@given(st.lists(st.integers(-100, 100), min_size=2, max_size=9))
def test_a_mean_lies_in_its_interval(values):
    statistic = Statistic(np.array(values, dtype=np.float64))
    assert min(values) - 1e-9 <= statistic.low <= statistic.mean + 1e-9
    assert statistic.mean - 1e-9 <= statistic.high <= max(values) + 1e-9
    assert statistic.interval.value == pytest.approx(statistic.mean)


def test_one_seed_has_no_interval():
    for values in ([3.0], [3.0, np.nan]):
        statistic = Statistic(np.array(values))
        assert statistic.mean == 3
        assert np.isnan([statistic.low, statistic.high]).all()


# -- the definitions


def test_every_statistic_says_what_it_is():
    assert list(DEFINITIONS) == [
        "offline",
        "handover",
        "deepest_dip",
        "dip_env_steps",
        "online_mean",
        "regret",
        "final",
        "best",
        "env_steps_to_threshold",
    ]
    assert len({definition.heading for definition in DEFINITIONS.values()}) == len(DEFINITIONS)
    for name, definition in DEFINITIONS.items():
        assert definition.text.endswith("."), name
        assert ("env_steps" in name) == (definition.unit == "env_steps")


@given(curves())
def test_more_is_better_or_worse_as_the_definition_says(curve):
    """Every online score after the hand-over raised: no statistic of the phase gets worse."""
    raised = moved(curve)
    raised.returns[:, 1:] += 1
    goals = Goals(optimum=10, threshold=4)
    for name, definition in DEFINITIONS.items():
        before, after = definition.per_seed(curve, goals), definition.per_seed(raised, goals)
        better = after >= before if definition.better == "higher" else after <= before
        assert better.all(), name

"""Aggregates over tasks and seeds: against published runs, SciPy, closed forms and simulation."""

from __future__ import annotations

import csv
import statistics
from functools import partial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.bootstrap import (
    RESAMPLES,
    interval,
    mean_interval,
    multiplicities,
    resample,
    resampled_means,
    scored_runs,
)
from baq_cli.errors import DataError
from baq_cli.report import aggregates
from baq_cli.report.aggregates import (
    AGGREGATES,
    SHARE,
    common_grid,
    efficiency,
    improvements,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    profile_thresholds,
)
from baq_cli.report.curves import Curve
from support.places import RECORDED

FINAL = RECORDED / "corl_antmaze_final.csv"
PUBLISHED = {  # mean, IQM
    "AWAC": ("16.46", "0.0"),
    "CQL": ("95.58", "97.0"),
    "IQL": ("78.50", "83.0"),
    "SPOT": ("92.38", "94.5"),
    "Cal-QL": ("97.33", "98.2"),
    "ReBRAC": ("78.88", "97.2"),
}

scores = st.integers(-50, 150).map(float)
strata = st.lists(st.lists(scores, min_size=2, max_size=7).map(np.array), min_size=1, max_size=4)


def published() -> dict[str, list[np.ndarray]]:
    """Return the last online score of each run: four seeds of six algorithms on six tasks."""
    runs: dict[str, dict[str, list[float]]] = {}
    with FINAL.open(newline="") as file:
        for row in csv.DictReader(file):
            tasks = runs.setdefault(row["algo"], {})
            tasks.setdefault(row["dataset"], []).append(float(row["normalized_score"]))
    return {algo: [np.array(of_task) for of_task in tasks.values()] for algo, tasks in runs.items()}


def normal_runs(tasks: int, runs: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(50, 10, runs) for _ in range(tasks)]


def triple(found) -> list[float]:
    return [found.value, found.low, found.high]


# -- published runs


@pytest.mark.parametrize("algo", PUBLISHED)
def test_published_runs_have_their_known_mean_and_iqm(algo):
    runs = published()[algo]
    assert [len(of_task) for of_task in runs] == [4] * 6
    assert (f"{mean(runs):.2f}", f"{iqm(runs):.1f}") == PUBLISHED[algo]


def test_the_interval_shows_what_the_iqm_of_few_unlike_runs_hides():
    found = interval(published()["ReBRAC"], iqm)
    assert found.low == pytest.approx(84, abs=1.5)
    assert found.high == pytest.approx(98, abs=1)
    steady = interval(published()["Cal-QL"], iqm)
    assert steady.high - steady.low < 3


def test_published_runs_rank_by_pairs():
    found = improvements(published())
    assert len(found) == 30
    assert found["Cal-QL", "AWAC"].low > 0.9
    assert found["Cal-QL", "SPOT"].value > 0.5 > found["SPOT", "Cal-QL"].value


# -- independent computations


@given(strata)
def test_the_iqm_is_scipys_trimmed_mean_of_all_runs(runs):
    expected = scipy.stats.trim_mean(np.concatenate(runs), 0.25)
    assert float(iqm(runs)) == pytest.approx(expected, abs=1e-9)


@given(strata)
def test_mean_median_and_gap_by_their_formulas(runs):
    task_means = [sum(of_task) / len(of_task) for of_task in runs]
    assert float(mean(runs)) == pytest.approx(sum(task_means) / len(runs))
    assert float(median(runs)) == pytest.approx(statistics.median(task_means))
    short = [max(100 - score, 0) for score in np.concatenate(runs)]
    assert float(optimality_gap(runs)) == pytest.approx(sum(short) / len(short))


@given(strata, st.data())
def test_improvement_is_the_mann_whitney_statistic(x, data):
    y = data.draw(st.lists(st.lists(scores, min_size=2), min_size=len(x), max_size=len(x)))
    y = [np.array(of_task) for of_task in y]
    expected = [
        scipy.stats.mannwhitneyu(one, other).statistic / (len(one) * len(other))
        for one, other in zip(x, y, strict=True)
    ]
    found = probability_of_improvement(x, y, resamples=20)
    assert found.value == pytest.approx(np.mean(expected))
    assert found.low <= found.high


def test_one_task_has_scipys_percentile_interval():
    (runs,) = normal_runs(tasks=1, runs=12)
    drawn = scipy.stats.bootstrap(
        (runs,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    )
    found = interval([runs], mean, resamples=20_000)
    error = 0.03 * runs.std()  # of the 2.5 % quantile of 20 000 draws, four times over
    assert found.low == pytest.approx(drawn.confidence_interval.low, abs=error)
    assert found.high == pytest.approx(drawn.confidence_interval.high, abs=error)


def test_resampled_means_spread_by_the_closed_form():
    runs = normal_runs(tasks=3, runs=9)
    drawn = resample(runs, 20_000, 0)
    means = mean([scores[index] for scores, index in zip(runs, drawn, strict=True)])
    # Tasks are drawn independently: the variance of a mean over tasks is the mean of theirs over K.
    expected = np.sqrt(np.sum([scores.var() / 9 for scores in runs])) / 3
    assert means.std() == pytest.approx(expected, rel=0.03)
    assert means.mean() == pytest.approx(mean(runs), abs=4 * expected / np.sqrt(20_000))


@pytest.mark.parametrize("block", [10**6, 300, 1])
def test_a_mean_in_little_memory_has_the_interval_that_drawing_all_at_once_gives(
    block, monkeypatch
):
    monkeypatch.setattr("baq_cli.bootstrap.BLOCK_NUMBERS", block)
    values = np.random.default_rng(4).normal(size=9)
    assert mean_interval(values) == interval([values], mean)
    assert len(resampled_means(values, np.random.default_rng(0))) == RESAMPLES


def test_the_improvements_interval_agrees_with_drawing_runs_one_by_one():
    x, y = normal_runs(tasks=2, runs=6, seed=1), normal_runs(tasks=2, runs=5, seed=2)
    found = probability_of_improvement(x, y, resamples=4000)
    rng = np.random.default_rng(3)
    samples = [
        np.mean(
            [
                (rng.choice(one, len(one))[:, None] > rng.choice(other, len(other))).mean()
                for one, other in zip(x, y, strict=True)
            ]
        )
        for _ in range(4000)
    ]
    assert found.low == pytest.approx(np.quantile(samples, 0.025), abs=0.03)
    assert found.high == pytest.approx(np.quantile(samples, 0.975), abs=0.03)


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_the_interval_covers_the_truth_as_often_as_it_says(statistic):
    rng = np.random.default_rng(0)
    levels = np.linspace(-2, 2, 10)  # symmetric about 0, the true mean and IQM
    covered = 0
    for i in range(300):
        found = interval(list(rng.normal(levels[:, None], 1, (10, 10))), statistic, 1000, seed=i)
        covered += found.low <= 0 <= found.high
    assert 0.90 <= covered / 300 <= 0.98


# -- laws of intervals


@given(strata, st.sampled_from([0.5, 2.0, 30.0]), st.integers(-100, 100))
def test_another_scale_of_scores_moves_intervals_with_them(runs, scale, shift):
    moved = [scale * of_task + shift for of_task in runs]
    for statistic in (mean, median, iqm):
        expected = [scale * x + shift for x in triple(interval(runs, statistic, 50))]
        assert triple(interval(moved, statistic, 50)) == pytest.approx(expected, abs=1e-6)
    gap = interval(runs, partial(optimality_gap, target=100.0), 50)
    moved_gap = interval(moved, partial(optimality_gap, target=scale * 100 + shift), 50)
    assert triple(moved_gap) == pytest.approx([scale * x for x in triple(gap)], abs=1e-6)


@given(strata, st.randoms(use_true_random=False))
def test_the_order_of_runs_does_not_matter(runs, random):
    shuffled = [np.array(random.sample(list(of_task), len(of_task))) for of_task in runs]
    for statistic in AGGREGATES.values():
        one, other = interval(runs, statistic, 50), interval(shuffled, statistic, 50)
        assert triple(one) == pytest.approx(triple(other))
    other = probability_of_improvement(shuffled, runs, 50)
    assert other == probability_of_improvement(runs, runs, 50)


@given(strata)
def test_an_interval_lies_within_the_scores_and_is_as_wide_as_asked(runs):
    for statistic in (mean, median, iqm):
        wide, narrow = interval(runs, statistic, 50), interval(runs, statistic, 50, level=0.5)
        lowest, highest = min(map(min, runs)), max(map(max, runs))
        ordered = [lowest, wide.low, narrow.low, narrow.high, wide.high, highest]
        np.testing.assert_array_less(ordered[:-1], np.array(ordered[1:]) + 1e-9)


def test_the_seed_decides_the_interval():
    runs = normal_runs(tasks=4, runs=5)
    assert interval(runs, iqm) == interval(runs, iqm)
    assert interval(runs, iqm) != interval(runs, iqm, seed=1)
    assert interval(runs, iqm).low == pytest.approx(interval(runs, iqm, seed=1).low, abs=1)


def test_runs_are_drawn_within_their_task():
    apart = [np.full(5, 0.0), np.full(5, 100.0)]  # pooled draws would mix them
    assert triple(interval(apart, mean)) == [50, 50, 50]
    assert triple(interval(apart, iqm)) == [50, 50, 50]


def test_more_runs_of_a_task_weigh_more_in_the_iqm_and_not_in_the_mean():
    runs = [np.zeros(12), np.full(4, 100.0)]
    assert float(mean(runs)) == 50
    assert float(iqm(runs)) == 0


def test_runs_without_a_score_are_dropped_first():
    runs = normal_runs(tasks=2, runs=4)
    with_gaps = [np.array([np.nan, *runs[0]]), np.array([*runs[1], np.nan, np.nan])]
    assert interval(with_gaps, iqm) == interval(runs, iqm)
    assert np.isnan(iqm(with_gaps))


def test_one_run_of_a_task_says_nothing_of_its_spread():
    found = interval([np.array([1.0, 2.0, 3.0]), np.array([4.0])], mean)
    assert found.value == 3
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(triple(probability_of_improvement([np.ones(1)], [np.ones(3)]))[1:]).all()


@pytest.mark.parametrize("runs", [[], [np.empty(0)], [np.ones(3), np.full(3, np.nan)]])
def test_a_task_without_runs_leaves_nothing_to_say(runs):
    for statistic in AGGREGATES.values():
        assert np.isnan(triple(interval(runs, statistic))).all()
    assert np.isnan(triple(probability_of_improvement(runs, runs))).all()
    assert np.isnan(performance_profile(runs, np.arange(3.0)).value).all()


def test_an_infinite_score_is_refused():
    with pytest.raises(DataError, match="infinite score"):
        interval([np.array([1.0, np.inf])], mean)


def test_resampling_keeps_the_number_of_runs():
    (index,) = resample([np.zeros(7)], 100, 0)
    counts = multiplicities(index)
    assert counts.shape == (100, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert counts[3].tolist() == np.bincount(index[3], minlength=7).tolist()


# -- pairs


@given(strata)
def test_one_of_two_methods_is_better(runs):
    other = [of_task[::-1] + 10 * (-1) ** i for i, of_task in enumerate(runs)]
    found = improvements({"x": runs, "y": other})
    forth, back = found["x", "y"], found["y", "x"]
    assert forth.value + back.value == pytest.approx(1)
    assert forth.low + back.high == pytest.approx(1)
    reverse = probability_of_improvement(other, runs, 20)
    assert reverse.value == pytest.approx(back.value)


def test_a_method_is_no_better_than_itself():
    runs = published()["IQL"]
    found = probability_of_improvement(runs, runs)
    assert found.value == 0.5
    assert found.low < 0.5 < found.high


def test_pairs_are_within_a_task():
    x, y = [np.full(3, 1.0), np.full(3, 101.0)], [np.full(3, 0.0), np.full(3, 100.0)]
    assert triple(probability_of_improvement(x, y)) == [1, 1, 1]


def test_methods_with_other_tasks_are_not_paired():
    with pytest.raises(DataError, match="2 tasks and the other 1"):
        probability_of_improvement([np.ones(2), np.ones(2)], [np.ones(2)])


# -- profiles


@given(strata)
def test_a_profile_falls_from_one_to_zero(runs):
    thresholds = np.linspace(-51, 151, 40)
    profile = performance_profile(runs, thresholds, 50)
    assert (profile.value[0], profile.value[-1]) == (1, 0)
    assert (np.diff(profile.value) <= 0).all()
    assert (np.diff(profile.low) <= 1e-12).all()
    assert (np.diff(profile.high) <= 1e-12).all()
    pooled = np.concatenate(runs)
    assert profile.value[20] == pytest.approx((pooled > thresholds[20]).mean())


def test_a_profile_counts_what_lies_above():
    profile = performance_profile([np.array([1.0, 2.0]), np.array([2.0, 3.0])], np.arange(4.0))
    assert profile.value.tolist() == [1, 0.75, 0.25, 0]


def test_a_profiles_interval_is_that_of_a_share():
    runs = published()["ReBRAC"]
    profile = performance_profile(runs, np.array([50.0, 90.0]))
    above = interval(runs, lambda strata: (np.concatenate(strata, axis=-1) > 90).mean(axis=-1))
    assert triple(above) == pytest.approx([band[1] for band in vars(profile).values()])


def test_thresholds_span_all_methods():
    thresholds = profile_thresholds(published().values())
    assert len(thresholds) == 101
    assert (thresholds[0], thresholds[-1]) == (0, 100)
    assert profile_thresholds([[np.full(3, 7.0)]], 3).tolist() == [6.5, 7, 7.5]
    assert profile_thresholds([[], [np.array([np.nan])]]).size == 0


# -- curves on a common grid


def curve(counters, *returns, unit="env_steps") -> Curve:
    lines = np.array(returns, dtype=np.float64)
    return Curve("", "online", unit, np.array(counters), lines, tuple(range(len(lines))))


def test_tasks_of_one_budget_are_compared_in_env_steps():
    often, seldom = curve([0, 10, 20, 30], [1, 2, 3, 4]), curve([0, 15, 30], [5, 6, 7])
    grid = common_grid([often, seldom])
    assert (grid.label, grid.x.tolist()) == ("env_steps", [0, 10, 15, 20, 30])
    assert grid.scores(often).tolist() == [[1, 2, 2, 3, 4]]
    assert grid.scores(seldom).tolist() == [[5, 5, 6, 6, 7]]


def test_other_budgets_are_compared_in_shares_of_them():
    short, long = curve([0, 10, 20], [1, 2, 3]), curve([0, 300, 600, 1200], [4, 5, 6, 7])
    grid = common_grid([short, long])
    assert (grid.label, grid.x.tolist()) == (SHARE, [0, 0.25, 0.5, 1])
    assert grid.scores(short).tolist() == [[1, 1, 2, 3]]
    assert grid.scores(long).tolist() == [[4, 5, 6, 7]]
    steps, numbers = curve([0, 1], [1, 2]), curve([0, 1], [1, 2], unit="evaluations")
    assert common_grid([steps, numbers]).label == SHARE
    assert common_grid([numbers, numbers]).label == "evaluations"


def test_a_grid_begins_where_all_curves_have_begun():
    early, late = curve([0, 10, 20], [1, 2, 3]), curve([5, 20], [4, 5])
    grid = common_grid([early, late])
    assert grid.x.tolist() == [5, 10, 20]
    assert grid.scores(early).tolist() == [[1, 2, 3]]
    assert np.isnan(common_grid([early]).scores(late)[0, 0])


@given(st.lists(st.sets(st.integers(0, 999), min_size=1), min_size=1, max_size=4))
def test_no_value_on_a_grid_is_made_up_or_ahead_of_its_time(counters):
    curves = [curve(sorted(c), sorted(c)) for c in counters]  # each score is its own counter
    grid = common_grid(curves)
    assert 1 <= len(grid.x) <= aggregates.MOST_POINTS
    assert (np.diff(grid.x) > 0).all()
    for one in curves:
        found = grid.scores(one)[0]
        at = grid.x * (max(one.counters[-1], 1) if grid.label == SHARE else 1)
        assert set(found) <= set(one.counters.tolist())
        assert (found <= at + 1e-9).all()
        assert found[-1] == one.counters[-1]


def test_efficiency_is_the_iqm_at_each_evaluation():
    rng = np.random.default_rng(0)
    curves = [rng.normal(i, 1, (n, 4)) for i, n in enumerate((5, 5, 3))]
    band = efficiency(curves)
    for t in range(4):
        column = [of_task[:, t] for of_task in curves]
        assert band.value[t] == pytest.approx(float(iqm(column)))
        assert band.low[t] < band.value[t] < band.high[t]
        alone = interval(column, iqm)
        assert (band.low[t], band.high[t]) == pytest.approx((alone.low, alone.high), abs=0.2)


def test_efficiency_draws_whole_runs():
    level = np.array([0.0, 1.0, 2.0, 3.0])
    band = efficiency([np.stack([level, level[::-1], level], axis=1)])
    assert band.low[0] == band.low[2]
    straight = efficiency([np.stack([level, 10 * level], axis=1)])
    assert straight.low[1] == pytest.approx(10 * straight.low[0])


def test_efficiency_drops_curves_with_gaps_and_knows_its_limits():
    curves = np.arange(12.0).reshape(4, 3)
    gap = np.array([[1.0, np.nan, 2.0]])
    whole, dropped = efficiency([curves]), efficiency([np.concatenate([gap, curves])])
    assert whole.low.tolist() == dropped.low.tolist()
    assert np.isnan(efficiency([curves, curves[:1]]).low).all()
    assert np.isnan(efficiency([curves, gap]).value).all()
    assert efficiency([]).value.size == 0


def test_runs_are_put_in_order_by_their_whole_curve():
    (ordered,) = scored_runs([np.array([[2.0, 1.0], [1.0, 9.0], [1.0, 3.0]])])
    assert ordered.tolist() == [[1, 3], [1, 9], [2, 1]]

"""A method and its base: differences of the same seeds, by hand and pooled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baq_cli.envs.scores import Reference
from baq_cli.report.curves import Curve
from baq_cli.report.method_runs import ESTIMATED, Course
from baq_cli.report.paired import against_base
from baq_cli.report.run_facts import RunFacts

COUNTERS = np.array([0, 10, 20])


def course(
    task: str, method: str, recipe: dict[str, Any], scores: Any, seeds: Any = (0, 1)
) -> Course:
    returns = np.array(scores, dtype=np.float64)
    curve = Curve(method, "online", "env_steps", COUNTERS, returns, tuple(seeds))
    run = RunFacts(Path("run"), recipe, {})
    return Course(task, method, {"online": curve}, "return", {}, (run,))


def iql(task: str, scores: Any, **how: Any) -> Course:
    return course(task, "iql", {"algo": "iql", "iql": {}}, scores, **how)


def baq(task: str, scores: Any, **how: Any) -> Course:
    return course(task, "baq", {"algo": "baq", "baq": {"base": "iql"}}, scores, **how)


def test_a_difference_is_of_the_same_seed_on_the_same_task() -> None:
    own = baq("a", [[0, 10, 20], [0, 0, 40]], seeds=(1, 0))
    base = iql("a", [[0, 0, 0], [0, 10, 10]])
    (row,) = against_base([{"baq": own, "iql": base}], ["baq", "iql"])
    # seed 0: final 40 - 0, mean (0 + 20) / 2 - 0; seed 1: final 20 - 10, mean 10 - 7.5
    assert (row["method"], row["base"], row["task"], row["pairs"]) == ("baq", "iql", "a", 2)
    assert row["statistics"]["final"]["value"] == 25
    assert row["statistics"]["online_mean"]["value"] == pytest.approx((10 + 2.5) / 2)
    assert (row["statistics"]["final"]["low"], row["statistics"]["final"]["high"]) == (10, 40)


def test_a_pair_that_differs_by_as_much_everywhere_has_an_interval_of_no_width() -> None:
    scores = np.random.default_rng(0).normal(scale=100, size=(5, 3))  # seeds differ far more
    seeds = range(5)
    task = {"baq": baq("a", scores + 3, seeds=seeds), "iql": iql("a", scores, seeds=seeds)}
    (row,) = against_base([task], ["baq", "iql"])
    for found in row["statistics"].values():
        assert [found[key] for key in ("value", "low", "high")] == pytest.approx([3, 3, 3])


def test_tasks_are_pooled_by_normalised_scores_each_counting_the_same() -> None:
    tasks = []
    for name, expert, more in (("a", 100.0, 10.0), ("b", 1000.0, 50.0)):
        reference = Reference("test", 0.0, expert, "here")
        pair = baq(name, [[0, 0, more]] * 2), iql(name, [[0, 0, 0]] * 2)
        tasks.append({c.method: replace(c, reference=reference) for c in pair})
    *each, pooled = against_base(tasks, ["baq", "iql"])
    assert [row["statistics"]["final"]["value"] for row in each] == [10, 50]
    assert (pooled["task"], pooled["unit"], pooled["pairs"]) == (None, "normalized score", 4)
    assert pooled["statistics"]["final"]["value"] == pytest.approx((10 + 5) / 2)


def set_to(method: str, label: str, final: float, **settings: Any) -> Course:
    """Return a course on task `a` that ends at `final`."""
    scores = [[0, 0, final]] * 2
    return course("a", label, {"algo": method, method: settings}, scores)


def added(*courses: Course) -> dict[str, tuple[str, float]]:
    """Return each method's base, and what it adds to that."""
    task = {c.method: c for c in courses}
    rows = against_base([task], list(task))
    return {row["method"]: (row["base"], row["statistics"]["final"]["value"]) for row in rows}


def test_a_grids_cells_are_held_against_the_base_of_their_own_settings() -> None:
    bases = [set_to("iql", f"iql utd={utd}", 100.0 * utd, utd=utd, critics=2) for utd in (1, 4)]
    methods = [
        set_to("baq", f"baq utd={utd}", 100.0 * utd + 7, base="iql", utd=utd, critics=4)
        for utd in (4, 1)
    ]
    expected = {f"baq utd={utd}": (f"iql utd={utd}", 7.0) for utd in (1, 4)}
    assert added(*methods, *bases) == expected
    assert added(*bases[::-1], *methods) == expected


def test_what_is_the_bases_own_is_compared_with_the_section_of_its_name() -> None:
    bases = [set_to("iql", f"iql beta={beta}", beta, beta=beta) for beta in (3.0, 10.0)]
    method = set_to("baq", "baq", 12.0, base="iql", iql={"beta": 10.0})
    assert added(*bases, method) == {"baq": ("iql beta=10.0", 2.0)}


def test_of_bases_that_may_all_be_it_the_plain_one_is_and_else_none() -> None:
    method = set_to("baq", "baq", 12.0, base="iql", utd=1)
    plain, other = set_to("iql", "iql", 10.0, utd=1, mine=1), set_to("iql", "x", 9.0, utd=1, mine=2)
    assert added(method, other, plain) == {"baq": ("iql", 2.0)}
    third = set_to("iql", "y", 8.0, utd=1, mine=3)
    assert added(method, other, third) == {}
    unlike = [set_to("iql", name, 9.0, utd=utd) for name, utd in (("iql", 2), ("x", 3))]
    assert added(method, *unlike) == {}


def test_settings_that_a_method_and_its_base_have_unlike_are_told() -> None:
    """The difference is the method's alone only where there are none."""
    base = set_to("iql", "iql", 10.0, utd=1, critics=2, beta=3.0, only_here=1)
    own = {"base": "iql", "confidence": "spread", "utd": 1, "beta": 1.0}
    alike = set_to("baq", "alike", 12.0, **own, critics=2, iql={"beta": 3.0})
    unlike = set_to("baq", "unlike", 12.0, **own, critics=4, iql={"beta": 5.0})
    rows = against_base([{c.method: c for c in (base, alike, unlike)}], ["alike", "unlike"])
    assert [row["unlike"] for row in rows] == [[], ["critics", "beta"]]


def test_limits_are_the_bases_too() -> None:
    def limited(method: str, label: str, final: float, **settings: Any) -> Course:
        recipe = {"algo": method, method: settings, "safety": {"max_action_change": [0.1]}}
        return course("a", label, recipe, [[0, 0, final]] * 2)

    bases = [set_to("iql", "free", 10.0), limited("iql", "held", 5.0)]
    methods = [set_to("baq", "b", 11.0, base="iql"), limited("baq", "c", 6.0, base="iql")]
    assert added(*bases, *methods) == {"b": ("free", 1.0), "c": ("held", 1.0)}


def test_a_base_of_other_settings_on_another_task_is_not_pooled() -> None:
    reference = Reference("test", 0.0, 100.0, "here")

    def pair(task: str, label: str) -> dict[str, Course]:
        base = replace(iql(task, [[0, 0, 0]] * 2), method=label)
        found = baq(task, [[0, 0, 5]] * 2), base
        return {c.method: replace(c, reference=reference) for c in found}

    one, same, other = pair("a", "iql"), pair("b", "iql"), pair("b", "iql (utd=4)")
    assert [row["task"] for row in against_base([one, same], ["baq"])] == ["a", "b", None]
    assert [row["task"] for row in against_base([one, other], ["baq"])] == ["a", "b"]


def test_a_method_whose_base_is_set_by_a_grid_is_held_against_that_base() -> None:
    courses = [
        set_to("baq", "baq base=awac", 12.0, base="awac"),
        set_to("baq", "baq base=iql", 15.0, base="iql"),
        set_to("awac", "awac", 10.0),
        set_to("iql", "iql", 11.0),
    ]
    assert added(*courses) == {"baq base=awac": ("awac", 2.0), "baq base=iql": ("iql", 4.0)}


def test_without_its_base_or_a_seed_in_common_a_method_has_no_row() -> None:
    alone = {"baq": baq("a", [[0, 1, 2]] * 2)}
    assert against_base([alone], ["baq"]) == []
    apart = {"baq": baq("a", [[0, 1, 2]] * 2), "iql": iql("a", [[0, 1, 2]] * 2, seeds=(5, 6))}
    assert against_base([apart], ["baq", "iql"]) == []


def test_estimates_of_several_tasks_are_no_reason_to_refuse_a_report() -> None:
    def estimated(found: Course) -> Course:
        curve = replace(found.curves["online"], phase="offline", unit="gradient_steps")
        return replace(found, unit=ESTIMATED, curves={"offline": replace(curve, estimated=True)})

    tasks = [
        {c.method: estimated(c) for c in (baq(name, [[0, 1, 2]] * 2), iql(name, [[0, 0, 0]] * 2))}
        for name in "ab"
    ]
    assert against_base(tasks, ["baq", "iql"]) == []


def test_the_order_in_which_tasks_are_listed_changes_no_bound() -> None:
    rng, tasks = np.random.default_rng(0), []
    for name, seeds in (("a", 4), ("b", 3), ("c", 5)):
        reference = Reference("test", 0.0, 100.0, "here")
        scores = rng.normal(scale=30, size=(2, seeds, 3))
        pair = baq(name, scores[0], seeds=range(seeds)), iql(name, scores[1], seeds=range(seeds))
        tasks.append({c.method: replace(c, reference=reference) for c in pair})
    pooled, reversed_ = (against_base(order, ["baq"])[-1] for order in (tasks, tasks[::-1]))
    assert pooled["task"] is None
    assert pooled == reversed_

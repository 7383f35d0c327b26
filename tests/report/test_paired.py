"""A method and its base: differences of the same seeds, by hand and pooled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baq_cli.envs.scores import Reference
from baq_cli.report.curves import Curve
from baq_cli.report.method_runs import Course
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


def test_without_its_base_or_a_seed_in_common_a_method_has_no_row() -> None:
    alone = {"baq": baq("a", [[0, 1, 2]] * 2)}
    assert against_base([alone], ["baq"]) == []
    apart = {"baq": baq("a", [[0, 1, 2]] * 2), "iql": iql("a", [[0, 1, 2]] * 2, seeds=(5, 6))}
    assert against_base([apart], ["baq", "iql"]) == []

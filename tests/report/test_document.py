"""The one document of a report: what stands in it, and what may not stand beside each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baq_cli.envs.scores import Reference
from baq_cli.errors import UsageError
from baq_cli.report.curves import Curve
from baq_cli.report.document import Failure, ReportInfo, build_document
from baq_cli.report.method_runs import Course
from baq_cli.report.results_csv import write_sheet

REFERENCE = Reference("mine", random=0.0, expert=200.0, source="made up")
DATASET = {"id": "me/arm/monday-v0", "sha256": "ab", "return_mean": 40.0, "return_std": 10.0}


def course(method: str, finals: list[float], task: str = "me/arm/monday-v0") -> Course:
    """Return a course of seeds that start online at 50 and end at `finals`, over 100 env_steps."""
    online = np.array([[50.0, 45.0, 60.0, final] for final in finals])
    curve = Curve(
        method, "online", "env_steps", np.array([0, 25, 50, 100]), online, tuple(range(len(finals)))
    )
    return Course(
        task, method, {"online": curve}, "return", {"env_steps": 100}, dataset=dict(DATASET)
    )


def told(document: dict[str, Any], method: str, statistic: str) -> dict[str, Any]:
    found: dict[str, Any] = document["tasks"][0]["methods"][method]["statistics"][statistic]
    return found


def best_in(document: dict[str, Any]) -> dict[str, list[str]]:
    return {name: m["best_in"] for name, m in document["tasks"][0]["methods"].items()}


HIGH, LOW = [99.0, 98.0, 97.0, 96.0, 95.0], [9.0, 8.0, 7.0, 6.0, 5.0]


def test_best_is_said_only_where_intervals_lie_apart_and_seeds_suffice() -> None:
    document = build_document([course("a", HIGH), course("b", LOW)], ReportInfo())
    assert "final" in best_in(document)["a"]
    assert best_in(document)["b"] == []
    assert "handover" not in best_in(document)["a"], "both are the same there"
    few = build_document([course("a", HIGH[:4]), course("b", LOW[:4])], ReportInfo())
    assert not any(best_in(few).values())
    assert any("indicative" in note for note in few["notes"])
    close = build_document(
        [course("a", HIGH), course("b", [100.0, 90.0, 95.0, 99.0, 80.0])], ReportInfo()
    )
    assert "final" not in best_in(close)["a"]
    alone = build_document([course("a", HIGH)], ReportInfo())
    assert not any(best_in(alone).values())


def test_a_method_that_never_arrives_is_no_reason_to_call_another_best() -> None:
    """A mean over the seeds that arrived would hide the others."""
    document = build_document([course("a", HIGH), course("b", LOW)], ReportInfo(threshold=90.0))
    reached = told(document, "a", "env_steps_to_threshold")
    assert (reached["mean"], reached["count"], reached["never"]) == (100, 5, 0)
    missed = told(document, "b", "env_steps_to_threshold")
    assert (missed["mean"], missed["count"], missed["never"]) == (None, 0, 5)
    assert "env_steps_to_threshold" not in best_in(document)["a"]


def test_goals_come_from_the_reference_and_the_data() -> None:
    one = replace(course("a", HIGH), reference=REFERENCE)
    (task,) = build_document([one], ReportInfo())["tasks"]
    assert (task["optimum"], task["threshold"]) == (200, 50)
    (task,) = build_document([course("a", HIGH), course("b", LOW)], ReportInfo(threshold=7.5))[
        "tasks"
    ]
    assert (task["optimum"], task["threshold"]) == (97, 7.5), "the best mean at the end"
    area = 25 * (50 + 45) / 2 + 25 * (45 + 60) / 2 + 50 * (60 + 97) / 2
    mean_regret = task["methods"]["a"]["statistics"]["regret"]["mean"]
    assert mean_regret == pytest.approx(97 * 100 - area)


def test_normalised_curves_bring_own_runs_into_their_unit() -> None:
    own = replace(course("own", HIGH), reference=REFERENCE)
    file = replace(course("theirs", LOW), unit="normalized score", dataset=None)
    (task,) = build_document([own, file], ReportInfo())["tasks"]
    assert task["unit"] == "normalized score"
    assert task["methods"]["own"]["statistics"]["final"]["mean"] == pytest.approx(48.5)
    assert task["methods"]["theirs"]["statistics"]["final"]["mean"] == pytest.approx(7)
    assert task["dataset"]["return_mean"] == 20
    with pytest.raises(UsageError, match="reference"):
        build_document([course("own", HIGH), file], ReportInfo())


def test_tasks_are_brought_together_only_by_references() -> None:
    here, there = course("a", HIGH), course("a", LOW, task="me/leg/walk-v0")
    document = build_document([here, there], ReportInfo())
    assert document["aggregates"] is None
    assert any("reference" in note for note in document["notes"])
    known = [replace(one, reference=REFERENCE) for one in (here, there)]
    aggregates = build_document(known, ReportInfo())["aggregates"]
    assert aggregates["unit"] == "normalized score"
    assert aggregates["methods"]["a"]["mean"]["value"] == pytest.approx((48.5 + 3.5) / 2)
    alone = build_document([here], ReportInfo())["aggregates"]
    assert alone["unit"] == "return"
    assert alone["methods"]["a"]["optimality_gap"] is None, "no target in raw returns"


def test_what_happened_on_the_way_is_pooled_over_tasks() -> None:
    tasks = ("me/arm/monday-v0", "me/leg/walk-v0")
    known = [
        replace(course(method, finals, task), reference=REFERENCE)
        for task in tasks
        for method, finals in (("a", HIGH), ("b", LOW))
    ]
    found = build_document(known, ReportInfo())["aggregates"]["on_the_way"]
    # Online: 25 steps from 50 to 45, 25 from 45 to 60, 50 from 60 to the end; 0 to 200 is 0 to 100.
    means = np.array([25 * 47.5 + 25 * 52.5 + 50 * (60 + final) / 2 for final in HIGH]) / 100 / 2
    middle = np.sort(np.tile(means, 2))[2:-2].mean()
    assert found["methods"]["a"]["online_mean"]["value"] == pytest.approx(middle, rel=1e-5)
    assert found["methods"]["a"]["dip_percent"]["value"] == pytest.approx(100 * 5 / 50)
    won = {(pair["x"], pair["y"]): pair["value"] for pair in found["improvement"]}
    assert won == {("a", "b"): 1.0, ("b", "a"): 0.0}
    alone = build_document([course("a", HIGH)], ReportInfo())["aggregates"]["on_the_way"]
    assert alone["methods"]["a"]["dip_percent"] is None, "returns have no zero to take a share of"


def test_what_one_comparison_lacks_and_another_has_is_not_missing() -> None:
    courses = [course("a", HIGH), course("b", LOW)]
    lacks = [Failure("me/arm/monday-v0", name, "not started") for name in ("b", "c")]
    elsewhere = Failure("me/leg/walk-v0", "a", "not started")
    document = build_document(courses, ReportInfo(failures=(*lacks, elsewhere)))
    told = [(of["task"], of["method"]) for of in document["failures"]]
    assert told == [("me/arm/monday-v0", "c"), ("me/leg/walk-v0", "a")]


def test_seeds_that_one_comparison_lacks_are_missing_unless_another_has_them() -> None:
    lacks = [Failure("me/arm/monday-v0", "a", "diverged", seeds) for seeds in ((5, 6), (0, 1))]
    document = build_document([course("a", HIGH)], ReportInfo(failures=tuple(lacks)))
    assert [of["seeds"] for of in document["failures"]] == [[5, 6]], "0 to 4 are there"
    half = Failure("me/arm/monday-v0", "a", "diverged", (4, 5))
    assert build_document([course("a", HIGH)], ReportInfo(failures=(half,)))["failures"]


def test_runs_without_a_score_to_fall_from_have_no_dip_in_per_cent_and_are_counted() -> None:
    nothing = replace(REFERENCE, random=50.0)  # so that the hand-over is a score of 0
    first = replace(course("a", HIGH, "me/arm/monday-v0"), reference=nothing)
    second = replace(course("a", HIGH, "me/leg/walk-v0"), reference=REFERENCE)
    document = build_document([first, second], ReportInfo())
    found = document["aggregates"]["on_the_way"]["methods"]["a"]["dip_percent"]
    assert found["value"] == pytest.approx(100 * 5 / 50), "of the task that falls by a tenth"
    assert any(f"percentage: {len(HIGH)} runs; the" in note for note in document["notes"])
    none = build_document([replace(first, task="b"), first], ReportInfo())["aggregates"]
    assert none["on_the_way"]["methods"]["a"]["dip_percent"] is None


def test_runs_without_an_evaluation_at_the_hand_over_are_counted_beside_others() -> None:
    first, second = (
        replace(course("a", HIGH, task), reference=REFERENCE)
        for task in ("me/arm/monday-v0", "me/leg/walk-v0")
    )
    whole = second.curves["online"]
    later = replace(whole, counters=whole.counters[1:], returns=whole.returns[:, 1:])
    document = build_document([first, replace(second, curves={"online": later})], ReportInfo())
    said = f"a: without an evaluation at the hand-over, or after it: {len(HIGH)} runs"
    assert any(said in note for note in document["notes"])
    assert not any(
        "without an evaluation at" in n for n in build_document([first], ReportInfo())["notes"]
    )


@pytest.mark.parametrize("field", ["env_steps", "evaluation.episodes", "dataset's sha256"])
def test_what_differs_is_not_compared_and_is_named(field: str) -> None:
    one = replace(course("a", HIGH), protocol={field: 1})
    other = replace(course("b", LOW), protocol={field: 2})
    with pytest.raises(UsageError, match=f"'a' and 'b' can't be compared: {field} is 1 and 2"):
        build_document([one, other], ReportInfo())
    apart = replace(other, task="me/leg/walk-v0")
    build_document([one, apart], ReportInfo())
    with pytest.raises(UsageError, match="two courses are called 'a'"):
        build_document([one, replace(other, method="a")], ReportInfo())


def test_methods_stand_as_they_were_asked_for_and_what_is_missing_is_said() -> None:
    failure = Failure("me/arm/monday-v0", "c", "out of luck")
    asked = ReportInfo(order=("b", "c", "a", "b"), failures=(failure,))  # a name for each task
    document = build_document([course("a", HIGH), course("b", LOW)], asked)
    assert document["methods"] == ["b", "a"]
    assert document["failures"] == [
        {"task": "me/arm/monday-v0", "method": "c", "error": "out of luck", "seeds": []}
    ]


@pytest.mark.parametrize("at", [1_234_567, 123_456_789, 2**53 - 1])
def test_steps_are_given_to_the_last_digit(at: int) -> None:
    curve = Curve("a", "online", "env_steps", np.array([0, 9, at]), np.array([[9.0, 1, 9]]), (0,))
    one = replace(course("a", [1.0]), curves={"online": curve}, protocol={})
    document = build_document([one], ReportInfo(threshold=0.5))
    assert told(document, "a", "dip_env_steps")["per_seed"] == [at]
    assert told(document, "a", "dip_env_steps")["mean"] == at
    assert document["aggregates"]["efficiency"]["x"][-1] == at


def test_the_document_is_json_without_nan_and_the_sheet_says_the_same(tmp_path: Path) -> None:
    document = build_document([course("a", HIGH), course("b", [1.0])], ReportInfo())
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    write_sheet(document, [], ReportInfo(), tmp_path / "results.csv")
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 5 + 1, "a row a seed"

"""What a task's returns are measured against is the same for all of its methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import permutations
from typing import Any

import pytest

from baq_cli.envs.scores import Reference
from baq_cli.report.document import ReportInfo, build_document
from baq_cli.report.method_runs import Course
from support.courses import DATASET, run_of

OWN = Reference("me/arm/monday-v0", random=0.0, expert=200.0, source="measured")
OF_ENVIRONMENT = Reference("baq Pendulum-v1", random=-1302.79, expert=-154.39, source="measured")
TASKS = ("me/arm/monday-v0", "me/leg/walk-v0")
FINALS = [70.0, 71.0]
"""The last scores of seeds 0 and 1 of `run_of`."""


def with_data(method: str, task: str, own: Reference | None, ended: str = "2026-01-01") -> Course:
    """Return a course that opened a dataset, whose own reference is `own`."""
    data = DATASET | {"reference": None if own is None else asdict(own)}
    course = run_of(f"{task}/{method}", [0, 1], task=task, method=method)
    course.runs[0].manifest.update(dataset=data, ended=ended)
    return replace(course, dataset=data, reference=own or OF_ENVIRONMENT)


def without_data(task: str, reference: Reference | None = OF_ENVIRONMENT) -> Course:
    """Return a course of a method that opens no dataset."""
    course = run_of(f"{task}/sac", [0, 1], task=task, method="sac")
    course.runs[0].manifest.update(dataset=None)
    return replace(course, dataset=None, reference=reference)


def means(courses: Sequence[Course]) -> dict[str, float]:
    found = build_document(courses, ReportInfo())["aggregates"]
    return {method: numbers["mean"]["value"] for method, numbers in found["methods"].items()}


@pytest.mark.parametrize("known", [OF_ENVIRONMENT, None])
def test_equal_returns_have_equal_scores_with_or_without_a_dataset(known: Reference | None) -> None:
    """A method that opens none is measured against the dataset's reference, as the others are."""
    courses = [
        course
        for task in TASKS
        for course in (with_data("awac", task, OWN), without_data(task, known))
    ]
    expected = OWN.normalize(sum(FINALS) / 2)
    for order in (courses, courses[::-1]):
        assert means(order) == pytest.approx({"awac": expected, "sac": expected})
        document = build_document(order, ReportInfo())
        assert all(task["reference"] == asdict(OWN) for task in document["tasks"])
        assert {pair["value"] for pair in document["aggregates"]["improvement"]} == {0.5}


def test_a_reference_that_one_run_knows_holds_for_earlier_runs_of_the_task() -> None:
    courses = [
        course
        for task in TASKS
        for course in (with_data("a", task, None), with_data("b", task, OWN, "2026-02-01"))
    ]
    assert means(courses) == pytest.approx(dict.fromkeys("ab", OWN.normalize(70.5)))


def test_of_references_measured_anew_the_later_one_holds_and_that_is_said() -> None:
    later = replace(OWN, expert=100.0)
    courses = [
        with_data("a", TASKS[0], OWN),
        with_data("b", TASKS[0], later, "2026-02-01"),
        with_data("c", TASKS[1], OWN),
    ]
    for order in permutations(courses):
        document: dict[str, Any] = build_document(order, ReportInfo())
        found = {task["name"]: task["reference"] for task in document["tasks"]}
        assert found == {TASKS[0]: asdict(later), TASKS[1]: asdict(OWN)}
        (note,) = [note for note in document["notes"] if "measured anew" in note]
        assert note.startswith(TASKS[0])
        assert "expert 100" in note
        assert "0 and 200" in note

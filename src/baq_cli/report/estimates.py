"""Estimates without an environment, beside what was measured, named for what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from baq_cli.report.method_runs import Course
from baq_cli.report.summary import Statistic

NAME = "estimate"
ABOUT = {
    "heading": "estimate (fitted Q)",
    "unit": "discounted return",
    "better": "higher",
    "definition": "No measurement: what fitted Q evaluation says of the pre-trained policies from "
    "the dataset alone, as the discounted return from the starts of its episodes.",
}


def are_there(courses: Sequence[Course]) -> bool:
    """Tell whether anything was estimated of any course."""
    return any(run.estimate for course in courses for run in course.runs)


def estimated(course: Course) -> Statistic:
    """Return the estimates of a course's pre-trained policies by seed, NaN where there is none."""
    known: Mapping[int, float] = {s: v for run in course.runs for s, v in run.estimate.items()}
    return Statistic(np.array([known.get(seed, math.nan) for seed in course.seeds]))


def note(courses: Sequence[Course]) -> list[str]:
    """Return what is to be said of estimates before they are read."""
    said = (
        f"The column '{ABOUT['heading']}' holds estimates from the dataset, discounted: compare "
        "them with each other, not with the returns beside them."
    )
    return [said] if are_there(courses) else []


def about(courses: Sequence[Course]) -> dict[str, Any]:
    """Return what a document says of the statistic, where it is there."""
    return {NAME: dict(ABOUT)} if are_there(courses) else {}

"""Estimates without an environment, beside what was measured: read, and named for what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from baq_cli.report.summary import Statistic
from baq_cli.runs.checked import Checked, Count, check_content
from baq_cli.runs.files import read_json
from baq_cli.runs.folder import ESTIMATE
from baq_cli.runs.log import MOST_SCORE
from baq_cli.units import Phase

if TYPE_CHECKING:
    from baq_cli.report.method_runs import Course

NAME = "estimate"
ABOUT = {
    "heading": "estimate (fitted Q)",
    "unit": "discounted return",
    "better": "higher",
    "definition": "No measurement: what fitted Q evaluation says of the pre-trained policies from "
    "the dataset alone, as the discounted return from the starts of its episodes.",
}


class _Value(Checked):
    value: float = Field(ge=-MOST_SCORE, le=MOST_SCORE)


class _Values(Checked):
    seeds: list[_Value]


class _Estimate(Checked):
    """Everything that a report takes from an estimate."""

    kind: Literal["estimate"] = Field(alias="is")
    phase: Phase
    seeds: list[Count]
    estimate: _Values


def read_estimate(run: Path) -> dict[int, float]:
    """Return what is estimated of a run's pre-trained policies, by seed; nothing without that.

    Raises DataError when it is damaged.
    """
    file = run / ESTIMATE
    if not file.exists():
        return {}
    found = read_json(file)
    check_content(_Estimate, found, file)
    if found["phase"] != "offline":
        return {}
    values = (of_seed["value"] for of_seed in found["estimate"]["seeds"])
    return dict(zip(found["seeds"], values, strict=False))


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

"""A method that is built on another, held against it: the same seeds, pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from baq_cli.bootstrap import interval
from baq_cli.report.aggregates import mean
from baq_cli.report.curves import Array, Curve
from baq_cli.report.definitions import final_score, online_mean
from baq_cli.report.joining import LIMITS, differing_in, setting_of
from baq_cli.report.method_runs import Course

STATISTICS: Mapping[str, Callable[[Curve], Array]] = {
    "online_mean": online_mean,
    "final": final_score,
}
Tasks = Sequence[Mapping[str, Course]]


def against_base(tasks: Tasks, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Return what each method that has a base adds to it, a row a task and one over several.

    A row has the mean over pairs of the method's statistic minus its base's, of the same seed on
    the same task, with a bootstrap interval over pairs (stratified by task). `task` is None in a
    row over all tasks that both have, which is in normalised scores; it is left out where a task
    has no reference, or another base. `unlike` holds the settings in which the two differ beside
    what makes the method: where there are any, the difference isn't the method's alone.
    """
    rows: list[dict[str, Any]] = []
    for method in methods:
        found = [(task[method], base) for task in tasks if (base := _base_of(method, task))]
        rows += [_row(course.task, [(course, base)]) for course, base in found]
        if len(found) > 1 and _can_pool(found):
            in_order = sorted(found, key=lambda pair: pair[0].task)  # resamples are drawn by task
            rows.append(_row(None, [(c.normalized(), b.normalized()) for c, b in in_order]))
    return [row for row in rows if row["pairs"]]


def _can_pool(pairs: Sequence[tuple[Course, Course]]) -> bool:
    same = len({base.method for _, base in pairs}) == 1
    return same and all(c.can_be_normalized for pair in pairs for c in pair)


def _base_name(course: Course) -> str | None:
    """Return the algorithm that a course's method is built on, by its recipe."""
    if not course.runs:
        return None
    recipe = course.runs[-1].recipe
    base = recipe[recipe["algo"]].get("base")
    return base if isinstance(base, str) else None


def _base_of(method: str, task: Mapping[str, Course]) -> Course | None:
    """Return the course of a method's base on a task, None where several may be it.

    Of several it is the one with the method's settings, else that of its plain name among those.
    """
    if method not in task or (base := _base_name(task[method])) is None:
        return None
    found = [c for c in task.values() if c.runs and c.runs[-1].recipe["algo"] == base]
    if len(found) > 1:
        found = _set_alike(task[method], base, found)
    if len(found) > 1:
        found = [course for course in found if course.method == base]
    return found[0] if found else None


def _set_alike(course: Course, base: str, bases: Sequence[Course]) -> list[Course]:
    """Return the courses of a base that are set as a course is, of what they are set unlike in.

    Keys that the course hasn't say nothing; limits that it hasn't are none. What is the base's own
    it has in a section of the base's name.
    """
    asked = _as_of_base(course, base, differing_in(bases))
    known = {key for key, value in asked.items() if value is not None or key.startswith(LIMITS)}
    return [each for each in bases if all(setting_of(each).get(key) == asked[key] for key in known)]


def _as_of_base(course: Course, base: str, keys: Iterable[str]) -> dict[str, str | None]:
    """Return a course's values of its base's settings: those in the base's section come first."""
    own = setting_of(course)
    return {key: own.get(f"{base}.{key}", own.get(key)) for key in keys}


def _set_unlike(course: Course, base: Course) -> list[str]:
    """Return the settings of a base that a course has too, at other values."""
    theirs = setting_of(base)
    asked = _as_of_base(course, base.runs[-1].recipe["algo"], theirs)
    return [key for key, value in asked.items() if value not in (None, theirs[key])]


def _row(task: str | None, pairs: Sequence[tuple[Course, Course]]) -> dict[str, Any]:
    course, base = pairs[0]
    strata = {
        name: [found for pair in pairs if len(found := _differences(statistic, *pair))]
        for name, statistic in STATISTICS.items()
    }
    return {
        "method": course.method,
        "base": base.method,
        "task": task,
        "unit": course.unit,
        "pairs": sum(map(len, strata["final"])),
        "unlike": list(dict.fromkeys(key for pair in pairs for key in _set_unlike(*pair))),
        "statistics": {
            name: asdict(interval(found, mean)) for name, found in strata.items() if found
        },
    }


def _differences(statistic: Callable[[Curve], Array], course: Course, base: Course) -> Array:
    """Return the differences of the seeds that both have, `[n]`; none without an online phase."""
    if not all("online" in each.curves for each in (course, base)):
        return np.empty(0)
    own, other = (_by_seed(statistic, each.curves["online"]) for each in (course, base))
    return np.array([own[seed] - other[seed] for seed in own if seed in other], dtype=np.float64)


def _by_seed(statistic: Callable[[Curve], Array], curve: Curve) -> dict[int, float]:
    return dict(zip(curve.seeds, statistic(curve).tolist(), strict=True))

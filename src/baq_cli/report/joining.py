"""Runs of one method on one task: those with other seeds joined, those of other settings named.

Neither the courses nor their numbers depend on the order in which runs were named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from baq_cli.errors import UsageError, clipped
from baq_cli.recipes.load import FREE_ON_RESUME
from baq_cli.report.curves import Curve
from baq_cli.report.differences import settings_of, text_of
from baq_cli.report.method_runs import Course
from baq_cli.report.notes import not_of_every_seed
from baq_cli.report.protocol import check_same_protocol

LIMITS = "safety"
NO_SETTING = frozenset({*FREE_ON_RESUME, "capture", "acting"} - {LIMITS})
"""A run's keys that change neither what is learned nor what is measured, or that the protocol has
already: runs that differ in these alone are of one setting. Limits may change on a resume, and
change what is done."""


@dataclass(frozen=True)
class Found:
    """A course as it was found, and whether its name was given by hand."""

    course: Course
    by_hand: bool = False


def join(found: Sequence[Found]) -> tuple[list[Course], dict[str, list[str]]]:
    """Return the courses that runs make together, and the names that each name became.

    Courses of one task and name are one where their settings are: their seeds are put together.
    Others get the settings in which they differ behind their name, `iql (expectile=0.9)`, unless
    that was given by hand.
    Raises UsageError for what can't be one: another protocol, the same seed twice, evaluations that
    begin or end elsewhere, or other settings under a name given by hand.
    """
    named = _named_apart(found)
    groups: dict[tuple[str, str], list[Course]] = {}
    became: dict[str, list[str]] = {}
    for before, course in zip(found, named, strict=True):
        groups.setdefault((course.task, course.method), []).append(course)
        names = became.setdefault(before.course.method, [])
        if course.method not in names:
            names.append(course.method)
    return [_joined(group) for group in groups.values()], became


# -- names


def _named_apart(found: Sequence[Found]) -> list[Course]:
    """Return the courses under names that no two settings share."""
    groups: dict[tuple[str, str], list[Found]] = {}
    for each in found:
        if each.course.runs:
            groups.setdefault((each.course.task, each.course.method), []).append(each)
    differing: dict[str, list[str]] = {}
    for (task, name), group in groups.items():
        check_same_protocol(task, {_where(each.course): each.course.protocol for each in group})
        keys = differing.setdefault(name, [])
        keys += [key for key in differing_in(e.course for e in group) if key not in keys]
        _check_by_hand(name, [each.course for each in group if each.by_hand])
    return [_renamed(each, differing.get(each.course.method, ())) for each in found]


def _renamed(found: Found, keys: Iterable[str]) -> Course:
    """Return a course with its values of some keys behind its name, unless that is fixed."""
    course = found.course
    if found.by_hand or not course.runs or not keys:
        return course
    settings = setting_of(course)
    values = ", ".join(f"{key}={settings.get(key, 'not set')}" for key in sorted(keys))
    name = f"{course.method} ({values})"
    curves = {phase: replace(curve, label=name) for phase, curve in course.curves.items()}
    return replace(course, method=name, curves=curves)


def setting_of(course: Course) -> dict[str, str]:
    """Return what decides how a course's last run learns, as text, by key."""
    found = {}
    for key, value in settings_of(course.runs[-1].recipe).items():
        section = key.split(".")[0]
        no_limit = section == LIMITS and value is None
        if section not in NO_SETTING and not no_limit:
            found[key] = text_of(value)
    return found


def differing_in(courses: Iterable[Course]) -> list[str]:
    """Return the keys of settings in which courses differ."""
    every = [setting_of(course) for course in courses]
    keys = dict.fromkeys(key for settings in every for key in settings)
    return [key for key in keys if len({settings.get(key) for settings in every}) > 1]


def _check_by_hand(name: str, courses: Sequence[Course]) -> None:
    """Raise UsageError where a name given by hand is given to several settings."""
    for key in differing_in(courses)[:1]:
        values = {setting_of(course).get(key, "not set"): course for course in courses}
        (one, first), (other, second) = list(values.items())[:2]
        raise UsageError(
            f"'{clipped(name)}' names two settings: {key} is {clipped(one)} in {_where(first)} and "
            f"{clipped(other)} in {_where(second)}. Give them names of their own, or none: then "
            "they are named by what differs."
        )


# -- seeds


def _joined(courses: Sequence[Course]) -> Course:
    """Return the course that courses of one name make, their seeds in rising order."""
    if len(courses) == 1:
        return courses[0]
    _check_runs(courses)
    courses = sorted(courses, key=lambda course: (sorted(course.seeds), _where(course)))
    first = courses[0]
    name = f"{first.task}: '{clipped(first.method)}'"
    _check_seeds(name, courses)
    curves, notes = {}, []
    for phase in first.curves:
        parts = [course.curves[phase] for course in courses]
        curves[phase], left_out = _one_curve(name, [_where(course) for course in courses], parts)
        if left_out:
            notes.append(not_of_every_seed(first.task, first.method, phase, left_out))
    return replace(
        first,
        curves=curves,
        runs=tuple(run for course in courses for run in course.runs),
        reference=next((c.reference for c in courses if c.reference is not None), None),
        notes=tuple(dict.fromkeys([*(n for course in courses for n in course.notes), *notes])),
    )


def _check_runs(courses: Sequence[Course]) -> None:
    """Raise UsageError where a course from a file has the name of another one."""
    if all(course.runs for course in courses):
        return
    first = courses[0]
    raise UsageError(
        f"{first.task}: two courses are called '{clipped(first.method)}', and one of them is from "
        "a file of curves: rename it there (column algo), or a run by NAME=RUN"
    )


def _check_seeds(name: str, courses: Sequence[Course]) -> None:
    """Raise UsageError where courses share a seed, or not all have the same phases."""
    known: dict[int, Course] = {}
    for course in courses:
        for seed in course.seeds:
            if seed in known:
                other = known[seed]
                raise UsageError(
                    f"{name} has seed {seed} twice, in {_where(other)} and in {_where(course)}: "
                    f"{_advice(other, course)}"
                )
        known |= dict.fromkeys(course.seeds, course)
    phases = {tuple(sorted(course.curves)): course for course in courses}
    if len(phases) > 1:
        (some, one), (others, other) = list(phases.items())[:2]
        raise UsageError(
            f"{name} has evaluations {' and '.join(some) or 'of no phase'} in {_where(one)}, and "
            f"{' and '.join(others) or 'of no phase'} in {_where(other)}, so their seeds can't be "
            f"put together: report runs of the same phases, or name one by NAME=RUN."
        )


def _advice(one: Course, other: Course) -> str:
    if _where(one) == _where(other):
        return "name it once."
    fewer, more = sorted((one, other), key=lambda course: len(course.curves))
    if len(fewer.curves) < len(more.curves):
        return f"{_where(more)} shows its offline part too, so leave {_where(fewer)} out."
    return f"leave one out, or name it, NAME={_where(other)}, to have both."


def _one_curve(name: str, where: Sequence[str], parts: Sequence[Curve]) -> tuple[Curve, int]:
    """Return the curve of all seeds at the evaluations that all have, and how many are left out.

    Raises UsageError where a part begins or ends at another evaluation.
    """
    first = parts[0]
    for part, folder in zip(parts, where, strict=True):
        for what, at in (("begin", 0), ("end", -1)):
            if part.counters[at] != first.counters[at]:
                raise UsageError(
                    f"{name}: the {part.phase} evaluations {what} at {first.counters[at]:,} "
                    f"{part.unit} in {where[0]} and at {part.counters[at]:,} in {folder}, so their "
                    "seeds can't be put together: name one by NAME=RUN to see both."
                )
    shared = sorted(set.intersection(*(set(part.counters.tolist()) for part in parts)))
    every = set.union(*(set(part.counters.tolist()) for part in parts))
    returns = np.concatenate([part.returns[:, np.isin(part.counters, shared)] for part in parts])
    seeds = [seed for part in parts for seed in part.seeds]
    order = np.argsort(seeds)
    curve = replace(
        first,
        counters=np.asarray(shared, dtype=np.int64),
        returns=returns[order],
        seeds=tuple(seeds[i] for i in order),
    )
    return curve, len(every) - len(shared)


def _where(course: Course) -> str:
    return course.runs[-1].folder.as_posix() if course.runs else "a file of curves"

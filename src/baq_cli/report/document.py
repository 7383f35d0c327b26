"""The one document that every rendering of a report shows; results.json is this, written out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from baq_cli import __version__
from baq_cli.envs.scores import Reference
from baq_cli.errors import UsageError
from baq_cli.report import estimates
from baq_cli.report.across import across_tasks
from baq_cli.report.curves import Curve
from baq_cli.report.definitions import DEFINITIONS, UNKNOWN, Goals
from baq_cli.report.differences import recipe_differences
from baq_cli.report.method_runs import ESTIMATED, Course, environment_name
from baq_cli.report.notes import notes_on
from baq_cli.report.paired import against_base
from baq_cli.report.protocol import check_same_protocol
from baq_cli.report.references import disagreement, with_one_reference
from baq_cli.report.summary import Statistic, mean_over_seeds, summarise
from baq_cli.runs.provenance import now

DIGITS = 6
"""Significant digits of every number that isn't whole: more than any evaluation has."""
MOST_WHOLE = 2**53
"""Below it a float that is whole is a count to the last digit, as of steps."""
ENOUGH_SEEDS = 5
NORMALIZED_OPTIMUM, NORMALIZED_THRESHOLD = 100.0, 90.0

Document = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """A course that is missing, of which seeds where that is known, and why."""

    task: str
    method: str
    error: str
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class ReportInfo:
    """What a report says beside its numbers."""

    title: str = "Offline to online"
    commands: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    threshold: float | None = None
    order: tuple[str, ...] = field(default=())
    """Methods in the order they were asked for; others follow."""
    notes: tuple[str, ...] = ()
    """What is to be said of the report itself, before anything else."""


def build_document(courses: Sequence[Course], told: ReportInfo) -> Document:
    """Return the document of courses, by task and method.

    Raises UsageError for courses that can't be compared: two of one method on a task, another
    protocol, or scores whose units can't be brought together.
    """
    by_task: dict[str, dict[str, Course]] = {}
    for course in courses:
        of_task = by_task.setdefault(course.task, {})
        if course.method in of_task:
            raise UsageError(
                f"{course.task}: two courses are called '{course.method}': rename one of them"
            )
        of_task[course.method] = course
    for task, of_task in by_task.items():
        check_same_protocol(task, {name: course.protocol for name, course in of_task.items()})
    in_one_unit = [_in_one_unit(with_one_reference(of_task)) for of_task in by_task.values()]
    present = list(dict.fromkeys(name for of_task in in_one_unit for name in of_task))
    first = [name for name in dict.fromkeys(told.order) if name in present]
    methods = [*first, *(name for name in present if name not in first)]
    aggregates, notes = across_tasks(in_one_unit, methods)
    notes += [said for of_task in by_task.values() for said in disagreement(of_task)]
    document = {
        "title": told.title,
        "made": {"baq": __version__, "at": now()},
        "commands": list(told.commands),
        "methods": methods,
        "statistics": {
            name: {
                "heading": definition.heading,
                "unit": definition.unit,
                "better": definition.better,
                "definition": definition.text,
            }
            for name, definition in DEFINITIONS.items()
        }
        | estimates.about(courses),
        "tasks": [
            _task(dict(sorted(of_task.items())), methods, told.threshold) for of_task in in_one_unit
        ],
        "aggregates": aggregates,
        "against_base": against_base(in_one_unit, methods),
        "failures": [asdict(each) for each in told.failures if _is_missing(each, by_task)],
        "recipes": [row for of_task in in_one_unit for row in recipe_differences(of_task)],
        "runs": [_run(course, i) for course in courses for i in range(len(course.runs))],
        "notes": [*told.notes, *notes_on(courses, ENOUGH_SEEDS), *notes, *estimates.note(courses)],
    }
    rounded: Document = _plain(document)
    return rounded


def _is_missing(failure: Failure, by_task: Mapping[str, Mapping[str, Course]]) -> bool:
    """Return whether no other comparison has what is missing in one."""
    course = by_task.get(failure.task, {}).get(failure.method)
    return course is None or not {*failure.seeds} <= {*course.seeds}


# -- a task


def _in_one_unit(courses: dict[str, Course]) -> dict[str, Course]:
    """Return a task's courses in raw returns, or all normalised where a file gives only that."""
    if len({course.unit for course in courses.values()}) == 1:
        return courses
    return {name: course.normalized() for name, course in courses.items()}


def _task(courses: dict[str, Course], methods: Sequence[str], threshold: float | None) -> Document:
    first, reference = next(iter(courses.values())), _reference(courses)
    known = [c for c in courses.values() if c.dataset is not None] or [first]
    dataset, unit = known[0].dataset, first.unit
    goals = _goals(courses, threshold)
    entries = {name: _entry(courses[name], goals) for name in methods if name in courses}
    _mark_best(entries)
    if estimates.are_there([*courses.values()]):
        for name, entry in entries.items():
            found = estimates.estimated(courses[name])
            entry["statistics"][estimates.NAME] = _statistic(found)
    environment = next((c.environment for c in courses.values() if c.environment), None)
    return {
        "name": first.task,
        "environment": environment_name(environment),
        "unit": unit,
        "reference": None if reference is None else asdict(reference),
        "dataset": _normalized(known[0]) if dataset and unit == "normalized score" else dataset,
        "threshold": goals.threshold,
        "optimum": goals.optimum,
        "protocol": _protocol(courses),
        "methods": entries,
    }


def _normalized(course: Course) -> dict[str, Any] | None:
    """Return a dataset's facts with its mean return in normalised units."""
    assert course.dataset is not None
    if course.reference is None:
        return course.dataset
    mean, std = course.dataset["return_mean"], course.dataset["return_std"]
    return course.dataset | {
        "return_mean": course.reference.normalize(mean),
        "return_std": course.reference.scale(std),
    }


def _reference(courses: dict[str, Course]) -> Reference | None:
    """Return what a task's returns are measured against; files of curves don't say."""
    return next((c.reference for c in courses.values() if c.reference is not None), None)


def _goals(courses: dict[str, Course], threshold: float | None) -> Goals:
    """Return what a task's scores are measured against.

    The optimum is the reference's expert; without one, the best final mean of any method here.
    The threshold, unless given, is the dataset's mean plus one standard deviation over its
    episodes; without a dataset, 90 of a normalised score.
    """
    first = next(iter(courses.values()))
    if first.unit == ESTIMATED:
        return UNKNOWN  # all of it is counted online
    normalized, reference = first.unit == "normalized score", _reference(courses)
    optimum = NORMALIZED_OPTIMUM if normalized else math.nan
    if not normalized and reference is not None:
        optimum = reference.expert
    if math.isnan(optimum):
        curves = [c.curves["online"] for c in courses.values() if "online" in c.curves]
        finals = [float(mean_over_seeds(curve.returns[:, -1])) for curve in curves]
        optimum = max(finals, default=math.nan)
    data = next((c for c in courses.values() if c.dataset is not None), None)
    if threshold is not None:
        return Goals(optimum, threshold)
    if data is not None:
        facts = _normalized(data) if normalized else data.dataset
        assert facts is not None
        return Goals(optimum, facts["return_mean"] + facts["return_std"])
    return Goals(optimum, NORMALIZED_THRESHOLD if normalized else math.nan)


def _protocol(courses: dict[str, Course]) -> Document:
    fields = {key: value for c in courses.values() for key, value in c.protocol.items()}
    return {
        "gradient_steps": fields.get("gradient_steps"),
        "env_steps": fields.get("env_steps"),
        "evaluation_episodes": fields.get("evaluation.episodes"),
        "estimate": fields.get("estimate"),
        "environment": fields.get("environment"),
        "steps_known": all(course.steps_known for course in courses.values()),
    }


# -- a method on a task


def _entry(course: Course, goals: Goals) -> Document:
    summary = summarise(course.method, course.curves, course.task, None, goals)
    return {
        "source": "run" if course.runs else "published" if course.published else "file",
        "seeds": list(course.seeds),
        "curves": {phase: _curve(curve) for phase, curve in course.curves.items()},
        "statistics": {name: _statistic(value) for name, value in summary.statistics.items()},
        "best_in": [],
    }


def _curve(curve: Curve) -> Document:
    counters, scores = curve.counters.tolist(), curve.returns.tolist()
    return {"unit": curve.unit, "counters": counters, "scores": scores}


def _statistic(found: Statistic) -> Document:
    never = int(found.never.sum())
    return {
        "per_seed": found.values.tolist(),
        "mean": found.mean,
        "std": found.std,
        "count": found.count - never,
        "never": never,
        "low": found.low,
        "high": found.high,
    }


def _mark_best(entries: dict[str, Document]) -> None:
    """Mark a method as best where its interval lies apart from every other's.

    Intervals of fewer than five seeds are too narrow to say so.
    """
    if len(entries) < 2:
        return
    for name, definition in DEFINITIONS.items():
        sign = 1 if definition.better == "higher" else -1
        found = {method: entry["statistics"][name] for method, entry in entries.items()}
        known = {m: s for m, s in found.items() if s["count"] >= ENOUGH_SEEDS and not s["never"]}
        if not known or len(known) < sum(1 for s in found.values() if s["count"] or s["never"]):
            continue
        best = max(known, key=lambda method: sign * known[method]["mean"])
        ends = ("low", "high") if sign > 0 else ("high", "low")
        others = [sign * s[ends[1]] for method, s in known.items() if method != best]
        if others and sign * known[best][ends[0]] > max(others):
            entries[best]["best_in"].append(name)


# -- beside the numbers


def _run(course: Course, index: int) -> Document:
    run = course.runs[index]
    manifest = run.manifest
    keys = ("command", "versions", "hardware", "git_revision", "started", "ended")
    about = {key: manifest.get(key) for key in keys} | {
        key: manifest.get(key) or {} for key in ("versions", "hardware")
    }
    return {"task": course.task, "method": course.method, "folder": run.folder.as_posix(), **about}


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: None for what isn't finite, six digits of what isn't
    whole."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if not isinstance(value, float) or (value.is_integer() and abs(value) < MOST_WHOLE):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None

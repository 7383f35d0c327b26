"""Numbers across tasks: each method in a few, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from baq_cli.bootstrap import Band, Strata, interval
from baq_cli.report import aggregates as agg
from baq_cli.report.curves import Array, Curve
from baq_cli.report.definitions import deepest_dip, handover_score, online_mean
from baq_cli.report.method_runs import Course
from baq_cli.units import amount

STATISTIC = "final"

Tasks = Sequence[Mapping[str, Course]]


def across_tasks(tasks: Tasks, methods: Sequence[str]) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the aggregates over tasks of the methods that every task has, and what to know.

    Several tasks are brought together by normalised scores; one task keeps its unit. None when
    that can't be, or there is nothing to compare.
    """
    complete = [m for m in methods if all("online" in t[m].curves for t in tasks if m in t)]
    complete = [m for m in complete if all(m in task for task in tasks)]
    if not tasks or not complete:
        return None, ["No method has an online phase on every task: nothing to aggregate."]
    notes = []
    if len(complete) < len(methods):
        left = ", ".join(name for name in methods if name not in complete)
        notes.append(f"Not in the aggregates, for want of an online phase on every task: {left}.")
    chosen = [{name: task[name] for name in complete} for task in tasks]
    normalized = len(tasks) > 1 or _is_normalized(chosen[0])
    if normalized:
        missing = sorted(_name(t) for t in chosen if not _can_normalize(t))
        if missing:
            notes.append(
                f"No aggregates across tasks: {', '.join(missing)} has no reference scores, and "
                "raw returns of different tasks can't be averaged. Store them with the dataset "
                "('baq data score-reference ENV --checkpoint PATH --dataset ID'): a run that "
                "begins after that knows them, and gives them to all runs of its task."
            )
            return None, notes
        chosen = [{name: c.normalized() for name, c in task.items()} for task in chosen]
        sources = {c.reference.label for task in chosen for c in task.values() if c.reference}
        if sources:
            notes.append(f"Normalised by {', '.join(sorted(sources))}.")
    found = _aggregates(chosen, complete, normalized)
    return found, notes + (list(_without_percent(chosen, complete)) if normalized else [])


def _without_percent(tasks: Tasks, methods: Sequence[str]) -> Iterator[str]:
    for name in methods:
        curves = [task[name].curves["online"] for task in tasks]
        none = sum(int((handover_score(curve) == 0).sum()) for curve in curves)
        if none:
            yield (
                f"{name}: handed over with a score of 0, of which no dip is a percentage: "
                f"{amount(none, 'run')}; the median dip is over the others."
            )
        dips = np.concatenate([deepest_dip(curve) for curve in curves])
        unknown = int(np.isnan(dips).sum())
        if 0 < unknown < len(dips):
            yield (
                f"{name}: without an evaluation at the hand-over, or after it: "
                f"{amount(unknown, 'run')}; the median dip is over the others."
            )


def _name(task: Mapping[str, Course]) -> str:
    return next(iter(task.values())).task


def _is_normalized(task: Mapping[str, Course]) -> bool:
    return all(course.unit == "normalized score" for course in task.values())


def _can_normalize(task: Mapping[str, Course]) -> bool:
    return all(course.can_be_normalized for course in task.values())


def _aggregates(given: Tasks, methods: Sequence[str], normalized: bool) -> dict[str, Any]:
    tasks = sorted(given, key=_name)  # resamples are drawn task by task
    scores = {
        name: [task[name].curves["online"].returns[:, -1] for task in tasks] for name in methods
    }
    thresholds = agg.profile_thresholds(scores.values())
    grid = agg.common_grid([task[name].curves["online"] for task in tasks for name in methods])
    return {
        "statistic": STATISTIC,
        "unit": "normalized score" if normalized else "return",
        "tasks": [_name(task) for task in given],
        "runs": {name: sum(map(len, strata)) for name, strata in scores.items()},
        "methods": {name: _numbers(strata, normalized) for name, strata in scores.items()},
        "improvement": _improvements(scores),
        "on_the_way": _on_the_way(tasks, methods, normalized),
        "profile": {
            "thresholds": thresholds.tolist(),
            "methods": {
                name: _band(agg.performance_profile(strata, thresholds))
                for name, strata in scores.items()
            },
        },
        "efficiency": {
            "x": grid.x.tolist(),
            "x_label": grid.label,
            "methods": {
                name: _band(agg.efficiency(_on_grid(tasks, name, grid))) for name in methods
            },
        },
    }


def _numbers(strata: Strata, normalized: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: asdict(interval(strata, statistic)) for name, statistic in agg.AGGREGATES.items()
    }
    return found if normalized else found | {"optimality_gap": None}  # a gap to 100 of a score


def _on_the_way(tasks: Tasks, methods: Sequence[str], normalized: bool) -> dict[str, Any]:
    """Return what is said of the online phase before its end: online means and dips.

    A dip is in per cent of the hand-over score, whose zero must mean something: a normalised one.
    None where no run of a method has such.
    """
    curves = {name: [task[name].curves["online"] for task in tasks] for name in methods}
    means = {name: [online_mean(curve) for curve in found] for name, found in curves.items()}
    dips = {name: _dip_percents(found) if normalized else [] for name, found in curves.items()}
    return {
        "methods": {
            name: {
                "online_mean": asdict(interval(means[name], agg.iqm)),
                "dip_percent": asdict(interval(dips[name], agg.middle_run)) if dips[name] else None,
            }
            for name in methods
        },
        "improvement": _improvements(means),
    }


def _improvements(scores: Mapping[str, Strata]) -> list[dict[str, Any]]:
    return [{"x": x, "y": y, **asdict(found)} for (x, y), found in agg.improvements(scores).items()]


def _dip_percents(curves: Sequence[Curve]) -> list[Array]:
    """Return each task's deepest dips in per cent of the hand-over score, where that isn't zero."""
    found = []
    for curve in curves:
        handover = np.abs(handover_score(curve))
        some = handover > 0
        found.append(100 * deepest_dip(curve)[some] / handover[some])
    return [dips for dips in found if dips.size]


def _on_grid(tasks: Tasks, name: str, grid: agg.Grid) -> list[Array]:
    return [np.asarray(grid.scores(task[name].curves["online"])) for task in tasks]


def _band(band: Band) -> dict[str, list[float]]:
    return {key: getattr(band, key).tolist() for key in ("value", "low", "high")}

"""A task in report.md: what its numbers are over and against, and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from baq_cli.report import page_view as view
from baq_cli.report import wording
from baq_cli.report.markup import escaped, table, unbroken
from baq_cli.units import amount

Document = Mapping[str, Any]
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
SOURCES = {"file": " (from a file)", "published": " (published by others)"}
"""What stands behind a method's name beside own runs, by where its curves are from."""
GROUPS = (
    ("higher", "How good: higher is better."),
    ("lower", "How safe and fast: lower is better."),
)


def facts(task: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a task's numbers are over and against."""
    if task["environment"]:
        yield f"Environment: {escaped(task['environment'])}"
    if task["dataset"]:
        yield from _dataset_facts(task["dataset"])
    yield f"Scores: {task['unit']}{_measured_against(task['reference'])}"
    marks = {
        "the dataset's mean": view.dataset_mean(task),
        "threshold": task["threshold"],
        "optimum": task["optimum"],
    }
    known = [f"{name} {wording.fixed(mark, 1)}" for name, mark in marks.items() if mark is not None]
    if known:
        yield f"Marks: {', '.join(known)} ({task['unit']})"
    yield f"Protocol: {_protocol(task['protocol'])}"
    if _sources(task) == {"file"}:
        yield "Curves: from a file"


def _sources(task: Mapping[str, Any]) -> set[str]:
    return {of["source"] for of in task["methods"].values()}


def _dataset_facts(dataset: Mapping[str, Any]) -> Iterator[str]:
    sha256 = f", SHA-256 {escaped(dataset['sha256'])}" if dataset["sha256"] else ""
    yield (
        f"Dataset: {escaped(dataset['id'])}, {amount(dataset['episodes'], 'episode')}, "
        f"{amount(dataset['transitions'], 'transition')}{sha256}"
    )
    yield from (f"Warning: {escaped(warning)}" for warning in dataset["warnings"])


def _measured_against(reference: Mapping[str, Any] | None) -> str:
    if reference is None:
        return ""
    low, high = (wording.fixed(reference[end], 1) for end in ("random", "expert"))
    about = f"{reference['label']}: {reference['source']}"
    return f"; 0 is a return of {low} (random), 100 of {high} (expert); {escaped(about)}"


def _protocol(protocol: Mapping[str, Any]) -> str:
    counted = (
        ("gradient_steps", "gradient step", "offline"),
        ("env_steps", "environment step", "online"),
        ("evaluation_episodes", "episode", "an evaluation"),
    )
    estimate = protocol.get("estimate")
    parts = [
        f"{amount(protocol[key], thing)} {where}"
        for key, thing, where in counted
        if protocol[key] is not None
    ]
    if estimate is not None:
        parts.append(
            f"{amount(estimate['updates'], 'update')} an estimate, discount {estimate['discount']}"
        )
    if not protocol["steps_known"]:
        parts.append("steps are not known for all curves: those without count evaluations")
    return ", ".join(parts) or "not known"


def task_tables(document: Document, task: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of what is better higher, and one of what is better lower."""
    for better, caption in GROUPS:
        columns = [
            view.column(name, about, task)
            for name, about in document["statistics"].items()
            if about["better"] == better and _is_known(task, name)
        ]
        if not columns:
            continue
        yield caption
        yield table(
            ["method", "seeds", *map(_heading, columns)],
            [_row(task, name, columns) for name in document["methods"]],
        )


def _is_known(task: Mapping[str, Any], name: str) -> bool:
    """Tell whether a statistic has a value, or was never reached, for any seed of a task."""
    found = [of["statistics"].get(name) or {} for of in task["methods"].values()]
    return any(of.get("count") or of.get("never") for of in found)


def _heading(column: Mapping[str, Any]) -> str:
    power = f" × 10{str(column['power']).translate(SUPERSCRIPTS)}" if column["power"] else ""
    return escaped(f"{column['heading']} ({column['unit']}{power})")


def _row(task: Mapping[str, Any], name: str, columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a method's row; its cells are dashes where no run has finished."""
    results = task["methods"].get(name)
    if results is None:
        return [escaped(name), "0", *(wording.MISSING for _ in columns)]
    of_others = SOURCES.get(results["source"], "") * (len(_sources(task)) > 1)
    cells = [_cell(results, column) for column in columns]
    label = escaped(name) + of_others
    return [label, str(len(results["seeds"])), *cells]


def _cell(results: Mapping[str, Any], column: Mapping[str, Any]) -> str:
    """Return mean [low, high], and how many seeds have a value where not all have."""
    of, seeds = results["statistics"].get(column["name"]) or {}, len(results["seeds"])
    if of.get("never"):
        return f"never in {of['never']} of {seeds}"
    found = view.cell(results, column, seeds)
    text = " ".join(filter(None, (found["mean"], unbroken(found["interval"]))))
    count = of.get("count", 0)
    shown = f"**{text}**" if found["best"] else text
    return f"{shown} ({count} of {seeds})" if 0 < count < seeds else shown

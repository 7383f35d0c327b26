"""Where the recipes of a task's methods differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baq_cli.report.method_runs import Course

NOT_METHOD = (
    *("algo", "dataset", "env", "env_args", "max_episode_steps"),
    *("seeds", "device", "threads", "env_workers", "track", "protocol"),
    "keep_transitions",
)
"""A run's keys that say where and on what it ran, not how it learns."""


def recipe_differences(courses: Mapping[str, Course]) -> list[dict[str, Any]]:
    """Return the keys that several methods of a task have and that differ, a row a key.

    A key of a method's own section counts by its name alone, so that the methods' learning rates
    stand beside each other.
    """
    values: dict[str, dict[str, Any]] = {}
    task = ""
    for name, course in courses.items():
        task = course.task
        if course.runs:
            for key, value in settings_of(course.runs[-1].recipe).items():
                values.setdefault(key, {})[name] = value
    return [
        {"task": task, "key": key, "values": {name: text_of(value) for name, value in row.items()}}
        for key, row in values.items()
        if len({text_of(value) for value in row.values()}) > 1
    ]


def settings_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a resolved recipe learns: a value a key, those of its method by name alone."""
    algo = recipe["algo"]
    own = {key: value for key, value in recipe.items() if key not in (*NOT_METHOD, algo)}
    return _flat(own | dict(recipe[algo]))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def text_of(value: Any) -> str:
    """Return a value as a recipe has it."""
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )

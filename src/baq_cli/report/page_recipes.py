"""Where the recipes of a comparison differ, as its page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = 6
"""The most methods that have a column each in the table of recipes."""


def recipe_groups(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the recipes' differences, tasks that have the same ones together.

    `by_value` has them by value where there are too many methods for a column each.
    """
    by_task: dict[str, dict[str, dict[str, str]]] = {}
    for row in document["recipes"]:
        by_task.setdefault(row["task"], {})[row["key"]] = row["values"]
    groups: list[dict[str, Any]] = []
    for task, rows in by_task.items():
        same = next((group for group in groups if group["rows"] == rows), None)
        if same:
            same["tasks"].append(task)
            continue
        named = [name for name in document["methods"] if any(name in of for of in rows.values())]
        listed = by_value(rows) if len(named) > COLUMNS else None
        groups.append({"tasks": [task], "rows": rows, "methods": named, "by_value": listed})
    return groups


def by_value(
    rows: Mapping[str, Mapping[str, str]],
) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Return each key's values, those of most methods first, with the methods that have them."""
    found = []
    for key, of in rows.items():
        having: dict[str, list[str]] = {}
        for method, value in of.items():
            having.setdefault(value, []).append(method)
        found.append((key, sorted(having.items(), key=lambda each: -len(each[1]))))
    return found

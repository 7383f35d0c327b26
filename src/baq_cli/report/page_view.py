"""What a comparison's page says: numbers as text, tables as rows, for its template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from baq_cli.report.curves import curves_of
from baq_cli.report.in_sight import in_sight
from baq_cli.report.page_aggregates import MANY, aggregates_view
from baq_cli.report.page_recipes import recipe_groups
from baq_cli.report.style import MARKER_SIZES, MARKERS, OKABE_ITO
from baq_cli.report.wording import (
    fixed,
    in_words,
    instant,
    many,
    of_seeds,
    plain,
    span,
    took,
)
from baq_cli.units import decimals, magnitude, tenths

DASHES = ("solid", "9px,3px", "3px,2px", "9px,2px,2px,2px")
"""Plotly's names for the figure's dashes, in its order."""
SYMBOLS = {
    "circle": "M17 3a4 4 0 1 1 0 8a4 4 0 1 1 0-8",
    "square": "M13.5 3.5h7v7h-7z",
    "triangle-up": "M17 2.5l4.5 8h-9z",
    "diamond": "M17 2l5 5l-5 5l-5-5z",
    "triangle-down": "M17 11.5l4.5-8h-9z",
    "cross": "M15.5 2.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "x": "M14 2l3 3l3-3l2 2l-3 3l3 3l-2 2l-3-3l-3 3l-2-2l3-3l-3-3z",
    "triangle-left": "M12.5 7l8-4.5v9z",
    "triangle-right": "M21.5 7l-8-4.5v9z",
}
"""Plotly's names for the figure's markers, in its order, and each one's outline in a swatch."""
ON_DARK = {"#000000": "#D0D0D0"}
"""Colours that a dark page needs instead; the others can be told apart on both."""
ENDS = ("value", "low", "high")
OF_PAIRS = ("online_mean", "final")
"""The statistics in which a method is held against its base."""
ALL_TASKS = "all, normalised"
ABOUT_PAIRS = (
    "What a method that is built on another adds to it: its statistic minus its base's, seed by "
    "seed on the same task, with a 95 % bootstrap interval over pairs."
)

FILTERS = {
    "fixed": fixed,
    "instant": instant,
    "plain": plain,
    "unit": in_words,
    "of_seeds": of_seeds,
}

# -- what the template shows


def context(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that the template of a document's page names, but what is inlined."""
    tasks = [task_view(task, document) for task in document["tasks"]]
    return {
        "document": document,
        "colors": [(color, ON_DARK.get(color, color)) for color in OKABE_ITO],
        "styles": method_styles(document["methods"]),
        "compared": compared(document),
        "tasks": tasks,
        "estimates": any(task["task"]["protocol"].get("estimate") for task in tasks),
        "many": len(document["methods"]) > MANY,
        "switch": any(task["seeds"] != "1" for task in tasks),
        "aggregates": document["aggregates"] and aggregates_view(document),
        "against_base": [(row, pair_decimals(row)) for row in document["against_base"]],
        "about_pairs": ABOUT_PAIRS,
        "unlike_bases": unlike_bases(document),
        "of_pairs": OF_PAIRS,
        "all_tasks": ALL_TASKS,
        "recipes": recipe_groups(document),
        **runs_view(document["runs"]),
    }


def method_styles(methods: Sequence[str]) -> list[dict[str, Any]]:
    """Return each method's colour (its index), dash and marker, as in the other figures."""
    return [
        {
            "name": method,
            "color": i % len(OKABE_ITO),
            "dash": DASHES[i % len(DASHES)],
            "symbol": (symbol := list(SYMBOLS)[i % len(SYMBOLS)]),
            "path": SYMBOLS[symbol],
            "size": MARKER_SIZES.get(MARKERS[i % len(MARKERS)], 1.0),
        }
        for i, method in enumerate(methods)
    ]


def compared(document: Mapping[str, Any]) -> str:
    """Return in a sentence what was compared, on what, with how many seeds."""
    cells = [of for task in document["tasks"] for of in task["methods"].values()]
    methods, tasks = document["methods"], document["tasks"]
    names = f" ({', '.join(methods)})" if 1 < len(methods) <= 6 else ""
    who = methods[0] if len(methods) == 1 else many(len(methods), "method") + names
    where = tasks[0]["name"] if len(tasks) == 1 else many(len(tasks), "task")
    seeds = span(len(of["seeds"]) for of in cells)
    runs = sum(len(of["seeds"]) for of in cells)
    each = f"{seeds} seed{'' if seeds == '1' else 's'}{' each' if len(cells) > 1 else ''}"
    return f"{who} on {where}, {each}: {many(runs, 'run')}."


def task_view(task: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's facts, its table of statistics, and its table of each seed."""
    results = [task["methods"].get(method) for method in document["methods"]]
    columns = [column(name, about, task) for name, about in document["statistics"].items()]
    rows = [of and [cell(of, named, len(of["seeds"])) for named in columns] for of in results]
    return {
        "task": task,
        "columns": columns,
        "rows": list(zip(document["methods"], results, rows, strict=True)),
        "seeds": span(len(of["seeds"]) for of in task["methods"].values()),
        "dataset_mean": dataset_mean(task),
        "sight": _sight(task, document["methods"]),
        "phases": {phase for of in task["methods"].values() for phase in of["curves"]},
    }


def dataset_mean(task: Mapping[str, Any]) -> float | None:
    """Return the mean return of the dataset's episodes, in the task's unit; None if not known."""
    mean: float | None = (task["dataset"] or {}).get("return_mean")
    return mean


def _sight(task: Mapping[str, Any], methods: Sequence[str]) -> dict[str, Any] | None:
    """Return the range of a task's figure, and how far curves go beyond; None for one of all.

    It is one for both of the figure's modes: a double-click leads back to the first that there was.
    """
    by_method = curves_of(task, methods).values()
    curves = (of for phases in by_method for of in phases.values())
    found = in_sight(curves, dataset_mean(task), seeds=True)
    if found is None:
        return None
    beyond = ", ".join(filter(None, (found.down, found.up)))
    return {"range": [found.low, found.high], "beyond": beyond}


def column(name: str, about: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """Return a statistic's column for a task: its unit there, and how its numbers are printed."""
    of_task = [of["statistics"] for of in task["methods"].values()]
    values = _numbers(found.get(name) for found in of_task)
    size = magnitude(values)
    power = size - size % 3 if size >= 6 else 0
    if power:
        places = 2
    elif about["unit"] == "score":  # one scale for all scores of a task, whatever they say of it
        places = decimals(_numbers(found.get("final") for found in of_task) or values)
    else:  # steps are whole
        places = 0 if about["unit"] == "env_steps" or not any(values) else decimals(values)
    unit = about["unit"].replace("score", "score" if is_normalized(task) else task["unit"])
    arrow = "↑" if about["better"] == "higher" else "↓"
    label = f"{about['heading']} {arrow}" + (f" × 10^{power}" if power else "")
    shown = {"label": label, "unit": in_words(unit), "power": power, "decimals": places}
    return {**about, "name": name, **shown}


def is_normalized(task: Mapping[str, Any]) -> bool:
    """Return whether a task's scores are normalised; else they are returns, or estimates of any."""
    return bool(task["unit"] == "normalized score")


def pair_decimals(row: Mapping[str, Any]) -> int:
    """Return with how many decimals a method's differences from its base are printed."""
    return tenths(row["statistics"][name][end] for name in OF_PAIRS for end in ENDS)


def unlike_bases(document: Mapping[str, Any]) -> list[str]:
    """Say of each method that is set unlike its base, in a sentence, in which settings it is."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for row in document["against_base"]:
        found.setdefault((row["method"], row["base"]), {}).update(dict.fromkeys(row["unlike"]))
    return [
        f"{method} and {base} differ in more than what {method} adds: {', '.join(keys)}. These "
        "have a part in the differences; --protocol matched makes such settings alike."
        for (method, base), keys in found.items()
        if keys
    ]


def _numbers(statistics: Iterable[Mapping[str, Any] | None]) -> list[float]:
    """Return all numbers of a statistic of several methods: means and bounds, or those of seeds."""
    found = [of for of in statistics if of]
    values = [of.get(key) for of in found for key in ("mean", "low", "high")]
    if not any(values):
        values = [value for of in found for value in of.get("per_seed", ())]
    return [value for value in values if value is not None]


def cell(results: Mapping[str, Any], column: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """Return a statistic of a method as text: mean, interval, seeds that have it, each seed."""
    found = results["statistics"].get(column["name"]) or {}

    def shown(value: float | None) -> str:
        return fixed(value and value / 10 ** column["power"], column["decimals"])

    low, high = found.get("low"), found.get("high")
    count, never = found.get("count", 0), found.get("never", 0)
    counted = count < seeds and (count or never)  # else nothing was measured
    return {
        "mean": shown(found.get("mean")),
        "interval": "" if low is None or high is None else f"[{shown(low)}, {shown(high)}]",
        "std": shown(found.get("std")),
        "best": column["name"] in results["best_in"],
        "count": f"{count} of {many(seeds, 'seed')}" if counted else "",
        "never": f"never in {never}" if never else "",
        "per_seed": [shown(value) for value in found.get("per_seed", [None] * seeds)],
    }


def runs_view(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return runs with how long they took, and the set-ups (versions, hardware) they share."""
    setups: list[dict[str, Any]] = []
    rows = []
    for run in runs:
        setup = {"versions": run["versions"], "hardware": run["hardware"]}
        if setup not in setups:
            setups.append(setup)
        took_words = took(run["started"], run["ended"])
        rows.append({**run, "setup": setups.index(setup) + 1, "took": took_words})
    commands = dict.fromkeys(run["command"] for run in runs if run["command"])
    return {"runs": rows, "setups": setups, "run_commands": list(commands)}

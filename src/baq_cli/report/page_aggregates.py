"""What a comparison's page says of all tasks together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from baq_cli.units import decimals

MANY = 12
"""Methods of which the legend and the matrix are set small."""
AGGREGATES = {
    "iqm": "IQM",
    "median": "median",
    "mean": "mean",
    "optimality_gap": "optimality gap",
}
ON_THE_WAY = {
    "online_mean": ("online mean, IQM", "↑", "the interquartile mean of all runs' online means"),
    "dip_percent": (
        "deepest dip, median % of hand-over",
        "↓",
        "the deepest dip after the hand-over",
    ),
    "first_is_better": (
        "P({first} > it)",
        "",
        "how probably a run of the first method has a higher online mean than one of the row's on "
        "the same task",
    ),
}
"""What is said of the online phase before its end: heading, arrow of what is better, in words."""
OWN_DECIMALS = {"dip_percent": 1, "first_is_better": 2}


def on_the_way(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what aggregates say of the online phase before its end: columns, and rows by method.

    A column is left out where no method has it.
    """
    found = document["aggregates"]["on_the_way"]
    methods = [name for name in document["methods"] if name in found["methods"]]
    first = methods[0]
    won = {pair["y"]: pair for pair in found["improvement"] if pair["x"] == first}
    of = {name: found["methods"][name] | {"first_is_better": won.get(name)} for name in methods}
    columns = []
    for kind, (heading, arrow, _) in ON_THE_WAY.items():
        entries = [of[name][kind] for name in methods if of[name][kind]]
        known = [entry["value"] for entry in entries if entry["value"] is not None]
        places = OWN_DECIMALS.get(kind, decimals(known))
        if entries:
            columns.append((kind, heading.format(first=first), arrow, places))
    return {
        "about": "Before the end: " + "; ".join(ON_THE_WAY[kind][2] for kind, *_ in columns) + ".",
        "columns": columns,
        "rows": [(document["methods"].index(name), name, of[name]) for name in methods],
    }


def aggregates_view(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the aggregates' table, and the matrix of probabilities of improvement."""
    found = document["aggregates"]
    methods = [(i, name) for i, name in enumerate(document["methods"]) if name in found["methods"]]
    kinds: dict[str, tuple[str, int]] = {}
    for kind, heading in AGGREGATES.items():
        values = [(found["methods"][name].get(kind) or {}).get("value") for _, name in methods]
        known = [value for value in values if value is not None]
        if known:
            kinds[kind] = (heading, decimals(known))
    pairs = {(pair["x"], pair["y"]): pair for pair in found["improvement"]}
    return {
        "of": found,
        "heading": "All tasks together" if len(found["tasks"]) > 1 else "Aggregates",
        "kinds": kinds,
        "many": len(methods) > MANY,
        "on_the_way": on_the_way(document),
        "panels": json.dumps([(kind, heading) for kind, (heading, _) in kinds.items()]),
        "rows": [(i, name, found["methods"][name], found["runs"].get(name)) for i, name in methods],
        "matrix": [
            (i, name, [(j, other, pairs.get((name, other))) for j, other in methods])
            for i, name in methods
        ],
    }

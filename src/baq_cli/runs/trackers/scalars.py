"""A run's rows as named numbers, the way trackers take them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from baq_cli.runs.log import METRICS, SOURCE, Row
from baq_cli.units import UNITS, Phase

Fact = str | int | float | bool


@dataclass(frozen=True)
class Scalars:
    """Numbers of one moment of a run, by name.

    step: the counter of the phase's unit (offline gradient_steps, online env_steps).
    gradient_steps: the learner's, which go on from phase to phase.
    """

    phase: Phase
    step: int
    gradient_steps: int
    values: dict[str, float]


def metric_scalars(rows: Iterable[Row]) -> list[Scalars]:
    """Return rows of metrics.csv as `<phase>/<column>/seed_<seed>` and, over seeds, `…/mean`.

    What is estimated is called so: `offline/estimate_mean/…`.
    """
    return _moments(rows, _metrics)


def diagnostic_scalars(rows: Iterable[Row]) -> list[Scalars]:
    """Return rows of diagnostics.csv as `diagnostics/<phase>/<name>/seed_<seed>` and `…/mean`."""
    return _moments(rows, _diagnostic)


def _metrics(row: Row) -> dict[str, float]:
    aside = ("phase", "seed", UNITS[row["phase"]])
    kept = {key: row[key] for key in METRICS if key not in aside and row[key] is not None}
    if row.get(SOURCE) == "estimate":  # no chart puts it beside returns
        kept = {key.replace("return_", "estimate_"): value for key, value in kept.items()}
    return {f"{row['phase']}/{key}": float(value) for key, value in kept.items()}


def _diagnostic(row: Row) -> dict[str, float]:
    return {f"diagnostics/{row['phase']}/{row['name']}": float(row["value"])}


def _moments(rows: Iterable[Row], numbers: Callable[[Row], dict[str, float]]) -> list[Scalars]:
    """Join neighbouring rows of one moment; rows are as they are written, or as they are read."""
    found: list[Scalars] = []
    for row in rows:
        phase, step = row["phase"], int(row[UNITS[row["phase"]]])
        values = {f"{name}/seed_{int(row['seed'])}": n for name, n in numbers(row).items()}
        last = found[-1] if found else None
        # A run that continues another online one has that one's rows at counters of its own.
        if last is None or (last.phase, last.step) != (phase, step) or last.values.keys() & values:
            last = Scalars(phase, step, int(row["gradient_steps"]), {})
            found.append(last)
        last.values.update(values)
    for moment in found:
        moment.values.update(_means(moment.values))
    return found


def _means(values: Mapping[str, float]) -> dict[str, float]:
    by_name: dict[str, list[float]] = {}
    for name, value in values.items():
        by_name.setdefault(name.rpartition("/")[0], []).append(value)
    return {f"{name}/mean": fmean(seeds) for name, seeds in by_name.items()}


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Fact]:
    """Return a nested mapping as one of `key.sub`; lists and null become JSON."""
    found: dict[str, Fact] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, Fact) else json.dumps(value)
    return found

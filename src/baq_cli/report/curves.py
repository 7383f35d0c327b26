"""Learning curves: what a run's metrics say, one curve a phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.runs.log import SOURCE
from baq_cli.units import UNITS, Phase

Array = npt.NDArray[np.float64]
Counters = npt.NDArray[np.int64]
Row = Mapping[str, Any]
"""A row of metrics.csv, as `runs.folder.read_metrics` returns it."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Raw returns of one phase of a method, one line a seed.

    `counters [T]` rise strictly and count `unit` within the phase; `returns [S, T]` are means over
    each evaluation's episodes; `seeds` has S entries. Where they are `estimated`, no episode was
    played: they are discounted, and lie beside no return.
    """

    label: str
    phase: Phase
    unit: str
    counters: Counters
    returns: Array
    seeds: tuple[int, ...]
    estimated: bool = False


PhaseCurves = Mapping[Phase, Curve]
"""A method's curves: offline, online or both. A phase that was never evaluated is absent."""


def phase_curves(rows: Sequence[Row], label: str) -> dict[Phase, Curve]:
    """Return the curves of a run's metrics.

    Rows of both phases may be mixed. A counter that one of the phase's seeds lacks (an evaluation
    that was cut off) is left out for all. Where a seed's counter goes back, a later fine-tuning
    began: the last one counts. Estimates are left out where there are returns: a run that began
    without an environment has those of its pre-training.
    """
    played = [row for row in rows if not is_estimate(row)]
    found = {phase: _phase_curve(played or rows, label, phase) for phase in UNITS}
    return {phase: curve for phase, curve in found.items() if curve is not None}


def is_estimate(row: Row) -> bool:
    """Return whether a row holds an estimate, and not what episodes returned."""
    return row.get(SOURCE) == "estimate"


def curves_of(task: Mapping[str, Any], methods: Sequence[str]) -> dict[str, PhaseCurves]:
    """Return a task's curves by method, as the document of a report has them, in this order."""
    return {
        name: {
            phase: _drawn(name, phase, task["methods"][name]["curves"][phase])
            for phase in UNITS
            if phase in task["methods"][name]["curves"]
        }
        for name in methods
        if name in task["methods"]
    }


def _drawn(label: str, phase: Phase, of: Mapping[str, Any]) -> Curve:
    counters = np.asarray(of["counters"], dtype=np.int64)
    scores = np.asarray(of["scores"], dtype=np.float64)  # None becomes NaN
    return Curve(label, phase, of["unit"], counters, scores, tuple(range(len(scores))))


def _phase_curve(rows: Sequence[Row], label: str, phase: Phase) -> Curve | None:
    by_seed = _returns_by_seed(rows, phase)
    if not by_seed:
        return None
    counters = sorted(set.intersection(*(set(returns) for returns in by_seed.values())))
    if not counters:
        return None
    values = [[returns[counter] for counter in counters] for returns in by_seed.values()]
    return Curve(
        label,
        phase,
        UNITS[phase],
        np.asarray(counters, dtype=np.int64),
        np.asarray(values, dtype=np.float64),
        tuple(by_seed),
        estimated=is_estimate(rows[0]),
    )


def _returns_by_seed(rows: Sequence[Row], phase: Phase) -> dict[int, dict[int, float]]:
    """Return `{seed: {counter: return}}` of a phase, seeds and counters as the rows have them."""
    by_seed: dict[int, dict[int, float]] = {}
    for row in rows:
        if row["phase"] != phase:
            continue
        seed, counter = int(row["seed"]), int(row[UNITS[phase]])
        returns = by_seed.setdefault(seed, {})
        if returns and counter < max(returns):
            returns.clear()
        returns[counter] = float(row["return_mean"])
    return by_seed

"""When a trial of a search is stopped early: by its evaluations, held against earlier trials'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from baq_cli.recipes.schema import ChosenFrom
from baq_cli.report.curves import Curve, phase_curves
from baq_cli.report.definitions import handover_score, online_mean
from baq_cli.runs.checked import Checked, Finite
from baq_cli.runs.folder import read_metrics
from baq_cli.units import Phase

LEAST_TRIALS = 5
"""Finished earlier trials without which none is stopped."""
LEAST_EVALUATIONS = 2
"""Evaluations of its phase that every trial gets to."""
PHASE: dict[ChosenFrom, Phase] = {
    "online": "online",
    "final": "online",
    "pretraining": "offline",
    "offline": "offline",
}
"""Whose evaluations a trial is chosen, and pruned, by."""


class Pruning(Checked):
    """The rule by which a trial is stopped: Optuna's percentile pruner over earlier trials.

    below: a percentile, of the scores of `earlier` trials at the same evaluation. earlier: the
    scores of each that was finished when this one was proposed, after each evaluation. Trials that
    are under way at the same time are not among them, so that time decides nothing.
    """

    chosen_from: ChosenFrom
    below: float = Field(ge=0, le=100)
    earlier: list[Annotated[list[Finite], Field(min_length=1)]]

    def cut(self, scores: Sequence[float]) -> int | None:
        """Return at which of a trial's scores, by index, it is stopped; None: at none of them."""
        if not self.below or len(self.earlier) < LEAST_TRIALS:
            return None
        from baq_cli.launch.tuning.optuna_rules import first_pruned

        return first_pruned(scores, self.earlier, self.below, LEAST_TRIALS, LEAST_EVALUATIONS)

    def cut_of(self, curve: Curve, total: int) -> int | None:
        """Return at which evaluation, by index, a trial is stopped; never at the last, at `total`.

        `total` is how long its phase is, in the curve's unit.
        """
        scores = scores_of(curve, self.chosen_from)
        before = curve.counters < total
        return self.cut([score for score, early in zip(scores, before, strict=True) if early])


def scores_of(curve: Curve, chosen_from: ChosenFrom) -> list[float]:
    """Return what a trial's score would be after each evaluation of its phase, by all its seeds."""
    return [
        _score(_until(curve, count), chosen_from) for count in range(1, len(curve.counters) + 1)
    ]


def curve_of(folder: Path, chosen_from: ChosenFrom) -> Curve | None:
    """Return the evaluations so far of the phase that a cell is chosen by; None before the first.

    Raises DataError where they can't be read.
    """
    phase = PHASE[chosen_from]
    run = folder / phase
    if not (run / "metrics.csv").exists():
        return None
    return phase_curves(read_metrics(run), folder.name).get(phase)


def _until(curve: Curve, count: int) -> Curve:
    return Curve(
        *(curve.label, curve.phase, curve.unit),
        curve.counters[:count],
        curve.returns[:, :count],
        curve.seeds,
        curve.estimated,
    )


def _score(curve: Curve, chosen_from: ChosenFrom) -> float:
    if chosen_from != "online":
        return float(np.mean(curve.returns[:, -1]))
    by_seed = handover_score(curve) if len(curve.counters) == 1 else online_mean(curve)
    return float(np.mean(by_seed))

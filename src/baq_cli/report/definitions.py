"""What `baq` says of a single run: every statistic's name, unit and meaning, here and only here.

A seed without a value has NaN: what it takes was not measured, or a score among it is NaN. A seed
that was watched to the end and never got there has infinity (see `summary.Statistic`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from baq_cli.report.curves import Array, Curve
from baq_cli.units import Phase

# -- per seed: a curve of S seeds to `[S]`, in the unit of its scores unless said otherwise


def offline_score(curve: Curve) -> Array:
    """Return the last offline evaluation, `[S]`: what pre-training ended with."""
    return curve.returns[:, -1]


def handover_score(curve: Curve) -> Array:
    """Return the online evaluation at env_steps 0, `[S]`: before any environment step or update.

    NaN when that evaluation is missing.
    """
    if curve.counters[0] != 0:
        return _unknown(curve)
    return curve.returns[:, 0]


def deepest_dip(curve: Curve) -> Array:
    """Return the hand-over score minus the lowest early online evaluation, `[S]`, at least zero.

    Early: after env_steps 0, and within the first quarter of the env_steps of the last online
    evaluation; when none falls there, the first evaluation after 0. The lowest is taken for each
    seed by itself. NaN when there is no hand-over score or no evaluation after it.
    """
    handover = handover_score(curve)
    after = curve.counters > 0
    if not after.any():
        return _unknown(curve)
    early = after & (4 * curve.counters <= curve.counters[-1])
    if not early.any():
        early = curve.counters == curve.counters[after][0]
    return np.maximum(handover - curve.returns[:, early].min(axis=1), 0.0)


def dip_env_steps(curve: Curve) -> Array:
    """Return the env_steps until the hand-over score is reached again for good, `[S]`.

    Zero where `deepest_dip` is zero, and only there: a fall after the first quarter alone is no
    dip. Else the counter of the first evaluation from which on all evaluations, to the end of the
    online phase, are at least the hand-over score; infinity when the last one is below it. NaN
    where `deepest_dip` is, and when the curve doesn't count env_steps.
    """
    if curve.unit != "env_steps":
        return _unknown(curve)
    depth = deepest_dip(curve)
    below = curve.returns < handover_score(curve)[:, None]
    here_or_later = np.logical_or.accumulate(below[:, ::-1], axis=1)[:, ::-1]
    length = np.where(depth == 0, 0.0, _first(curve, ~here_or_later))
    return np.where(np.isnan(depth), np.nan, length)


def online_mean(curve: Curve) -> Array:
    """Return the area under the online curve over the env_steps that it spans, `[S]`.

    By the trapezoid rule, from the first online evaluation to the last: the mean score of the
    online phase, whatever the distances between evaluations. NaN with fewer than two.
    """
    steps = np.diff(curve.counters)
    if not steps.size:
        return _unknown(curve)
    between = (curve.returns[:, 1:] + curve.returns[:, :-1]) / 2
    return between @ steps / steps.sum()


def regret(curve: Curve, optimum: float) -> Array:
    """Return the area between an optimal score and the online curve, `[S]`, in score·env_steps.

    That of the policy as evaluated, not of the episodes that training collects. Below zero where
    scores exceed the optimum. NaN where `online_mean` is, when the optimum is NaN (unknown), and
    when the curve doesn't count env_steps.
    """
    if curve.unit != "env_steps":
        return _unknown(curve)
    return (optimum - online_mean(curve)) * float(curve.counters[-1] - curve.counters[0])


def final_score(curve: Curve) -> Array:
    """Return the last online evaluation, `[S]`; the last, not the best."""
    return curve.returns[:, -1]


def best_score(curve: Curve) -> Array:
    """Return the highest online evaluation, `[S]`, the one at hand-over among them.

    It flatters: the highest of many noisy evaluations lies above what its policy would score again.
    """
    return curve.returns.max(axis=1)


def env_steps_to_threshold(curve: Curve, threshold: float) -> Array:
    """Return the env_steps of the first online evaluation that is at least the threshold, `[S]`.

    Infinity when none is. NaN when the threshold is NaN (unknown), and when the curve doesn't
    count env_steps.
    """
    if curve.unit != "env_steps" or np.isnan(threshold):
        return _unknown(curve)
    return _first(curve, curve.returns >= threshold)


def _first(curve: Curve, holds: npt.NDArray[np.bool_]) -> Array:
    """Return the counter of the first evaluation where `holds [S, T]`, `[S]`; infinity if none.

    NaN for a seed that has a NaN in its curve: it might have held there.
    """
    found = np.where(holds.any(axis=1), curve.counters[holds.argmax(axis=1)], np.inf)
    return np.where(np.isnan(curve.returns).any(axis=1), np.nan, found)


def _unknown(curve: Curve) -> Array:
    return np.full(len(curve.seeds), np.nan)


# -- the definitions


@dataclass(frozen=True)
class Goals:
    """What a task's runs are measured against, in the unit of its scores; NaN when unknown.

    `optimum` is the score that regret is against, `threshold` the one whose time is taken.
    """

    optimum: float = np.nan
    threshold: float = np.nan


UNKNOWN = Goals()
Unit = Literal["score", "env_steps", "score·env_steps"]


@dataclass(frozen=True)
class Definition:
    """A statistic of a run: how it is called, in which unit, what is better, and what it is.

    `per_seed` takes the curve of `phase` and gives `[S]`.
    """

    heading: str
    unit: Unit
    better: Literal["higher", "lower"]
    phase: Phase
    per_seed: Callable[[Curve, Goals], Array]
    text: str


DEFINITIONS = {
    "offline": Definition(
        "offline",
        "score",
        "higher",
        "offline",
        lambda curve, _: offline_score(curve),
        "The last evaluation of pre-training.",
    ),
    "handover": Definition(
        "at hand-over",
        "score",
        "higher",
        "online",
        lambda curve, _: handover_score(curve),
        "The evaluation before any environment step or update of the online phase.",
    ),
    "deepest_dip": Definition(
        "deepest dip",
        "score",
        "lower",
        "online",
        lambda curve, _: deepest_dip(curve),
        "Hand-over score minus the lowest evaluation of the first quarter online (where that has "
        "none, the first one after the hand-over), at least zero.",
    ),
    "dip_env_steps": Definition(
        "dip length",
        "env_steps",
        "lower",
        "online",
        lambda curve, _: dip_env_steps(curve),
        "Environment steps until all later evaluations are at least the hand-over score; "
        "zero without a dip, never when the last evaluation is still below it.",
    ),
    "online_mean": Definition(
        "online mean",
        "score",
        "higher",
        "online",
        lambda curve, _: online_mean(curve),
        "Area under the online curve divided by the environment steps that it spans.",
    ),
    "regret": Definition(
        "regret",
        "score·env_steps",
        "lower",
        "online",
        lambda curve, goals: regret(curve, goals.optimum),
        "Area between the optimum and the online curve, over environment steps.",
    ),
    "final": Definition(
        "final",
        "score",
        "higher",
        "online",
        lambda curve, _: final_score(curve),
        "The last evaluation of the online phase.",
    ),
    "best": Definition(
        "best",
        "score",
        "higher",
        "online",
        lambda curve, _: best_score(curve),
        "The highest evaluation of the online phase; a maximum of noisy numbers flatters.",
    ),
    "env_steps_to_threshold": Definition(
        "to threshold",
        "env_steps",
        "lower",
        "online",
        lambda curve, goals: env_steps_to_threshold(curve, goals.threshold),
        "Environment steps of the first online evaluation that is at least the threshold; "
        "never when none is.",
    ),
}

"""Curves that others published: a small file of theirs ships, with its source and its licence."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources

import numpy as np

from baq_cli.errors import UsageError, clipped, listed
from baq_cli.report.curves import Curve
from baq_cli.report.method_runs import Course
from baq_cli.units import UNITS, Phase

EVERY_STEPS = 50_000
ABOUT = (
    "published by others: CORL (Tarasov et al. 2022, arXiv 2210.07105; Apache-2.0), on D4RL's "
    "{theirs}, which isn't Minari's {ours}: recorded and played with mujoco-py in 2020, and an "
    "observation had no goal in it. Four seeds, 1,000,000 gradient steps and 1,000,000 environment "
    "steps, 100 episodes an evaluation, every 50,000 steps. Their budget is shown as it was, "
    "whatever the runs beside them have."
)
_OURS = re.compile(r"D4RL/antmaze/([a-z-]+)-v\d+")

Scores = dict[str, dict[Phase, dict[int, list[float]]]]
"""A dataset's scores by method, phase and seed."""


def published_curves(name: str, tasks: Sequence[str]) -> list[Course]:
    """Return the courses that a shipped file has of tasks, called by these.

    `tasks` are ids of datasets, of which the file may have none; without any, its own are all
    taken, by their own names.
    Raises UsageError where it has none of the tasks.
    """
    theirs = _read(name)
    asked = {task: _their_name(task) for task in tasks} if tasks else {key: key for key in theirs}
    found = {task: key for task, key in asked.items() if key in theirs}
    if not found:
        raise UsageError(
            f"--curves {name} has no curves of {listed([clipped(task) for task in tasks])}: it has "
            f"those of {listed([_our_name(key) for key in theirs])}"
        )
    return [course for task, key in found.items() for course in _courses(task, key, theirs[key])]


def _courses(task: str, theirs: str, methods: Scores) -> list[Course]:
    """Return a task's courses; the first says for all of them where they are from."""
    courses = []
    for method, phases in methods.items():
        label = f"{method} (CORL)"
        curves = {phase: _curve(label, phase, seeds) for phase, seeds in phases.items()}
        curves["online"] = _from_the_hand_over(curves["online"], curves["offline"])
        courses.append(Course(task, label, curves, "normalized score", {}, published=True))
    names = ", ".join(course.method for course in courses)
    about = ABOUT.format(theirs=theirs, ours=task if task != theirs else _our_name(theirs))
    return [replace(courses[0], notes=(f"{task}: {names} are {about}",)), *courses[1:]]


def _curve(label: str, phase: Phase, seeds: dict[int, list[float]]) -> Curve:
    """Return a phase's curve; one with an evaluation more than others begins at 0."""
    returns = np.asarray([seeds[seed] for seed in sorted(seeds)], dtype=np.float64)
    first = 0 if returns.shape[1] % 2 else 1
    counters = EVERY_STEPS * np.arange(first, first + returns.shape[1])
    return Curve(label, phase, UNITS[phase], counters, returns, tuple(sorted(seeds)))


def _from_the_hand_over(online: Curve, offline: Curve) -> Curve:
    """Begin an online curve with the last offline evaluation, unless it has one at 0 itself."""
    if online.counters[0] == 0:
        return online
    return replace(
        online,
        counters=np.concatenate([[0], online.counters]),
        returns=np.concatenate([offline.returns[:, -1:], online.returns], axis=1),
    )


def _their_name(task: str) -> str:
    found = _OURS.fullmatch(task)
    return "" if found is None else f"antmaze-{found[1]}-v2"


def _our_name(theirs: str) -> str:
    return f"D4RL/antmaze/{theirs.removeprefix('antmaze-').removesuffix('-v2')}-v1"


def _read(name: str) -> dict[str, Scores]:
    text = (resources.files("baq_cli.report") / "assets" / f"{name}.csv").read_text("utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    found: dict[str, Scores] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    phases: dict[str, Phase] = {phase: phase for phase in UNITS}
    for row in rows:
        scores = [float(score) for score in row["normalized_scores"].split()]
        found[row["dataset"]][row["algo"]][phases[row["phase"]]][int(row["seed_index"])] = scores
    return dict(found)

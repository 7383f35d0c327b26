"""What a reader must know before the numbers: small counts, unknown steps, guards that acted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from baq_cli.report.method_runs import Course
from baq_cli.units import Phase

SIMULATORS = ("mujoco", "gymnasium")
PROTOCOLS = {
    "published": "Protocol: published. Each method runs as its authors ran it, or as CORL did; on "
    "a task that neither ran it on, with its defaults, which are theirs on locomotion.",
    "matched": "Protocol: matched. Methods are alike in all they share (networks, critics, inputs, "
    "batches, warm-up, updates a step) and differ in what makes each one.",
    None: "Protocol: none. Methods run as the recipes say, and may differ in more than what makes "
    "each one; where they differ is listed.",
}
MARKS = ("successes", "failures")
QUARTERS = np.linspace(0, 1, 5)


def notes_on(courses: Sequence[Course], enough_seeds: int) -> list[str]:
    """Return what is to be said of courses, a sentence or two each."""
    return [
        *_protocols(courses),
        *_counts(courses, enough_seeds),
        *_steps(courses),
        *_versions(courses),
        *(note for course in courses for note in (*course.notes, *_guard(course), *_taken(course))),
        *(
            f"{course.task}, {course.method}: {said}"
            for course in courses
            for run in course.runs
            for said in held_in(run.manifest)
        ),
        *(note for course in courses for note in _clock(course)),
    ]


def not_of_every_seed(task: str, method: str, phase: Phase, count: int) -> str:
    """Say how many evaluations are left out because some seed doesn't have them."""
    return f"{task}, {method}: {count} {phase} evaluations that not every seed has are left out."


def _protocols(courses: Sequence[Course]) -> list[str]:
    """Say by which protocol the runs of courses were made; those of one method say nothing."""
    if len({course.method for course in courses}) < 2:
        return []
    used: dict[str | None, list[str]] = {}
    for course in courses:
        for protocol in {run.recipe.get("protocol") for run in course.runs}:
            used.setdefault(protocol, []).append(f"{course.task}, {course.method}")
    if len(used) == 1:
        return [PROTOCOLS[protocol] for protocol in used]
    return [f"{PROTOCOLS[protocol]} So: {'; '.join(names)}." for protocol, names in used.items()]


def _counts(courses: Sequence[Course], enough: int) -> list[str]:
    fewest = min((len(course.seeds) for course in courses), default=enough)
    notes = []
    if fewest < enough:
        notes.append(
            f"Some results are over {fewest} seed{'s' if fewest > 1 else ''}. With fewer than "
            f"{enough}, an interval is indicative: it is narrower than its 95 % say."
        )
    for task in dict.fromkeys(course.task for course in courses):
        counts = {len(course.seeds) for course in courses if course.task == task}
        if len(counts) > 1:
            notes.append(f"{task}: methods have {min(counts)} to {max(counts)} seeds.")
    return notes


def _steps(courses: Sequence[Course]) -> list[str]:
    if all(course.steps_known for course in courses):
        return []
    return [
        "A file of curves gives no gradient_steps or env_steps: its evaluations are counted, and "
        "its last offline evaluation stands for the hand-over. Whether budgets are the same can't "
        "be told."
    ]


def _versions(courses: Sequence[Course]) -> list[str]:
    used = {
        tuple(run.manifest.get("versions", {}).get(name) for name in SIMULATORS)
        for course in courses
        for run in course.runs
    }
    if len(used) < 2:
        return []
    return ["Runs were made with different versions of the simulator: see the runs."]


def _guard(course: Course) -> list[str]:
    """Say what the guards of a course's runs did."""
    found: list[dict[str, Any]] = [run.manifest.get("guard") or {} for run in course.runs]
    guards = [guard for guard in found if guard]
    if not guards:
        return []
    events = sorted((e["seed"], e["env_steps"]) for guard in guards for e in guard["events"])
    acted = [f"seed {seed} at {env_steps:,} env_steps" for seed, env_steps in events]
    bad = sum(sum(guard["bad_episodes"]) for guard in guards)
    said = f"{course.task}, {course.method}: guard ({guards[-1]['action']})"
    said += f" acted on {', '.join(acted)}" if acted else " never acted"
    said += f"; {bad} bad online episodes" if bad else ""
    return [f"{said}; the run ended there." if any(g["stopped"] for g in guards) else f"{said}."]


def _taken(course: Course) -> list[str]:
    """Say in how many online steps of a course's runs somebody else acted, and what they marked."""
    all_runs: list[dict[str, Any]] = [run.manifest.get("intervention") or {} for run in course.runs]
    found = [each for each in all_runs if each]
    counts = [(count, each["env_steps"]) for each in found for count in each["taken_over"]]
    if not counts:
        return []
    taken, steps = (sum(column) for column in zip(*counts, strict=True))
    share = f"{taken / max(steps, 1):.1%} of its online steps ({taken:,} of {steps:,} env_steps)"
    said = f"{course.task}, {course.method}: somebody acted in the policy's place in {share}"
    by_quarter = _by_quarter(found)
    if taken and by_quarter:
        said += f"; by quarters of the run: {', '.join(f'{part:.1%}' for part in by_quarter)}"
    marks = {word: sum(sum(each.get(word, [])) for each in found) for word in MARKS}
    if any(marks.values()):
        said += f"; marked episodes: {' and '.join(f'{n:,} {word}' for word, n in marks.items())}"
    return [f"{said}."]


def _by_quarter(found: Sequence[dict[str, Any]]) -> list[float]:
    """Return the share of steps in which somebody else acted, in each quarter of the runs.

    Counts are known at evaluations, and lie on a line between two of them. Empty where a run of an
    earlier version has no counts on its way.
    """
    taken, steps = np.zeros(len(QUARTERS) - 1), 0.0
    for each in found:
        course, whole = each.get("course", []), each["env_steps"]
        if not course or not whole:
            return []
        at, counts = zip(*((point[0], sum(point[1])) for point in course), strict=True)
        taken += np.diff(np.interp(QUARTERS * whole, [0, *at], [0, *counts]))
        steps += whole * len(each["taken_over"]) / len(taken)
    return list(taken / steps) if steps else []


def held_in(manifest: dict[str, Any]) -> list[str]:
    """Return what a run's limits did, and how near a shadow's proposals were, a sentence each."""
    said = []
    limits, shadow = manifest.get("limits"), manifest.get("shadow")
    if limits:
        each = [
            _acted(name, counts, limits["env_steps"]) for name, counts in limits["acted"].items()
        ]
        stopped = len(limits["stops"])
        stops = f"; {stopped} stop{'s' if stopped > 1 else ''} of the run" if stopped else ""
        said.append(f"limits: {'; '.join(each)}{stops}.")
    if shadow:
        count = len(shadow["agreed"])
        agreed, apart = (sum(shadow[name]) / count for name in ("agreed", "difference"))
        said.append(
            f"another acted, this policy proposed: within {shadow['near']:g} of what was done at "
            f"{agreed:.1%} of steps, {apart:.3f} apart on average (of [-1, 1])."
        )
    return said


def _acted(name: str, counts: list[int], env_steps: int) -> str:
    """Return the share of steps of all seeds in which a limit acted, and each seed's count."""
    share = sum(counts) / max(env_steps * len(counts), 1)
    each = f"; by seed {', '.join(f'{c:,}' for c in counts)}" if len(counts) > 1 else ""
    return f"{name} acted in {share:.1%} of online steps ({sum(counts):,} env_steps{each})"


def _clock(course: Course) -> list[str]:
    """Say how the runs of a course that stepped a robot kept its clock."""
    found: list[dict[str, Any]] = [run.manifest.get("control") or {} for run in course.runs]
    clocks = [each for each in found if each]
    if not clocks:
        return []
    missed, due = (sum(each[name] for each in clocks) for name in ("missed", "deadlines"))
    worst, p99 = (max(each[name] for each in clocks) for name in ("worst_ms", "p99_ms"))
    utd = min(each["utd_reached"] for each in clocks)
    return [
        f"{course.task}, {course.method}: acted on the wall clock, {clocks[0]['hz']:g} times a "
        f"second. {missed:,} of {due:,} deadlines were missed ({missed / max(due, 1):.2%}; worst "
        f"{worst:.2f} ms late, 99th percentile {p99:.2f} ms), and {utd:.2f} of "
        f"{clocks[0]['utd']} updates a step were made. Online returns are those of the robot's own "
        "episodes, none played apart."
    ]

"""Curves from elsewhere: a CSV file with a row an evaluation."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from baq_cli.errors import DataError, clipped
from baq_cli.report.curves import Curve
from baq_cli.report.method_runs import Course, Unit
from baq_cli.report.names import PUBLISHED
from baq_cli.report.notes import not_of_every_seed
from baq_cli.report.protocol import Protocol
from baq_cli.report.published_curves import published_curves
from baq_cli.runs.log import MOST_SCORE
from baq_cli.units import UNITS, Phase
from baq_cli.untrusted import read_text

REQUIRED = ("dataset", "algo", "seed_index", "phase", "eval_index")
SCORES: dict[str, Unit] = {"normalized_score": "normalized score", "return": "return"}
EVALUATIONS = "evaluations"
MOST_BYTES = 200_000_000
MARK = "\ufeff"
"""What spreadsheets begin a file of UTF-8 with."""
MOST_LETTERS, MOST_COUNT = 200, 2**53
"""Of a name; of indices and counters: numbers beyond these are none."""

Points = dict[int, tuple[int, float]]
"""Counter and score of a seed's evaluations, by their index."""
Phases = dict[Phase, dict[int, Points]]


def curves_of(words: Sequence[str], tasks: Sequence[str]) -> list[Course]:
    """Return the courses of `--curves`: of files, and of what ships by a name, on these tasks.

    A word that is a path as it stands is one. Raises UsageError and DataError as these do.
    """
    return [
        course
        for word in words
        for course in (
            published_curves(word, tasks)
            if word in PUBLISHED and not Path(word).exists()
            else read_curves(Path(word))
        )
    ]


def read_curves(path: Path) -> list[Course]:
    """Read the courses in a file of curves.

    Columns: dataset, algo, seed_index, phase (offline or online), eval_index, and
    normalized_score or return. With the columns gradient_steps and env_steps the counters are
    known; without, evaluations are counted from 1, and the last offline one stands for the
    hand-over. Evaluations that not every seed has are left out, with a note.
    Raises DataError that names the line of what can't be read.
    """
    try:
        text = read_text(path, MOST_BYTES, follow=True).removeprefix(MARK)
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        score, known = _columns(path, reader.fieldnames)
        found: dict[tuple[str, str], Phases] = defaultdict(dict)
        for row in reader:
            _add(found, row, score, known, f"{path}, line {reader.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the curves in {path}: {error}") from error
    if not found:
        raise DataError(f"{path} holds no evaluation")
    return [_course(path, key, phases, SCORES[score], known) for key, phases in found.items()]


def _columns(path: Path, names: object) -> tuple[str, bool]:
    """Return the column of scores, and whether there are counters."""
    columns = list(names) if isinstance(names, list | tuple) else []
    missing = [name for name in REQUIRED if name not in columns]
    scores = [name for name in SCORES if name in columns]
    if missing or len(scores) != 1:
        found = clipped(", ".join(clipped(name) for name in columns)) or "none"
        raise DataError(
            f"{path} has the columns {found}: expected {', '.join(REQUIRED)}, and one of "
            f"{' or '.join(SCORES)}"
        )
    return scores[0], all(unit in columns for unit in UNITS.values())


def _add(
    found: dict[tuple[str, str], Phases],
    row: dict[str, str],
    score: str,
    known: bool,
    where: str,
) -> None:
    if None in row or None in row.values():
        raise DataError(f"{where}: it has more or fewer cells than the header")
    if max(len(row["dataset"]), len(row["algo"])) > MOST_LETTERS:
        raise DataError(f"{where}: a name has more than {MOST_LETTERS} letters")
    phase = row["phase"][:MOST_LETTERS]
    if phase not in UNITS:
        raise DataError(f"{where}: phase is '{phase}', expected offline or online")
    try:
        seed, index, value = int(row["seed_index"]), int(row["eval_index"]), float(row[score])
        counter = int(row[UNITS[phase]]) if known else index + 1
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {error}") from error
    numbers = (seed, index, counter)
    if not (abs(value) <= MOST_SCORE and min(numbers) >= 0 and max(numbers) < MOST_COUNT):
        raise DataError(f"{where}: expected a finite score and indices of 0 or more")
    points = found[row["dataset"], row["algo"]].setdefault(phase, {}).setdefault(seed, {})
    if index in points:
        raise DataError(
            f"{where}: seed {seed} has two {phase} evaluations {index} of {row['algo']} on "
            f"{row['dataset']}"
        )
    points[index] = (counter, value)


def _course(path: Path, key: tuple[str, str], phases: Phases, unit: Unit, known: bool) -> Course:
    task, method = key
    curves, notes = {}, []
    for phase, seeds in phases.items():
        by_seed = _by_counter(path, key, phase, seeds)
        curve = curves[phase] = _curve(path, method, phase, by_seed, known)
        left_out = len(set().union(*by_seed.values())) - len(curve.counters)
        if left_out:
            notes.append(not_of_every_seed(task, method, phase, left_out))
    if not known and "online" in curves and "offline" in curves:
        curves["online"] = _from_handover(curves["online"], curves["offline"])
    protocol: Protocol = {}
    if known:
        protocol = {curve.unit: int(curve.counters[-1]) for curve in curves.values()}
    return Course(task, method, curves, unit, protocol, steps_known=known, notes=tuple(notes))


def _by_counter(
    path: Path, key: tuple[str, str], phase: Phase, seeds: dict[int, Points]
) -> dict[int, dict[int, float]]:
    """Return the scores of each seed by their counter, seeds in rising order.

    Raises DataError where two evaluations of a seed have the same one.
    """
    found: dict[int, dict[int, float]] = {}
    for seed, points in sorted(seeds.items()):
        found[seed] = of_seed = {}
        for counter, score in points.values():
            if counter in of_seed:
                task, method = key
                raise DataError(
                    f"{path}: seed {seed} has two {phase} evaluations of {method} on {task} at "
                    f"{counter:,} {UNITS[phase]}: expected one"
                )
            of_seed[counter] = score
    return found


def _curve(
    path: Path, method: str, phase: Phase, by_seed: dict[int, dict[int, float]], known: bool
) -> Curve:
    """Return a phase's curve of the evaluations that every seed has."""
    counters = sorted(set.intersection(*(set(points) for points in by_seed.values())))
    if not counters:
        raise DataError(f"{path}: the seeds of {method} share no {phase} evaluation")
    returns = [[points[counter] for counter in counters] for points in by_seed.values()]
    unit = UNITS[phase] if known else EVALUATIONS
    return Curve(method, phase, unit, np.asarray(counters), np.asarray(returns), tuple(by_seed))


def _from_handover(online: Curve, offline: Curve) -> Curve:
    """Begin an online curve with each seed's last offline evaluation, at counter 0.

    As it is where a seed has none: its hand-over isn't known then.
    """
    if not {*online.seeds} <= {*offline.seeds}:
        return online
    rows = [offline.seeds.index(seed) for seed in online.seeds]
    return replace(
        online,
        counters=np.concatenate([[0], online.counters]),
        returns=np.concatenate([offline.returns[rows, -1:], online.returns], axis=1),
    )

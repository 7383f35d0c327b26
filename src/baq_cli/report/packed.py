"""A course as cells of a table, JSON in each, and back, without loss of what a report shows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from baq_cli.envs.scores import Reference
from baq_cli.errors import DataError
from baq_cli.report.curves import Curve, PhaseCurves
from baq_cli.report.external import EVALUATIONS, MOST_COUNT
from baq_cli.report.method_runs import ESTIMATED, Course, Unit
from baq_cli.report.run_facts import (
    DatasetFields,
    EnvironmentFields,
    ManifestFields,
    ReferenceFields,
    RunFacts,
    Score,
    check_recipe,
)
from baq_cli.runs.checked import Checked, Count, check_content
from baq_cli.runs.files import parse_json
from baq_cli.units import UNITS, Phase

CURVES: Mapping[Phase, str] = {"offline": "offline_curve", "online": "online_curve"}
RUNS, FACTS = "runs", "facts"
COLUMNS = (*CURVES.values(), RUNS, FACTS)
PLAIN = tuple(
    field.name
    for field in fields(Course)
    if field.name not in ("curves", "runs", "reference", "notes")
)
"""What of a course is JSON as it is."""
IN_SHEETS = {";": "\\u003b", "|": "\\u007c"}
"""What many a spreadsheet divides cells at, as JSON may write it within its words."""
MOST_WORDS = 10_000
"""Letters of a name, a note or a folder."""
Words = Annotated[str, Field(max_length=MOST_WORDS)]
Position = Annotated[int, Field(ge=0, lt=MOST_COUNT)]


@dataclass(frozen=True)
class Row:
    """A seed's row: its seed, None where a course has none, and its cells of `COLUMNS`."""

    seed: int | None
    cells: Mapping[str, str]


class _CurveFields(Checked):
    counters: list[Position] = Field(min_length=1)
    scores: list[Score | None]


class _RunFields(Checked):
    place: Count
    folder: Words
    recipe: dict[str, Any]
    manifest: ManifestFields
    estimate: list[Annotated[tuple[Count, Score], Field(strict=False)]]


class _RunsFields(Checked):
    runs: list[_RunFields]


class _EstimateFields(Checked):
    discount: Annotated[float, Field(ge=0, lt=1)]
    updates: Count


class _ProtocolFields(Checked):
    gradient_steps: Count | None = None
    env_steps: Count | None = None
    episodes: Count | None = Field(None, alias="evaluation.episodes")
    environment: EnvironmentFields | None = None
    estimate: _EstimateFields | None = None


class _CourseFields(Checked):
    task: Words
    method: Words
    place: Count
    unit: Unit
    protocol: _ProtocolFields
    environment: EnvironmentFields | None
    dataset: DatasetFields | None
    reference: ReferenceFields | None
    steps_known: bool
    published: bool
    notes: list[Words]


def as_json(value: Any) -> str:
    """Return a value as JSON in letters that no spreadsheet divides, executes or changes."""
    text = json.dumps(_proper(value), separators=(",", ":"))
    for letter, written in IN_SHEETS.items():  # they stand within words alone
        text = text.replace(letter, written)
    return text


def _proper(value: Any) -> Any:
    """Return a value with words that are Unicode; half a character, of a file's name, is `?`."""
    if isinstance(value, Mapping):
        return {_proper(key): _proper(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_proper(part) for part in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


# -- to cells


def packed(course: Course, place: int) -> list[Row]:
    """Return a course as rows, one a seed, and one where it has none.

    `place` is its place among the courses. A run stands in the row of the first seed that it
    trained, what the course says beside its runs in the first row.
    """
    cells: dict[int | None, dict[str, str]] = {seed: {} for seed in course.seeds or (None,)}
    for phase, curve in course.curves.items():
        for seed, scores in zip(curve.seeds, curve.returns.tolist(), strict=True):
            known = [None if math.isnan(score) else score for score in scores]
            cells[seed][CURVES[phase]] = as_json(
                {curve.unit: curve.counters.tolist(), course.unit: known}
            )
    first = next(iter(cells))
    runs: dict[int | None, list[dict[str, Any]]] = {}
    for i, run in enumerate(course.runs):
        trained = (seed for seed in run.recipe["seeds"] if seed in cells)
        runs.setdefault(next(trained, first), []).append(_run(run, i))
    for owner, found in runs.items():
        cells[owner][RUNS] = as_json(found)
    cells[first][FACTS] = as_json(_facts(course, place))
    return [Row(seed, of_seed) for seed, of_seed in cells.items()]


def _run(run: RunFacts, place: int) -> dict[str, Any]:
    said = {key: run.manifest[key] for key in ManifestFields.model_fields if key in run.manifest}
    return {
        "place": place,
        "folder": run.folder.as_posix(),
        "recipe": run.recipe,
        "manifest": said,
        "estimate": [*run.estimate.items()],
    }


def _facts(course: Course, place: int) -> dict[str, Any]:
    reference = None if course.reference is None else asdict(course.reference)
    plain = {name: getattr(course, name) for name in PLAIN}
    return {"place": place, **plain, "reference": reference, "notes": course.notes}


# -- from cells


def begins(row: Row) -> bool:
    """Tell whether a row is a course's first."""
    return bool(row.cells[FACTS])


def unpacked(rows: Sequence[Row], file: Path) -> tuple[int, Course]:
    """Return the course in rows that `packed` made, and its place.

    Raises DataError for rows that it can't have made.
    """
    facts = parse_json(rows[0].cells[FACTS], file)
    check_content(_CourseFields, facts, file)
    reference = None if facts["reference"] is None else Reference(
        *(facts["reference"][key] for key in ("label", "random", "expert", "source"))
    )  # fmt: skip
    found = ((phase, _curve(rows, phase, facts, file)) for phase in CURVES)
    curves: PhaseCurves = {phase: curve for phase, curve in found if curve is not None}
    return facts["place"], Course(
        **{name: facts[name] for name in PLAIN if name in facts},
        curves=curves,
        runs=_runs(rows, file),
        reference=reference,
        notes=tuple(facts["notes"]),
    )


def _curve(rows: Sequence[Row], phase: Phase, facts: Mapping[str, Any], file: Path) -> Curve | None:
    """Return the curve of the seeds that have one, None where none has."""
    counted: list[tuple[str, list[int]]] = []
    returns, seeds = [], []
    for row in rows:
        if not row.cells[CURVES[phase]] or row.seed is None:
            continue
        cell = parse_json(row.cells[CURVES[phase]], file)
        unit = next((name for name in (UNITS[phase], EVALUATIONS) if name in cell), "")
        said: dict[str, Any] = {"counters": cell.get(unit), "scores": cell.get(facts["unit"])}
        check_content(_CurveFields, said, file)
        counted.append((unit, said["counters"]))
        returns.append([math.nan if score is None else score for score in said["scores"]])
        seeds.append(row.seed)
    if not counted:
        return None
    unit, counters = counted[0]
    rising = all(one < other for one, other in pairwise(counters))
    whole = all(len(scores) == len(counters) for scores in returns)
    if not rising or not whole or any(of_seed != counted[0] for of_seed in counted):
        raise DataError(f"{file} is damaged: the {phase} curves of a method don't fit each other")
    return Curve(
        facts["method"],
        phase,
        unit,
        np.asarray(counters, dtype=np.int64),
        np.asarray(returns, dtype=np.float64),
        tuple(seeds),
        estimated=facts["unit"] == ESTIMATED,
    )


def _runs(rows: Sequence[Row], file: Path) -> tuple[RunFacts, ...]:
    found: list[tuple[int, RunFacts]] = []
    for row in rows:
        if not row.cells[RUNS]:
            continue
        said = parse_json(f'{{"runs":{row.cells[RUNS]}}}', file)
        check_content(_RunsFields, said, file)
        for run in said["runs"]:
            check_recipe(run["recipe"], file)
            estimate = dict(run["estimate"])
            facts = RunFacts(Path(run["folder"]), run["recipe"], run["manifest"], estimate)
            found.append((run["place"], facts))
    return tuple(run for _, run in sorted(found, key=lambda each: each[0]))

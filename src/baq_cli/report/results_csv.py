"""results.csv: a row a seed, every statistic, and all that a report is made of, to read back."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from baq_cli.errors import DataError, clipped
from baq_cli.report import packed
from baq_cli.report.document import Failure, ReportInfo
from baq_cli.report.method_runs import Course
from baq_cli.runs.checked import Checked, Count, Finite, check_content
from baq_cli.runs.files import SEAL, disk_errors, hash_of, parse_json, replace_file
from baq_cli.untrusted import read_text

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\n")
"""What a spreadsheet takes for the beginning of a formula, or leaves out before one."""
_LINE_END = re.compile("\r\n?")
_INNER = re.compile(r"""([;|\t\n][\s"]*)(?=[-=+@＝＋－＠])""")
"""A formula within a text: many a spreadsheet divides cells where these stand, in quotes or not."""
SUFFIXES = {"env_steps": "env_steps", "score·env_steps": "score_env_steps"}
ABOUT = (
    "task",
    "environment",
    "dataset_sha256",
    "method",
    "source",
    "seed",
    "unit",
    "threshold",
    "optimum",
)
REPORT = "report"
SOURCE = (*packed.COLUMNS, REPORT)
"""The columns that a report is rebuilt from; every number beside them is made of theirs."""
MOST_BYTES = 200_000_000
REBUILT = (
    "Rebuilt from results.csv alone, which has every evaluation, recipe, version and command, but "
    "neither the returns of single episodes, nor what training logged, nor the policies: those lie "
    "in the runs' folders, which are named as they were where the runs were made."
)


class _FailureFields(Checked):
    task: packed.Words
    method: packed.Words
    error: str
    seeds: list[Count] = Field([])


class _ReportFields(Checked):
    title: packed.Words
    commands: list[str]
    order: list[packed.Words]
    threshold: Finite | None
    failures: list[_FailureFields]
    sha256: str = Field(min_length=1)


@dataclass(frozen=True)
class Sheet:
    """What a results.csv was made of: courses, and what the report said beside its numbers."""

    courses: tuple[Course, ...]
    told: ReportInfo


# -- written


def write_sheet(
    document: Mapping[str, Any], courses: Sequence[Course], told: ReportInfo, path: Path
) -> Path:
    """Write a document's per-seed statistics as CSV, UTF-8 without a mark; return the path.

    A row for each task, method and seed. A statistic's column is called as the document calls it,
    with its unit behind it; where it has none, it is in the scores' unit, which is in `unit`, as
    are `threshold` and `optimum`. A cell is empty where a value is not known or never came. Numbers
    are written to the last digit. Before what a spreadsheet would take for a formula stands an
    apostrophe, at the beginning of a name and after a separator in it. The columns of `SOURCE`
    hold, as JSON, the courses and what was told; the file is sealed by a hash of its cells.
    Raises DataError when the file can't be written.
    """
    names = {name: column(name, of["unit"]) for name, of in document["statistics"].items()}
    header = [*ABOUT, *names.values(), *SOURCE]
    rows = [[_text(row.get(name)) for name in header] for row in _rows(document, courses, names)]
    rows = rows or [["" for _ in header]]
    rows[0][-1] = _sealed(header, rows, told)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    with disk_errors(f"write the results {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.getvalue().encode())
    return path


def column(name: str, unit: str) -> str:
    """Return the column of a statistic: its name, then its unit unless the name says it."""
    suffix = SUFFIXES.get(unit, "")
    return name if suffix in name else f"{name}_{suffix}"


def _rows(
    document: Mapping[str, Any], courses: Sequence[Course], names: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    places = {(course.task, course.method): i for i, course in enumerate(courses)}
    for task in document["tasks"]:
        shared = {
            "task": task["name"],
            "environment": task["environment"],
            "dataset_sha256": (task["dataset"] or {}).get("sha256"),
            **{key: task[key] for key in ("unit", "threshold", "optimum")},
        }
        for method in document["methods"]:
            results = task["methods"].get(method)
            if results is None:
                continue
            of_method = shared | {"method": method, "source": results["source"]}
            place = places.get((task["name"], method))
            of_seeds = [] if place is None else packed.packed(courses[place], place)
            for i, seed in enumerate(results["seeds"] or [None]):
                values = {
                    names[name]: statistic["per_seed"][i]
                    for name, statistic in results["statistics"].items()
                    if seed is not None
                }
                cells = of_seeds[i].cells if of_seeds else {}
                yield of_method | {"seed": seed} | values | dict(cells)


def _text(value: Any) -> str:
    """Return what stands in a cell: text that a spreadsheet doesn't execute, numbers to the last
    digit, nothing for None."""
    if not isinstance(value, str):
        return "" if value is None else str(value)
    text = value.encode("utf-8", "replace").decode()  # a name of a file may hold half a character
    text = _LINE_END.sub("\n", text).replace("\0", "\ufffd")  # readers stumble over either
    text = _INNER.sub(r"\1'", text)
    return f"'{text}" if text.startswith(FORMULA) else text


def _sealed(header: Sequence[str], rows: Sequence[Sequence[str]], told: ReportInfo) -> str:
    """Return the cell that says what was told, with the seal of the whole table."""
    said = {
        "title": told.title,
        "commands": told.commands,
        "order": told.order,
        "threshold": told.threshold,
        "failures": [vars(failure) for failure in told.failures],
    }
    return packed.as_json(said | {SEAL: _digest(header, rows, packed.as_json(said))})


def _digest(header: Sequence[str], rows: Sequence[Sequence[str]], said: str) -> str:
    """Return the hash of a table's cells with `said` in the last one of its first row."""
    first, *others = rows
    return hash_of(json.dumps([header, [*first[:-1], said], *others]).encode())


# -- read back


def read_sheet(path: Path) -> Sheet:
    """Read a results.csv back: what `write_sheet` was given.

    Raises DataError when it can't be read, is of a version that wrote statistics alone, or is not
    what was written.
    """
    header, rows = _read(path)
    said = parse_json(rows[0][-1], path)
    check_content(_ReportFields, said, path)
    if said.pop(SEAL) != _digest(header, rows, packed.as_json(said)):
        raise DataError(
            f"{path} is not what was written (its SHA-256 differs): it was damaged, edited, or "
            "saved by another program. Restore it from a copy, or write it again: 'baq report RUNS'"
        )
    groups: list[list[packed.Row]] = []
    for cells in (dict(zip(header, row, strict=True)) for row in rows):
        row = packed.Row(_seed(cells["seed"], path), cells)
        if packed.begins(row):
            groups.append([])
        if groups:
            groups[-1].append(row)
    courses = sorted((packed.unpacked(group, path) for group in groups), key=lambda each: each[0])
    failures = tuple(
        Failure(of["task"], of["method"], of["error"], tuple(of.get("seeds", ())))
        for of in said["failures"]
    )
    told = ReportInfo(
        said["title"], tuple(said["commands"]), failures, said["threshold"], tuple(said["order"]),
        (REBUILT,),
    )  # fmt: skip
    return Sheet(tuple(course for _, course in courses), told)


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return a sheet's header and its rows, one at least."""
    try:
        text = read_text(path, MOST_BYTES, follow=True).replace("\r\n", "\n")
        with _long_cells():
            header, *rows = [*csv.reader(io.StringIO(text, newline=""), strict=True)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the results {path}: {error}") from error
    if tuple(header[-len(SOURCE) :]) != SOURCE or not {*ABOUT} <= {*header}:
        found = clipped(", ".join(map(clipped, header))) or "none"
        raise DataError(
            f"{path} has the columns {found}: expected a results.csv that ends with the columns "
            f"{', '.join(SOURCE)}, which earlier versions didn't write. Write it again: 'baq "
            "report RUNS'"
        )
    if not rows or any(len(row) != len(header) for row in rows):
        raise DataError(f"{path} is damaged: its rows are not as long as its header")
    return header, rows


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let cells be as long as the file may be: the module's limit is for all of Python."""
    before = csv.field_size_limit(MOST_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _seed(text: str, path: Path) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise DataError(f"{path} is damaged: {clipped(text)} is no seed")
    return int(text)

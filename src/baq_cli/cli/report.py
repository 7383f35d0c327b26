"""`baq report`: a page, tables and figures of comparisons, runs, results.csv, and other curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.errors import DataError, UsageError, clipped
from baq_cli.report.names import plain

if TYPE_CHECKING:
    from baq_cli.report.document import Document, Failure, ReportInfo
    from baq_cli.report.joining import Found
    from baq_cli.report.method_runs import Course

MOST_NAMED = 6
"""Methods, or datasets, that a title names; of more it says how many."""


def report(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Comparisons ('baq compare --out'), runs, and a report's results.csv; NAME=RUN "
            "names a run.",
            metavar="[NAME=]PATH",
            autocompletion=completion.reported,
        ),
    ] = None,
    curves: opt.Curves = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the report goes; default: the one comparison's folder."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Score whose environment steps are counted; default: data mean + std."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="The report's title.")] = None,
    json: opt.Json = False,
) -> None:
    """Write report.html, report.md, figures, results.csv and results.json; print the tables.

    Files of curves have the columns dataset, algo, seed_index, phase (offline or online),
    eval_index, and normalized_score or return; with gradient_steps and env_steps they stand beside
    own runs.

    Runs of one method on one task with other seeds are one method with all of them; with other
    settings they get these behind their name, or are named by hand: NAME=RUN. A report's
    results.csv alone gives the same report again.
    """
    named, files = [Named.of(word) for word in paths or []], curves or []
    if threshold is not None and not math.isfinite(threshold):
        raise UsageError(f"--threshold {threshold}: expected a score, a finite number")
    if not named and not files:
        raise UsageError("nothing to report: give a comparison's folder, runs, or --curves FILE")
    if out is None:
        if len(named) != 1:
            raise UsageError("give --out DIR: where the report goes")
        out = named[0].path.parent if named[0].path.is_file() else named[0].path
    write_and_show(named, files, out, threshold, title, json)


@dataclass(frozen=True)
class Named:
    """A comparison or a run, and a name that was given to it by hand."""

    path: Path
    name: str | None = None

    @classmethod
    def of(cls, word: str) -> Named:
        """Read PATH or NAME=PATH; what exists as it stands is a path.

        Raises UsageError for a word that is neither.
        """
        name, equals, rest = word.partition("=")
        if not equals or Path(word).exists():
            return cls(Path(word))
        if not plain(name) or not rest:
            raise UsageError(f"cannot read {clipped(word)}: expected a folder, or NAME=RUN")
        return cls(Path(rest), plain(name))


def write_and_show(
    paths: list[Named],
    curves: Sequence[str],
    out: Path,
    threshold: float | None,
    title: str | None,
    json: bool,
) -> None:
    """Write the report of what lies at paths, and print its tables."""
    from baq_cli.cli.results import print_json, show_comparison

    document, page = write_document(paths, curves, out, threshold, title)
    if json:
        print_json(document)
    else:
        show_comparison(document, page)


def write_document(
    paths: list[Named],
    curves: Sequence[str],
    out: Path,
    threshold: float | None,
    title: str | None,
) -> tuple[Document, Path]:
    """Write the report of what lies at paths; return its document, and the path of its page."""
    from baq_cli.report.document import ReportInfo, build_document
    from baq_cli.report.external import curves_of
    from baq_cli.report.joining import Found, join
    from baq_cli.report.write import write_report

    sources = [_gather(path) for path in paths]
    found = [each for source in sources for each in source.found]
    saids = [source.told for source in sources]
    missing = [failure for said in saids for failure in said.failures]
    tasks = [*(each.course.task for each in found), *(failure.task for failure in missing)]
    found += [Found(course) for course in curves_of(curves, list(dict.fromkeys(tasks)))]
    courses, became = join(found)
    if len(saids) == 1 and not curves:  # the same report again, where it is of one results.csv
        title = title or saids[0].title
        threshold = saids[0].threshold if threshold is None else threshold
    order = [name for said in saids for asked in said.order for name in became.get(asked, [asked])]
    told = ReportInfo(
        title or _title(courses or missing),
        tuple(dict.fromkeys(command for said in saids for command in said.commands)),
        tuple(missing),
        threshold,
        tuple(order),
        tuple(dict.fromkeys(note for said in saids for note in said.notes)),
    )
    document = build_document(courses, told)
    return document, write_report(document, courses, told, out)


@dataclass(frozen=True)
class _Source:
    """What one path holds: courses, and what is to be said beside their numbers."""

    found: list[Found]
    told: ReportInfo


def _gather(named: Named) -> _Source:
    """Return what a comparison, a run or a results.csv holds."""
    from baq_cli.launch.cells import load_cells
    from baq_cli.launch.outcome import outcome
    from baq_cli.report.document import ReportInfo
    from baq_cli.report.joining import Found
    from baq_cli.report.method_runs import course_of
    from baq_cli.report.results_csv import read_sheet

    path = named.path
    cells = [] if path.is_file() else load_cells(path)
    if named.name is not None and (cells or path.is_file()):
        raise UsageError(
            f"{clipped(named.name)}={path}: a name is for a run, and {path} is of a comparison, "
            f"whose methods have names: give it without one"
        )
    if path.is_file():
        sheet = read_sheet(path)
        return _Source([Found(course) for course in sheet.courses], sheet.told)
    if cells:
        courses, failures = outcome(cells)
        commands, order = ([getattr(cell, key) for cell in cells] for key in ("command", "method"))
        told = ReportInfo("", tuple(commands), tuple(failures), order=tuple(order))
        return _Source([Found(course) for course in courses], told)
    if not (path / "manifest.json").exists():
        raise DataError(
            f"{path} holds neither a comparison nor a run: expected the --out of 'baq compare', "
            "'baq pretrain' or 'baq finetune', or a report's results.csv"
        )
    course = course_of([path], named.name)
    told = ReportInfo("", tuple(run.manifest["command"] for run in course.runs))
    return _Source([Found(course, by_hand=named.name is not None)], told)


def _title(found: Sequence[Course | Failure]) -> str:
    """Return the title of what is there, or, where nothing is, of what is missing."""
    return heading([each.method for each in found], [each.task for each in found])


def heading(methods: Iterable[str], tasks: Iterable[str]) -> str:
    """Return what is compared in a line: names, or of many how many they are."""
    of_methods, of_tasks = (
        ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} {what}"
        for names, what in ((dict.fromkeys(methods), "methods"), (dict.fromkeys(tasks), "datasets"))
    )
    return f"{of_methods} on {of_tasks}"

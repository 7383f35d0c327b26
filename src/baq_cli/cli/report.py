"""`baq report`: a page, tables and figures of comparisons, runs, and curves from elsewhere."""

from __future__ import annotations

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
    from baq_cli.report.document import Failure
    from baq_cli.report.joining import Found
    from baq_cli.report.method_runs import Course

MOST_NAMED = 6
"""Methods, or datasets, that a title names; of more it says how many."""


def report(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Comparisons ('baq compare --out') and runs; NAME=RUN names a run.",
            metavar="[NAME=]PATH",
            autocompletion=completion.reported,
        ),
    ] = None,
    curves: opt.Curves = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the report goes; default: the one comparison.")
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
    settings they get these behind their name, or are named by hand: NAME=RUN.
    """
    named, files = [_named(word) for word in paths or []], curves or []
    if not named and not files:
        raise UsageError("nothing to report: give a comparison's folder, runs, or --curves FILE")
    if out is None:
        if len(named) != 1:
            raise UsageError("give --out DIR: where the report goes")
        out = named[0].path
    write_and_show(named, files, out, threshold, title, json)


@dataclass(frozen=True)
class Named:
    """A comparison or a run, and a name that was given to it by hand."""

    path: Path
    name: str | None = None


def _named(word: str) -> Named:
    """Read PATH or NAME=PATH; what exists as it stands is a path."""
    name, equals, rest = word.partition("=")
    if not equals or Path(word).exists():
        return Named(Path(word))
    if not plain(name) or not rest:
        raise UsageError(f"cannot read {clipped(word)}: expected a folder, or NAME=RUN")
    return Named(Path(rest), plain(name))


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
    from baq_cli.report.document import ReportInfo, build_document
    from baq_cli.report.external import curves_of
    from baq_cli.report.joining import Found, join
    from baq_cli.report.write import write_report

    found: list[Found] = []
    failures: list[Failure] = []
    commands: list[str] = []
    order: list[str] = []
    for path in paths:
        there, missing = _gather(path, commands, order)
        found += there
        failures += missing
    tasks = list(dict.fromkeys(each.course.task for each in found))
    found += [Found(course) for course in curves_of(curves, tasks)]
    courses, became = join(found)
    ordered = [name for asked in order for name in became.get(asked, [asked])]
    told = ReportInfo(
        title or _title(courses), tuple(dict.fromkeys(commands)), tuple(failures), threshold,
        tuple(ordered),
    )  # fmt: skip
    document = build_document(courses, told)
    page = write_report(document, out)
    if json:
        print_json(document)
    else:
        show_comparison(document, page)


def _gather(
    named: Named, commands: list[str], order: list[str]
) -> tuple[list[Found], list[Failure]]:
    """Return what a comparison or a run holds, and note its commands and methods."""
    from baq_cli.launch.cells import load_cells
    from baq_cli.launch.outcome import outcome
    from baq_cli.report.joining import Found
    from baq_cli.report.method_runs import course_of

    path = named.path
    cells = load_cells(path)
    if cells:
        if named.name is not None:
            raise UsageError(
                f"{clipped(named.name)}={path}: a name is for a run, and {path} is a comparison, "
                f"whose methods have names: give it without one"
            )
        commands += [cell.command for cell in cells]
        order += [cell.method for cell in cells]
        courses, failures = outcome(cells)
        return [Found(course) for course in courses], failures
    if not (path / "manifest.json").exists():
        raise DataError(
            f"{path} holds neither a comparison nor a run: expected the --out of 'baq compare', "
            "'baq pretrain' or 'baq finetune'"
        )
    course = course_of([path], named.name)
    commands += [run.manifest["command"] for run in course.runs]
    return [Found(course, by_hand=named.name is not None)], []


def _title(courses: list[Course]) -> str:
    return heading([course.method for course in courses], [course.task for course in courses])


def heading(methods: Iterable[str], tasks: Iterable[str]) -> str:
    """Return what is compared in a line: names, or of many how many they are."""
    of_methods, of_tasks = (
        ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} {what}"
        for names, what in ((dict.fromkeys(methods), "methods"), (dict.fromkeys(tasks), "datasets"))
    )
    return f"{of_methods} on {of_tasks}"

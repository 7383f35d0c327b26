"""`baq report`: a page, tables and figures of comparisons, runs, and curves from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baq_cli.cli import options as opt
from baq_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from baq_cli.report.courses import Course
    from baq_cli.report.document import Failure


def report(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Comparisons ('baq compare --out') and runs.")
    ] = None,
    curves: Annotated[
        list[Path] | None,
        typer.Option(help="A CSV file of curves from elsewhere. Repeatable.", metavar="FILE"),
    ] = None,
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

    Curves have the columns dataset, algo, seed_index, phase (offline or online), eval_index, and
    normalized_score or return; with gradient_steps and env_steps they stand beside own runs.
    """
    paths, files = paths or [], curves or []
    if not paths and not files:
        raise UsageError("nothing to report: give a comparison's folder, runs, or --curves FILE")
    if out is None:
        if len(paths) != 1:
            raise UsageError("give --out DIR: where the report goes")
        out = paths[0]
    write_and_show(paths, files, out, threshold, title, json)


def write_and_show(
    paths: list[Path],
    curves: list[Path],
    out: Path,
    threshold: float | None,
    title: str | None,
    json: bool,
) -> None:
    """Write the report of what lies at paths, and print its tables."""
    from baq_cli.cli.results import print_json, show_comparison
    from baq_cli.report.document import Told, build_document
    from baq_cli.report.external import read_curves
    from baq_cli.report.write import write_report

    courses: list[Course] = []
    failures: list[Failure] = []
    commands: list[str] = []
    order: list[str] = []
    for path in paths:
        found, missing = _gather(path, commands, order)
        courses += found
        failures += missing
    for file in curves:
        courses += read_curves(file)
    told = Told(
        title or _title(courses), tuple(dict.fromkeys(commands)), tuple(failures), threshold,
        tuple(order),
    )  # fmt: skip
    document = build_document(courses, told)
    page = write_report(document, out)
    if json:
        print_json(document)
    else:
        show_comparison(document, page)


def _gather(
    path: Path, commands: list[str], order: list[str]
) -> tuple[list[Course], list[Failure]]:
    """Return what a comparison or a run holds, and note its commands and methods."""
    from baq_cli.launch.matrix import load_cells
    from baq_cli.launch.outcome import outcome
    from baq_cli.report.courses import course_of

    cells = load_cells(path)
    if cells:
        commands += [cell.command for cell in cells]
        order += [cell.method for cell in cells]
        return outcome(cells)
    if not (path / "manifest.json").exists():
        raise DataError(
            f"{path} holds neither a comparison nor a run: expected the --out of 'baq compare', "
            "'baq pretrain' or 'baq finetune'"
        )
    course = course_of([path])
    commands += [run.manifest["command"] for run in course.runs]
    return [course], []


def _title(courses: list[Course]) -> str:
    methods = dict.fromkeys(course.method for course in courses)
    tasks = dict.fromkeys(course.task for course in courses)
    return f"{', '.join(methods)} on {', '.join(tasks)}"

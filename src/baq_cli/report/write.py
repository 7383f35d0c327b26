"""A report as files: the document, and everything that shows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from baq_cli.report.document import Document, ReportInfo
from baq_cli.report.figures import draw_figures
from baq_cli.report.markdown import write_markdown
from baq_cli.report.method_runs import Course
from baq_cli.report.page import write_page
from baq_cli.report.results_csv import write_sheet
from baq_cli.runs.files import disk_errors, replace_file

PAGE, TEXT, SHEET, DOCUMENT, FIGURES = (
    "report.html",
    "report.md",
    "results.csv",
    "results.json",
    "figures",
)


def write_report(
    document: Document, courses: Sequence[Course], told: ReportInfo, folder: Path
) -> Path:
    """Write a report into a folder, and return its page.

    `courses` and `told` are what the document was built of; results.csv has them all.
    Raises DataError when a file can't be written.
    """
    with disk_errors(f"write a report in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / DOCUMENT, json.dumps(document, allow_nan=False).encode())
    write_sheet(document, courses, told, folder / SHEET)
    figures = draw_figures(document, folder / FIGURES)
    write_markdown(document, folder / TEXT, figures)
    return write_page(document, folder / PAGE)

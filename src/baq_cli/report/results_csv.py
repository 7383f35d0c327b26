"""results.csv: every statistic of every seed, a row a seed, for a spreadsheet or pandas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from baq_cli.runs.files import disk_errors, replace_file

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


def write_sheet(document: dict[str, Any], path: Path) -> Path:
    """Write a document's per-seed statistics as CSV, UTF-8 without a mark; return the path.

    A row for each task, method and seed. A statistic's column is called as the document calls it,
    with its unit behind it; where it has none, it is in the scores' unit, which is in `unit`, as
    are `threshold` and `optimum`. A cell is empty where a value is not known or never came. Numbers
    are written to the last digit. Before what a spreadsheet would take for a formula stands an
    apostrophe, at the beginning of a name and after a separator in it.
    Raises DataError when the file can't be written.
    """
    text = io.StringIO()
    names = {name: column(name, of["unit"]) for name, of in document["statistics"].items()}
    writer = csv.DictWriter(text, [*ABOUT, *names.values()], lineterminator="\n")
    writer.writeheader()
    for row in _rows(document, names):
        writer.writerow({name: _cell(value) for name, value in row.items()})
    with disk_errors(f"write the results {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.getvalue().encode("utf-8", "replace"))
    return path


def column(name: str, unit: str) -> str:
    """Return the column of a statistic: its name, then its unit unless the name says it."""
    suffix = SUFFIXES.get(unit, "")
    return name if suffix in name else f"{name}_{suffix}"


def _rows(document: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
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
            for i, seed in enumerate(results["seeds"]):
                values = {
                    names[name]: statistic["per_seed"][i]
                    for name, statistic in results["statistics"].items()
                }
                yield of_method | {"seed": seed} | values


def _cell(value: Any) -> Any:
    """Return what stands in a cell: text that a spreadsheet doesn't execute, numbers as they are.

    Python writes None as an empty cell, and a float with all its digits.
    """
    if not isinstance(value, str):
        return value
    text = _LINE_END.sub("\n", value).replace("\0", "\ufffd")  # readers stumble over either
    text = _INNER.sub(r"\1'", text)
    return f"'{text}" if text.startswith(FORMULA) else text

"""The page of a comparison: one HTML file that opens from disk and asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from baq_cli.report import page_view
from baq_cli.report.summary import mean_over_seeds, std_over_seeds
from baq_cli.runs.files import disk_errors, replace_file

if TYPE_CHECKING:
    from jinja2 import Template

SCRIPTS = ("theme.js", "traces.js", "figures.js", "report.js")
SIGNIFICANT = 6


def write_page(document: dict[str, Any], path: Path) -> Path:
    """Write a comparison's document as a page, `path`, and return that path.

    The page holds its data, its styles and Plotly's own script; its content policy forbids every
    request. Names are escaped wherever they stand.
    Raises DataError when the file can't be written.
    """
    content = render(document).encode("utf-8", "replace")  # a file's name may hold half a character
    with disk_errors(f"write the report {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    return path


def render(document: dict[str, Any]) -> str:
    """Return the page of a document as HTML."""
    from markupsafe import Markup

    scripts = {"plotly.js": _plotly(), **{name: _asset(name) for name in SCRIPTS}}
    return _template().render(
        page_view.context(document),
        policy=content_policy(scripts.values()),
        scripts={name: Markup(text) for name, text in scripts.items()},
        css=Markup(_asset("report.css")),
        data=Markup(embedded(document)),
    )


# -- what is inlined


def content_policy(scripts: Iterable[str]) -> str:
    """Return a content security policy: these scripts run and no other, nothing is fetched."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in scripts)
    sources = " ".join(f"'sha256-{digest.decode()}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def embedded(document: Mapping[str, Any]) -> str:
    """Return the document as JSON that may stand inside a script element.

    Numbers have six significant digits. Curves get their `mean` and `std` over seeds, so that the
    page draws what `report.summary` defines.
    """
    tasks = [
        task | {"methods": {name: _with_means(of) for name, of in task["methods"].items()}}
        for task in document["tasks"]
    ]
    text = json.dumps(_rounded({**document, "tasks": tasks}), separators=(",", ":"))
    for character in "<>&":  # all else that matters is escaped: the text is ASCII
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _with_means(results: dict[str, Any]) -> dict[str, Any]:
    curves = {}
    for phase, curve in results["curves"].items():
        scores = np.array(curve["scores"], dtype=np.float64)
        means = {"mean": mean_over_seeds(scores), "std": std_over_seeds(scores)}
        curves[phase] = curve | {name: line.tolist() for name, line in means.items()}
    return results | {"curves": curves}


def _rounded(value: Any) -> Any:
    """Return a JSON-able value with short numbers; what is not finite becomes None."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{SIGNIFICANT}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


@cache
def _plotly() -> str:
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("baq_cli.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(page_view.FILTERS)
    return environment.get_template("report.html.j2")


@cache
def _asset(name: str) -> str:
    return (resources.files("baq_cli.report") / "assets" / name).read_text("utf-8")

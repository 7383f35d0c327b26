"""A report's document in the terminal: a table a task, and one across tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from baq_cli.report.document import Document
from baq_cli.report.names import printable_lines
from baq_cli.report.page_aggregates import AGGREGATES, on_the_way
from baq_cli.report.page_view import ALL_TASKS, ENDS, OF_PAIRS, pair_decimals, unlike_bases
from baq_cli.report.wording import of_seeds
from baq_cli.units import tenths

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

MISSING = "–"
SHOWN = ("offline", "handover", "deepest_dip", "dip_env_steps", "online_mean", "final")
"""The statistics that fit beside each other; results.csv has all of them."""


def comparison_tables(document: Document) -> Group:
    """Return a document's tables and notes, as Rich prints them."""
    from rich.console import Group

    from baq_cli.report.fitting import Fitting

    parts: list[Any] = []
    for task in document["tasks"]:
        parts += [_text(f"{_title(task)}\n"), Fitting(_task_table(document, task)), _text("")]
    if document["aggregates"] is not None:
        parts += _aggregates(document)
    if document["against_base"]:
        parts += [*_against_base(document), _text("")]
    parts.append(
        _text(
            "Mean over seeds [95 % bootstrap interval]; bold where the best one's interval lies "
            "apart from all others'."
        )
    )
    parts += [_text(note) for note in document["notes"]]
    for failure in document["failures"]:
        name = f"{failure['task']}, {failure['method']}{of_seeds(failure['seeds'])}"
        parts.append(_text(f"missing: {name}: {failure['error']}"))
    return Group(*parts)


def _title(task: Mapping[str, Any]) -> str:
    protocol = task["protocol"]
    budgets = [
        f"{protocol[unit]:,} {unit}" for unit in ("gradient_steps", "env_steps") if protocol[unit]
    ]
    return " · ".join(filter(None, [task["name"], task["environment"], task["unit"], *budgets]))


def _task_table(document: Document, task: Mapping[str, Any]) -> Table:
    table = _table()
    table.add_column("method", no_wrap=True)
    shown = [*SHOWN, *(["estimate"] if _is_estimated(task) else [])]
    for name in shown:
        table.add_column(document["statistics"][name]["heading"], justify="right")
    table.add_column("seeds", justify="right")
    decimals = _decimals(task)
    for method, entry in task["methods"].items():
        cells = []
        for name in shown:
            counted = document["statistics"][name]["unit"] == "env_steps"
            text = _cell(entry["statistics"][name], 0 if counted else decimals)
            cells.append(_text(text, "bold" if name in entry["best_in"] else ""))
        table.add_row(_text(method), *cells, str(len(entry["seeds"])))
    return table


def _is_estimated(task: Mapping[str, Any]) -> bool:
    return any("estimate" in entry["statistics"] for entry in task["methods"].values())


def _aggregates(document: Document) -> list[Any]:
    from baq_cli.report.fitting import Fitting

    found = document["aggregates"]
    unit = found["unit"]
    count = len(found["tasks"])
    table = _table()
    table.add_column("method", no_wrap=True)
    for heading in AGGREGATES.values():
        table.add_column(heading, justify="right")
    table.add_column("runs", justify="right")
    every = [
        of for numbers in found["methods"].values() for name in AGGREGATES if (of := numbers[name])
    ]
    places = tenths(of[end] for of in every for end in ENDS)
    for method, numbers in found["methods"].items():
        cells = [_text(_interval(numbers[name], places)) for name in AGGREGATES]
        table.add_row(_text(method), *cells, str(found["runs"][method]))
    over = f"{count} tasks" if count > 1 else "one task"
    parts = [_text(f"across {over} · final {unit}\n"), Fitting(table), _text("")]
    first, *others = found["methods"]
    chances = {i["y"]: i for i in found["improvement"] if i["x"] == first}
    for other in others:
        text = _interval(chances[other], 2)
        parts.append(_text(f"P({first} > {other}) = {text}"))
    if others:
        parts.append(_text(""))
    return [*parts, *_on_the_way(document)]


def _on_the_way(document: Document) -> list[Any]:
    from baq_cli.report.fitting import Fitting

    found = on_the_way(document)
    table = _table()
    table.add_column("method", no_wrap=True)
    for _, heading, _, _ in found["columns"]:
        table.add_column(heading, justify="right")
    for _, method, of in found["rows"]:
        cells = [_interval(of[kind], places) for kind, _, _, places in found["columns"]]
        table.add_row(_text(method), *cells)
    return [_text("on the way\n"), Fitting(table), _text("")]


def _against_base(document: Document) -> list[Any]:
    from baq_cli.report.fitting import Fitting

    table = _table()
    for heading in ("method", "base", "task"):
        table.add_column(heading, no_wrap=heading != "task")
    for name in OF_PAIRS:
        table.add_column(document["statistics"][name]["heading"], justify="right")
    table.add_column("pairs", justify="right")
    for row in document["against_base"]:
        cells = [_interval(row["statistics"][name], pair_decimals(row)) for name in OF_PAIRS]
        names = row["method"], row["base"], row["task"] or ALL_TASKS
        table.add_row(*map(_text, names), *cells, f"{row['pairs']}")
    told = map(_text, unlike_bases(document))
    return [_text("a method minus its base, seed by seed\n"), Fitting(table), *told]


def _cell(statistic: Mapping[str, Any], decimals: int) -> str:
    if statistic["never"]:
        return f"never ({statistic['never']} of {statistic['never'] + statistic['count']})"
    if statistic["mean"] is None:
        return MISSING
    return _interval({**statistic, "value": statistic["mean"]}, decimals)


def _interval(numbers: Mapping[str, Any] | None, decimals: int) -> str:
    if numbers is None or numbers["value"] is None:
        return MISSING
    value = f"{numbers['value']:,.{decimals}f}"
    if numbers["low"] is None:
        return value
    return f"{value} [{numbers['low']:,.{decimals}f}, {numbers['high']:,.{decimals}f}]"


def _decimals(task: Mapping[str, Any]) -> int:
    """Return one number of decimals for a task, by its largest final score, else offline."""
    found = [entry["statistics"] for entry in task["methods"].values()]
    of_phase = [[of[name]["mean"] for of in found] for name in ("final", "offline")]
    known = [[abs(mean) for mean in means if mean is not None] for means in of_phase]
    largest = max(known[0] or known[1], default=0.0)
    return 3 if largest < 10 else 1 if largest < 1000 else 0


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def _text(plain: str, style: str = "") -> Text:
    """Return text that Rich prints as it is: a name may hold brackets."""
    from rich.text import Text

    return Text(printable_lines(plain), style=style)

"""Tables for the terminal, and the same numbers as plain records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from baq_cli.report.definitions import DEFINITIONS
from baq_cli.report.names import printable_lines
from baq_cli.report.summary import RunSummary, Statistic
from baq_cli.units import amount

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

MISSING = "–"
ESTIMATED = (
    "Estimated discounted return at the dataset's start states, by fitted Q evaluation from the "
    "data alone: no episode was played."
)
SHOWN = ("offline", "handover", "deepest_dip", "final")
"""The statistics that fit beside each other in a terminal; records have all of them."""


def run_table(summary: RunSummary) -> Group:
    """Return a table of one run: a row a seed, then mean ± spread.

    Statistics of a phase that the run doesn't have are left out.
    """
    from baq_cli.report.fitting import Fitting

    decimals = _decimals([summary])
    names = [name for name in SHOWN if summary[name].count]
    table = _table()
    table.add_column("seed", no_wrap=True)
    for name in names:
        heading = DEFINITIONS[name].heading + " (estimate)" * summary.estimated
        table.add_column(heading, justify="right")
    for i, seed in enumerate(summary.seeds):
        cells = [_number(float(summary[name].values[i]), decimals) for name in names]
        table.add_row(str(seed), *cells)
    table.add_section()
    table.add_row("mean ± std", *(_mean_and_spread(summary[name], decimals) for name in names))
    what = ESTIMATED if summary.estimated else "Raw return."
    return _framed(_title([summary], summary.label), Fitting(table), f"{what} {_notes([summary])}")


def as_records(summaries: Iterable[RunSummary]) -> list[dict[str, Any]]:
    """Return summaries as dicts that JSON can hold: None stands for what is not known.

    Each statistic has `mean`, `std` (over seeds), `low` and `high` (the 95 % bootstrap interval of
    the mean), `count` (of seeds with a value), `never` (of seeds that never got there: theirs is
    None, and so is the mean) and `per_seed`, in the order of `seeds`; `estimated` says that no
    episode was played. `gradient_steps` and
    `env_steps` are those of the last evaluation.
    """
    return [
        {
            "method": summary.label,
            "environment": summary.environment,
            "dataset": summary.dataset,
            "estimated": summary.estimated,
            "seeds": list(summary.seeds),
            "gradient_steps": summary.gradient_steps,
            "env_steps": summary.env_steps,
            **{name: _record(summary[name]) for name in DEFINITIONS},
        }
        for summary in summaries
    ]


def _record(statistic: Statistic) -> dict[str, Any]:
    never = int(statistic.never.sum())
    return {
        "mean": _finite(statistic.mean),
        "std": _finite(statistic.std),
        "low": _finite(statistic.low),
        "high": _finite(statistic.high),
        "count": statistic.count - never,
        "never": never,
        "per_seed": [_finite(float(value)) for value in statistic.values],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- parts of a table


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def _framed(title: str, table: RenderableType, caption: str) -> Group:
    """Put a title above and a caption below, as wide as the terminal and not as the table."""
    from rich.console import Group

    return Group(_text(f"{title}\n"), table, _text(f"\n{caption}"))


def _text(plain: str) -> Any:
    """Return text that Rich prints as it is: a name may hold brackets."""
    from rich.text import Text

    return Text(printable_lines(plain))


def _title(summaries: Sequence[RunSummary], label: str = "") -> str:
    """Return what all the runs share: method, dataset and environment."""
    datasets = {summary.dataset for summary in summaries} - {None}
    environments = {summary.environment for summary in summaries}
    shared = [names.pop() for names in (datasets, environments) if len(names) == 1]
    return " · ".join(part for part in (label, *shared) if part)


def _notes(summaries: Sequence[RunSummary]) -> str:
    """Say what was measured when, where all runs share it."""
    offline = {s.gradient_steps for s in summaries if s.gradient_steps is not None}
    online = {s.env_steps for s in summaries if s.env_steps is not None}
    notes = []
    if len(offline) == 1:
        notes.append(f"Offline: after {amount(offline.pop(), 'gradient step')}.")
    if len(online) == 1:
        notes.append(f"Final: after {amount(online.pop(), 'environment step')}.")
    if any(summary["deepest_dip"].count for summary in summaries):
        notes.append(
            "Deepest dip: hand-over score minus the lowest evaluation of the first quarter online "
            "(where that has none, the first one after the hand-over)."
        )
    return " ".join(notes)


def _decimals(summaries: Sequence[RunSummary]) -> int:
    """Return one number of decimals for a table, by its largest mean."""
    means = [abs(summary[name].mean) for summary in summaries for name in SHOWN]
    largest = max((mean for mean in means if math.isfinite(mean)), default=0.0)
    return 3 if largest < 10 else 1 if largest < 1000 else 0


def _mean_and_spread(statistic: Statistic, decimals: int) -> str:
    if not statistic.count:
        return MISSING
    return f"{_number(statistic.mean, decimals)} ± {_number(statistic.std, decimals)}"


def _number(value: float, decimals: int) -> str:
    return MISSING if math.isnan(value) else f"{value:.{decimals}f}"

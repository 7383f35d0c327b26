"""What commands print on stdout when they are done."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from baq_cli.cli.say import say
from baq_cli.report.names import printable_lines
from baq_cli.units import scores

if TYPE_CHECKING:
    from baq_cli.cli.screen import Screen
    from baq_cli.data.episodes import Finding
    from baq_cli.envs.scores import Reference
    from baq_cli.report.document import Document

Array = npt.NDArray[Any]
A_SENTENCE = 24
"""Letters of a text beyond which it is words, which may be folded; names and numbers may not."""
PIPE_WIDTH = 160
MOST_LISTED = 24


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    say(json_module.dumps(value, indent=2).replace("\x7f", "\\u007f"))


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows that share their keys as a table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from baq_cli.report.fitting import Fitting

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in rows[0] if rows else ["nothing here"]:
        table.add_column(name, overflow="fold")
    prose = {name for row in rows for name, value in row.items() if _is_a_sentence(value)}
    columns = [_column(values) for values in zip(*(row.values() for row in rows), strict=True)]
    for cells in zip(*columns, strict=True):
        table.add_row(*(Text(printable_lines(cell)) for cell in cells))
    _console().print(Fitting(table, prose))


def _is_a_sentence(value: Any) -> bool:
    return isinstance(value, str) and len(value) > A_SENTENCE and " " in value


def print_card(facts: dict[str, Any]) -> None:
    """Print a dataset's card as two columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=box.SIMPLE, show_edge=False)
    for key, value in facts.items():
        if value not in (None, "", [], {}):
            table.add_row(key, Text(printable_lines(_entry(value))))
    _console().print(table)


def _entry(value: Any) -> str:
    """Return a card's entry in a line, or in a line for each thing in it."""
    if isinstance(value, dict):
        return "  ".join(f"{name}: {_short(number)}" for name, number in value.items())
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "\n".join(
            f"{s['score']:.1f} by {s['reference']} (random {_short(s['random'])}, expert "
            f"{_short(s['expert'])}: {s['source']})"
            for s in value
        )
    if isinstance(value, list) and value and isinstance(value[0], str):
        return "\n".join(value)
    if isinstance(value, list):
        more = f", … ({len(value)} in all; --json has them)" if len(value) > MOST_LISTED else ""
        return ", ".join(_short(v) for v in value[:MOST_LISTED]) + more
    return _short(value)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_short(v) for v in value)
    if isinstance(value, float) and value.is_integer():
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_findings(dataset_id: str, found: Sequence[Finding], as_json: bool) -> None:
    """Print what the checks of a dataset found, or that there is nothing."""
    if as_json:
        print_json({"dataset": dataset_id, "findings": [vars(finding) for finding in found]})
    elif found:
        print_table([{"level": f.level, "check": f.check, "found": f.text} for f in found])
    else:
        say(f"{dataset_id}: nothing found, every check passed")


def _console() -> Screen:
    """Return stdout as wide as the terminal, or wide enough for any table in a pipe."""
    from baq_cli.cli.screen import Screen

    console = Screen()
    return console if console.is_terminal else Screen(width=PIPE_WIDTH)


def show_comparison(document: Document, page: Path) -> None:
    """Print a report's tables, and where its page is."""
    from baq_cli.report.terminal import comparison_tables

    console = _console()
    console.print(comparison_tables(document))
    console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)


def show_advice(document: dict[str, Any]) -> None:
    """Print advice: what it rests on, what follows, and what speaks against it."""
    from baq_cli.advice.terminal import advice_text

    _console().print(advice_text(document))


def show_run(run: Path, as_json: bool) -> None:
    """Draw a run's curves, and print its summary and where the picture is."""
    from baq_cli.report.figure import draw
    from baq_cli.report.method_runs import course_of, environment_name, plays_and_has_no_return
    from baq_cli.report.notes import held_in
    from baq_cli.report.summary import summarise
    from baq_cli.report.tables import as_records, run_table

    if plays_and_has_no_return(run):
        if as_json:
            print_json({"run": str(run), "curves": None, "results": []})
        else:
            say(f"{run}: no episode has ended yet, so there is no return to draw")
        return
    course = course_of([run])
    label, environment = course.method, environment_name(course.environment)
    dataset = course.dataset or {}
    summary = summarise(label, course.curves, environment, dataset.get("id"))
    title = " · ".join(filter(None, [label, environment, dataset.get("id")]))
    mean = dataset.get("return_mean")
    png, _ = draw({label: course.curves}, run, title, dataset_return=mean, unit=course.unit)
    if as_json:
        print_json({"run": str(run), "curves": str(png), "results": as_records([summary])})
        return
    console = _console()
    console.print(run_table(summary))
    for said in held_in(course.runs[-1].manifest):
        console.print(said, markup=False, highlight=False, soft_wrap=True)
    console.print(f"curves: {png} (and .svg)", markup=False, highlight=False, soft_wrap=True)


def show_evaluation(
    document: dict[str, Any],
    returns: Array,
    lengths: Array,
    env: str,
    as_json: bool,
    reference: Reference | None = None,
    video: Path | None = None,
) -> None:
    """Print raw returns `[S, episodes]` by seed, and after them the score by a reference."""
    rows = _rows_of(document["seeds"], returns, lengths)
    means = returns.mean(1)
    deviation = float(means.std(ddof=1)) if len(means) > 1 else None
    score = None if reference is None else _score(reference, means, deviation)
    if as_json:
        found = {"return_mean": float(means.mean()), "return_std_over_seeds": deviation}
        known = {key: document[key] for key in ("gradient_steps", "env_steps")}
        print_json(
            {"algo": document["algo"], "environment": env, **known, **found, "seeds": rows}
            | {"video": None if video is None else str(video), "score": score}
        )
        return
    print_table(rows)
    mean, spread = scores(means.mean(), deviation)
    spread = spread and f" ± {spread} over {len(means)} seeds"
    say(f"{document['algo']} on {env}: return {mean}{spread}")
    if reference is not None and score is not None:
        spread = "" if deviation is None else f" ± {score['std_over_seeds']:.1f}"
        random, expert = scores(reference.random, reference.expert)
        say(
            f"normalised by {reference.label} (random {random}, expert {expert}; "
            f"{reference.source}): {score['mean']:.1f}{spread}"
        )
    if video is not None:
        say(f"filmed: {video}")


def _rows_of(seeds: Sequence[int], returns: Array, lengths: Array) -> list[dict[str, Any]]:
    """Return what is shown of each seed's episodes, `[S, episodes]`."""
    return [
        {
            "seed": seed,
            "return": float(r.mean()),
            "std": float(r.std()),
            "min": float(r.min()),
            "max": float(r.max()),
            "mean_length": float(n.mean()),
            "episodes": len(r),
        }
        for seed, r, n in zip(seeds, returns, lengths, strict=True)
    ]


def _score(reference: Reference, means: Array, deviation: float | None) -> dict[str, Any]:
    return {
        "reference": reference.label,
        "source": reference.source,
        "mean": float(reference.normalize(float(means.mean()))),
        "std_over_seeds": None if deviation is None else reference.scale(deviation),
    }


def _column(values: Sequence[Any]) -> list[str]:
    """Return a column's cells as text, its numbers with the same digits."""
    numbers = [value if isinstance(value, float) else None for value in values]
    told = zip(values, numbers, scores(*numbers, grouped=True), strict=True)
    return [
        score if number is not None else "" if value is None else str(value)
        for value, number, score in told
    ]

"""report.md: a comparison as Markdown, for a repository, an issue or a review."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from baq_cli.report import page_aggregates, wording
from baq_cli.report import page_view as view
from baq_cli.report.across_figures import aggregated, shown_pairs
from baq_cli.report.figures import curves_stems
from baq_cli.report.markdown_task import facts, task_tables
from baq_cli.report.markup import bullets, code, escaped, table, unbroken
from baq_cli.report.page_recipes import recipe_groups
from baq_cli.runs.files import disk_errors, replace_file
from baq_cli.units import decimals

Document = Mapping[str, Any]
Draw = Callable[[str, str], Iterator[str]]
"""Takes a figure's stem and what it shows; yields the image, nothing for a figure not drawn."""
ARROWS = {"higher": "↑", "lower": "↓"}
OF_AGGREGATES = {
    "IQM": "the interquartile mean: the mean of the middle half of all runs' scores.",
    "median": "the median over tasks of each task's mean score.",
    "mean": "the mean over tasks of each task's mean score.",
    "optimality gap": "by how much runs fall short of a score of 100, on average; a run beyond it "
    "falls short by nothing.",
    "probability of improvement": "how probably a run of X scores higher than a run of Y on the "
    "same task, ties counted half; the mean over tasks.",
}
MEANINGS = {
    "95 % interval": "between the 2.5th and the 97.5th percentile over bootstrap samples: seeds "
    "are drawn again with replacement, within each task.",
    "return": "the sum of an episode's rewards, undiscounted; an evaluation is the mean over its "
    "episodes.",
    "normalized score": "the return on a scale where a random policy has 0 and the reference "
    "expert 100.",
    "gradient steps, environment steps": "updates of the networks; actions in the environment "
    "during training. Both of one seed alone.",
}

ESTIMATED = {
    "estimated discounted return": "what a policy that was trained on data alone is said to be "
    "worth: the sum of discounted rewards from a start state of the dataset on, by fitted Q "
    "evaluation. No episode was played.",
}


def write_markdown(document: dict[str, Any], path: Path, figures: Sequence[Path] = ()) -> Path:
    """Write a document as Markdown and return the path.

    `figures` are the files that `draw_figures` returned: their PNGs are linked, relative to the
    report. Names are escaped wherever they stand.
    Raises DataError when the file can't be written.
    """
    links = {
        figure.stem: quote(Path(os.path.relpath(figure, path.parent)).as_posix())
        for figure in figures
        if figure.suffix == ".png"
    }
    with disk_errors(f"write the report {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, render(document, links).encode())
    return path


def render(document: Document, links: Mapping[str, str]) -> str:
    """Return a document as Markdown; `links` are the figures' addresses by their stems."""

    def draw(stem: str, about: str) -> Iterator[str]:
        if stem in links:
            yield f"![{escaped(about)}]({links[stem]})"

    blocks = [
        *_head(document),
        *_tasks(document, draw),
        *_across(document, draw),
        *_against_base(document),
        *_recipes(document),
        *_runs(document),
        *_definitions(document),
    ]
    return "\n\n".join(blocks) + "\n"


# -- what was compared


def _head(document: Document) -> Iterator[str]:
    made = document["made"]
    yield f"# {escaped(document['title'])}"
    yield escaped(view.compared(document))
    yield f"Made {escaped(wording.instant(made['at']))} by baq {escaped(made['baq'])}."
    if document["notes"]:
        yield "## Read this first"
        yield bullets(map(escaped, document["notes"]))
    if document["failures"]:
        yield "## What failed"
        rows = [
            [of["task"], of["method"] + wording.of_seeds(of["seeds"]), of["error"]]
            for of in document["failures"]
        ]
        yield table(["task", "method", "error"], [list(map(escaped, row)) for row in rows], 3)


# -- tasks


def _tasks(document: Document, draw: Draw) -> Iterator[str]:
    stems = curves_stems(document)
    yield "## Tasks"
    yield (
        "Mean over seeds with its 95 % bootstrap interval. **Bold**: the best, where the intervals "
        "justify saying so. –: no value."
    )
    for task in document["tasks"]:
        yield f"### {escaped(task['name'])}"
        yield bullets(facts(task))
        yield from draw(stems[task["name"]], f"Learning curves on {task['name']}")
        yield from task_tables(document, task)


# -- all tasks together


def _across(document: Document, draw: Draw) -> Iterator[str]:
    of = document["aggregates"]
    if of is None:
        return
    statistic = document["statistics"].get(of["statistic"], {}).get("heading", of["statistic"])
    count = len(of["tasks"])
    yield "## All tasks together"
    yield (
        f"The {escaped(statistic)} score ({of['unit']}) of every run on {count} "
        f"task{'s' * (count > 1)}. Brackets, bars and bands: 95 % bootstrap intervals over seeds "
        "within tasks."
    )
    yield from draw("aggregates", "Aggregates with intervals")
    yield _aggregates_table(document)
    yield from _on_the_way(document)
    pairs = shown_pairs(document)
    if pairs:
        yield "### Probability of improvement"
        yield from draw("improvement", "Probabilities of improvement with intervals")
        yield _improvement_table(pairs)
        if len(pairs) < len(of["improvement"]) / 2:
            yield "The other pairs are in results.json."
    for stem, title in (("profiles", "Performance profiles"), ("efficiency", "Sample efficiency")):
        for image in draw(stem, title):
            yield f"### {title}"
            yield image


def _aggregates_table(document: Document) -> str:
    of = document["aggregates"]
    methods = list(aggregated(document))
    columns = {
        kind: [of["methods"][name][kind] for name in methods]
        for kind in page_aggregates.AGGREGATES
        if any(of["methods"][name][kind] for name in methods)
    }
    places = {
        kind: decimals(entry["value"] for entry in column if entry)
        for kind, column in columns.items()
    }
    headings = [
        f"{heading} {ARROWS['lower' if kind == 'optimality_gap' else 'higher']}"
        for kind, heading in page_aggregates.AGGREGATES.items()
        if kind in columns
    ]
    rows = [
        [
            escaped(name),
            str(of["runs"].get(name, wording.MISSING)),
            *(_interval(column[i], places[kind]) for kind, column in columns.items()),
        ]
        for i, name in enumerate(methods)
    ]
    return table(["method", "runs", *headings], rows)


def _on_the_way(document: Document) -> Iterator[str]:
    found = page_aggregates.on_the_way(document)
    yield "### On the way"
    yield found["about"]
    rows = [
        [escaped(name), *(_interval(of[kind], places) for kind, _, _, places in found["columns"])]
        for _, name, of in found["rows"]
    ]
    headings = [f"{escaped(heading)} {arrow}".strip() for _, heading, arrow, _ in found["columns"]]
    yield table(["method", *headings], rows)


def _improvement_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    rows = [[escaped(pair["x"]), escaped(pair["y"]), _interval(pair, 2)] for pair in pairs]
    return table(["X", "Y", "P(X &gt; Y)"], rows, text_columns=2)


def _interval(found: Mapping[str, Any] | None, decimals: int) -> str:
    if found is None:
        return wording.MISSING
    value, low, high = (wording.fixed(found[end], decimals) for end in ("value", "low", "high"))
    return value if wording.MISSING in (low, high) else f"{value} {unbroken(f'[{low}, {high}]')}"


def _against_base(document: Document) -> Iterator[str]:
    if not document["against_base"]:
        return
    yield "## Against its own base"
    yield view.ABOUT_PAIRS
    rows = [
        [
            *(escaped(row[key] or view.ALL_TASKS) for key in ("method", "base", "task")),
            *(_interval(row["statistics"][n], view.pair_decimals(row)) for n in view.OF_PAIRS),
            str(row["pairs"]),
        ]
        for row in document["against_base"]
    ]
    headings = [document["statistics"][name]["heading"] for name in view.OF_PAIRS]
    yield table(["method", "base", "task", *headings, "pairs"], rows, 3)
    yield from map(escaped, view.unlike_bases(document))


# -- beside the numbers


def _recipes(document: Document) -> Iterator[str]:
    groups = recipe_groups(document)
    if groups:
        yield "## Where the recipes differ"
    for group in groups:
        if len(document["tasks"]) > 1:
            yield f"On {', '.join(map(escaped, group['tasks']))}:"
        rows = [
            [escaped(key), *(escaped(values.get(m, wording.MISSING)) for m in group["methods"])]
            for key, values in group["rows"].items()
        ]
        yield table(["key", *map(escaped, group["methods"])], rows)


def _runs(document: Document) -> Iterator[str]:
    found = view.runs_view(document["runs"])
    yield "## Commands"
    if document["commands"]:
        yield code(document["commands"])
    if not found["runs"]:
        return
    if found["run_commands"]:
        yield "The command of each run:"
        yield code(found["run_commands"])
    yield "## Runs"
    keys = ("method", "task", "folder", "git_revision")
    rows = [
        [
            *(escaped(str(run[key] or wording.MISSING)) for key in keys),
            escaped(wording.instant(run["started"])),
            escaped(run["took"]),
            str(run["setup"]),
        ]
        for run in found["runs"]
    ]
    yield table(["method", "task", "folder", "git revision", "started", "took", "set-up"], rows, 5)
    yield bullets(
        f"Set-up {i}: {escaped(', '.join(_setup(setup)))}"
        for i, setup in enumerate(found["setups"], 1)
    )


def _setup(setup: Mapping[str, Any]) -> Iterator[str]:
    for part in ("versions", "hardware"):
        for name, value in (setup[part] or {}).items():
            yield f"{name} {wording.plain(value)}"


def _definitions(document: Document) -> Iterator[str]:
    yield "## Definitions and units"
    rows = [
        [
            escaped(of["heading"]),
            f"{wording.in_words(of['unit'])} {ARROWS[of['better']]}",
            escaped(of["definition"]),
        ]
        for of in document["statistics"].values()
    ]
    yield table(["statistic", "unit", "definition"], rows, text_columns=3)
    yield "A statistic's score is in the task's unit. ↑: higher is better; ↓: lower is better."
    meanings = MEANINGS if document["aggregates"] is None else OF_AGGREGATES | MEANINGS
    if any(task["protocol"].get("estimate") for task in document["tasks"]):
        meanings = meanings | ESTIMATED
    yield bullets(f"**{name}**: {meaning}" for name, meaning in meanings.items())

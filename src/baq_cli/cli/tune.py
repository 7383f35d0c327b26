"""`baq tune`: a search of a method's keys, chosen on some seeds and reported on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.cells import STATUS, PhaseFlags, PlaceFlags, show_standing
from baq_cli.cli.groups import RunByDefault
from baq_cli.cli.planned import open_tasks
from baq_cli.cli.report import Named, write_document

if TYPE_CHECKING:
    from baq_cli.data.episodes import Episodes
    from baq_cli.launch.cells import Cell
    from baq_cli.launch.drive import CellFailure
    from baq_cli.launch.places import Place
    from baq_cli.launch.tuning.plan import Plan
    from baq_cli.launch.tuning.search import Search
    from baq_cli.launch.tuning.trials import Trial
    from baq_cli.recipes.load import Layer
    from baq_cli.runs.events import Event

    Watcher = Callable[[str, Event], None]


app = typer.Typer(
    help="Search a method's keys (Optuna); 'baq tune status OUT' says how far it is.",
    cls=RunByDefault,
    rich_markup_mode=None,
)


@app.command(RunByDefault.default)
@opt.grouped
def tune(
    out: Annotated[Path, typer.Option(help="The search's folder.")],
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="What to search: KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=V1,V2. Repeatable.",
            metavar="…",
            autocompletion=completion.grid,
        ),
    ] = None,
    algo: opt.Algo = None,
    recipe: opt.RecipeName = None,
    dataset: Annotated[
        str | None, typer.Option(help="A Minari dataset.", autocompletion=completion.dataset)
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Settings that are tried; default: 20.", min=1)
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds that choose: how many (3 means 0,1,2), or which (4,7; 10..14)."),
    ] = None,
    report_seeds: Annotated[
        str | None,
        typer.Option(help="Seeds that the chosen setting is reported on: others than choose."),
    ] = None,
    chosen_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="What chooses. online (default): the mean of the online evaluations; final: the "
            "last of them; pretraining: its last evaluation; offline: its estimate from data.",
            autocompletion=completion.chosen_from,
        ),
    ] = None,
    env_steps_budget: Annotated[
        int | None,
        typer.Option(
            help="Environment steps, training and evaluations, after which no further trial runs.",
            min=1,
        ),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(help="Settings proposed together, and run side by side; default: 4.", min=1),
    ] = None,
    prune_below: Annotated[
        float | None,
        typer.Option(
            help="Stop a trial below this percentile of earlier ones at the same evaluation; "
            "default: 50, 0: never.",
            min=0,
            max=100,
        ),
    ] = None,
    sampler_seed: Annotated[
        int | None, typer.Option(help="Of the proposals; default: 0.", min=0)
    ] = None,
    *,
    phases: PhaseFlags,
    place: PlaceFlags,
    json: opt.Json = False,
    overrides: opt.Overrides = None,
) -> None:
    """Try settings of a method, choose the best, and report it on seeds that didn't choose it.

    Each trial runs as a cell of 'baq compare' does, with all seeds that choose. The same command
    again continues, to the same trials. What the search cost in environment steps is counted and
    said; the chosen setting is written as a recipe.
    """
    from baq_cli.launch.tuning.optuna_rules import require_optuna
    from baq_cli.launch.tuning.plan import plan_search
    from baq_cli.recipes.load import merged, parse_overrides
    from baq_cli.recipes.search import parse_search
    from baq_cli.recipes.shipped import open_recipe

    flags = opt.flags(algo=algo, dataset=dataset, seeds=seeds, **vars(phases))
    asked = opt.flags(
        search=parse_search(search) if search else None,
        trials=trials,
        chosen_from=chosen_from,
        report_seeds=report_seeds and opt.parse_seeds(report_seeds, "--report-seeds"),
        env_steps_budget=env_steps_budget,
        at_once=at_once,
        prune_below=prune_below,
        sampler_seed=sampler_seed,
    )
    base: Layer = open_recipe(recipe) if recipe is not None else {}
    given = merged(flags, parse_overrides(overrides or []))
    plan = plan_search(base, given, asked, out, opt.command_line())
    require_optuna()
    run_search(plan, place.named(), json)


@app.command(STATUS)
def status(
    out: Annotated[
        Path, typer.Argument(help="The search's folder.", autocompletion=completion.search)
    ],
    json: opt.Json = False,
) -> None:
    """Show how far a search's trials are, from another terminal."""
    from baq_cli.launch.cells import Cell
    from baq_cli.launch.tuning.folder import begun_trials

    show_standing([Cell.load(folder) for folder in begun_trials(out)], json)


def run_search(plan: Plan, place: Place, json: bool) -> None:
    """Run a search to its end, and the chosen setting on the seeds that report; show the result."""
    from baq_cli.cli.progress import watch_cells
    from baq_cli.cli.results import print_json
    from baq_cli.cli.tuned import show_search
    from baq_cli.launch.tuning.result import result_of, write_result
    from baq_cli.runs.folder import SEARCH, check_kind
    from baq_cli.runs.lock import held

    check_kind(plan.out, SEARCH)
    title = f"search of {', '.join(plan.space)} on {plan.dataset}"
    with held(plan.out), watch_cells(title) as watcher:
        search = _opened(plan, watcher)
        search.run(_runner(place, plan.out, watcher), lambda trial: _tell(trial, watcher))
        chosen = search.best()
        reported = _reported(plan, chosen, place, watcher) if plan.asked.report_seeds else None
    found = result_of(search, chosen, reported)
    write_result(plan, found, chosen)
    if json:
        print_json(found)
    else:
        show_search(found, plan.out, None if reported is None else reported[1])


def _opened(plan: Plan, watcher: Watcher) -> Search:
    """Open the dataset; return the search in its folder, its cells with their environment."""
    from baq_cli.engine.collection.datasets import open_dataset
    from baq_cli.launch.cell_runs import beside
    from baq_cli.launch.tuning.budget import episode_limit, most_cost
    from baq_cli.launch.tuning.search import Search

    episodes: Episodes = open_dataset(plan.dataset, lambda event: watcher("data", event))
    if plan.asked.report_seeds:
        beside(plan.report_cell({}), episodes)  # refused now, and not when all is chosen
    if not plan.plays:
        return Search(plan, lambda cell: cell)
    most = 0
    if plan.asked.env_steps_budget is not None:
        most = most_cost(plan, episode_limit(plan, episodes)).total
    return Search(plan, lambda cell: beside(cell, episodes), most)


def _runner(
    place: Place, out: Path, watcher: Watcher
) -> Callable[[Sequence[Cell]], dict[str, CellFailure]]:
    from baq_cli.launch.drive import run_cells

    return lambda cells: run_cells(cells, place.open(len(cells), out), watcher)


def _reported(
    plan: Plan, chosen: Trial, place: Place, watcher: Watcher
) -> tuple[Cell, dict[str, Any]]:
    """Run the chosen setting on the seeds that report; return its cell, and its report.

    Raises its failure.
    """
    from baq_cli.launch.cells import save_matrix
    from baq_cli.launch.known import left_to_run
    from baq_cli.runs.events import Note

    name = plan.report_name(chosen.number, chosen.settings)
    out = plan.out / name
    said = f"trial {chosen.number} is chosen; it runs on the seeds that report"
    watcher("search", Note(said))
    (cell,), _ = open_tasks([plan.report_cell(chosen.settings, name)], out, watcher)
    left = left_to_run([cell])
    save_matrix([cell], out)
    failures = _runner(place, out, watcher)(left) if left else {}
    for failure in failures.values():
        raise failure
    document, _ = write_document([Named(out)], [], out, None, None)
    return cell, document


def _tell(trial: Trial, watcher: Watcher) -> None:
    from baq_cli.cli.tuned import in_a_line
    from baq_cli.runs.events import Note

    watcher("search", Note(in_a_line(trial)))

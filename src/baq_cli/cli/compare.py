"""`baq compare`: methods × datasets × seeds, from offline to online, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.cells import STATUS, PhaseFlags, PlaceFlags, show_standing
from baq_cli.cli.groups import RunByDefault
from baq_cli.cli.planned import open_tasks, show_plan, tell_how_long
from baq_cli.cli.report import Named, heading, write_and_show
from baq_cli.errors import DataError

if TYPE_CHECKING:
    from baq_cli.launch.cells import Cell
    from baq_cli.launch.places import Place
    from baq_cli.recipes.load import Layer

app = typer.Typer(
    help="Compare methods on datasets, offline to online; 'baq compare status OUT' says how far it "
    "is.",
    cls=RunByDefault,
    rich_markup_mode=None,
)


@app.command(RunByDefault.default)
@opt.grouped
def compare(
    out: Annotated[Path, typer.Option(help="The comparison's folder.")],
    algos: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas; all; published: BAQ and those whose settings the "
            "recipe says are their authors'. Default: the recipe's, else baq,awac,iql,cql.",
            autocompletion=completion.methods,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Minari datasets, separated by commas: a task each.",
            autocompletion=completion.datasets,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Shipped recipes or YAML files, separated by commas: a task each.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="Values to try, KEY.SUB=V1,V2: a cell each. Repeatable.",
            metavar="…",
            autocompletion=completion.grid,
        ),
    ] = None,
    ablate: Annotated[
        str | None,
        typer.Option(help="Methods to run without each of their parts as well, a cell each."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="published: methods as their authors ran them; matched: alike but for what makes "
            "each one; default: as recipes say."
        ),
    ] = None,
    seeds: opt.Seeds = None,
    *,
    phases: PhaseFlags,
    place: PlaceFlags,
    track: opt.Track = None,
    ope: Annotated[
        bool,
        typer.Option(
            "--ope", help="Also estimate each pre-trained policy from its dataset ('baq ope')."
        ),
    ] = False,
    curves: opt.Curves = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and about how long they take.")
    ] = False,
    json: opt.Json = False,
    overrides: opt.Overrides = None,
) -> None:
    """Pre-train and fine-tune methods on datasets; print, draw and write down what came of it.

    Each cell (a method on a dataset) trains its seeds as one program. The same command again
    continues: finished cells are kept, half-finished ones resume, failed ones are tried again.
    'baq compare status OUT' says from another terminal how far it is.
    """
    flags = opt.flags(seeds=seeds, **vars(phases), track=track)
    cells = plan_cells(
        opt.words(recipe),
        opt.flags(
            algos=opt.words(algos) or None,
            datasets=opt.words(dataset) or None,
            protocol=protocol,
            ablate=opt.words(ablate) or None,
        ),
        grid or [],
        flags,
        overrides or [],
        out,
    )
    if curves:
        from baq_cli.report.external import curves_of

        curves_of(curves, list(dict.fromkeys(cell.task for cell in cells)))  # before days are spent
    named = place.named()
    if dry_run:
        show_plan(cells, out, named.workers, json)
    else:
        run_comparison(cells, out, named, json, ope, curves or [])


@app.command(STATUS)
def status(
    out: Annotated[
        Path,
        typer.Argument(help="The comparison's folder.", autocompletion=completion.comparison),
    ],
    json: opt.Json = False,
) -> None:
    """Show how far a comparison is, from another terminal."""
    from baq_cli.launch.cells import load_cells
    from baq_cli.runs.folder import SEARCH

    cells = load_cells(out)
    if not cells:
        tuned = ". 'baq tune status' shows how far a search is" if (out / SEARCH).exists() else ""
        raise DataError(f"{out} holds no comparison: expected the --out of a 'baq compare'{tuned}")
    show_standing(cells, json)


def plan_cells(
    recipes: list[str],
    asked: Layer,
    grid: Sequence[str],
    flags: Layer,
    overrides: Sequence[str],
    out: Path,
) -> list[Cell]:
    """Return the cells that a command asks for."""
    from baq_cli.launch.matrix import asked_for, lay_out, parse_grid, tasks_of

    asked = asked | ({"grid": parse_grid(grid)} if grid else {})
    config = asked_for(recipes, asked)
    tasks = tasks_of(config, recipes, flags, overrides)
    return lay_out(tasks, config.algos, config.grid, out, opt.command_line(), config.ablate)


def run_comparison(
    cells: list[Cell],
    out: Path,
    place: Place,
    json: bool,
    ope: bool = False,
    curves: Sequence[str] = (),
) -> None:
    """Run the cells of a comparison, then show its results; with `ope`, estimates beside them.

    `curves` are those from elsewhere that the report shows beside them.

    Raises UsageError for a folder of something else, and the first cell's failure after the others
    have finished.
    """
    from baq_cli.cli.progress import watch_cells
    from baq_cli.launch.cells import save_matrix
    from baq_cli.launch.drive import run_cells
    from baq_cli.launch.known import left_to_run
    from baq_cli.launch.order import dearest_first, update_costs
    from baq_cli.runs.folder import MATRIX, check_kind
    from baq_cli.runs.lock import held

    check_kind(out, MATRIX)
    title = heading([cell.method for cell in cells], [cell.task for cell in cells])
    with held(out), watch_cells(title) as watcher:
        cells, data = open_tasks(cells, out, watcher)
        left = left_to_run(cells)
        save_matrix(cells, out)
        if left:
            costs = update_costs(left, data)
            if place.workers != 1:
                order = dearest_first(left, costs)
                left, costs = [left[i] for i in order], [costs[i] for i in order]
            if place.launcher == "local":
                tell_how_long(left, costs, data, place.workers, watcher)
        failures = run_cells(left, place.open(len(left), out), watcher) if left else {}
        if ope:
            from baq_cli.launch.cell_estimates import estimate_cells

            estimate_cells(cells, data, watcher)
    write_and_show([Named(out)], curves, out, None, None, json)
    if failures:
        raise next(iter(failures.values()))

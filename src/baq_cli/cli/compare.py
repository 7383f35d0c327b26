"""`baq compare`: several methods on one dataset, from offline to online, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baq_cli.cli import options as opt
from baq_cli.errors import UsageError

if TYPE_CHECKING:
    from baq_cli.launch.cells import Cell
    from baq_cli.recipes.load import Layer


def compare(
    out: opt.Out,
    algos: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "baq,awac,iql,cql",
    dataset: Annotated[str | None, typer.Option(help="A Minari dataset.")] = None,
    recipe: opt.RecipeName = None,
    seeds: opt.Seeds = None,
    gradient_steps: Annotated[
        int | None, typer.Option(help="Offline gradient steps a seed.", min=1)
    ] = None,
    env_steps: Annotated[
        int | None, typer.Option(help="Online environment steps a seed.", min=1)
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="Gymnasium id; default: the dataset's environment.")
    ] = None,
    device: opt.Device = None,
    workers: Annotated[
        int | None, typer.Option(help="Methods run at once; default: one a core.", min=1)
    ] = None,
    resume: opt.Resume = False,
    json: opt.Json = False,
    overrides: opt.Overrides = None,
) -> None:
    """Pre-train and fine-tune several methods, and print and draw them together."""
    given = opt.flags(
        dataset=dataset,
        seeds=seeds,
        gradient_steps=gradient_steps,
        env_steps=env_steps,
        env=env,
        device=device,
    )
    run_comparison(algos, recipe, given, overrides or [], out, workers, resume, json)


def run_comparison(
    algos: str,
    recipe: str | None,
    given: Layer,
    overrides: list[str],
    out: Path,
    workers: int | None,
    resume: bool,
    json: bool,
) -> None:
    """Run the cells of a comparison, then show its results.

    Raises the first cell's failure after the others have finished.
    """
    from baq_cli.cli.progress import watch_cells
    from baq_cli.cli.results import show_comparison
    from baq_cli.engine.datasets import open_dataset
    from baq_cli.engine.events import Note
    from baq_cli.launch.local import run_cells

    names = [name.strip() for name in algos.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise UsageError(f"--algos {algos}: expected different methods, separated by commas")
    if (out / "comparison.json").exists() and not resume:
        raise UsageError(
            f"{out} already holds a comparison: choose another --out, or add --resume."
        )
    cells = [_cell(name, recipe, given, overrides, out, resume) for name in names]
    data = cells[0].recipe["dataset"]
    if data is None:
        raise UsageError("a comparison needs a dataset: give --dataset ID ('baq data list')")
    with watch_cells(f"{', '.join(names)} on {data}") as watcher:
        # Opened here, so that it is built once and not by each worker.
        episodes = open_dataset(data, lambda event: watcher("data", event))
        cells = [cell.in_environment(episodes.origin.env_id) for cell in cells]
        _write_comparison(out, names)
        failures = run_cells(cells, workers or _cores(), watcher)
        for name, error in failures.items():
            watcher(name, Note(f"{name} failed: {error}"))
    show_comparison(out, [cell for cell in cells if cell.name not in failures], json)
    if failures:
        raise next(iter(failures.values()))


def _cell(
    algo: str, recipe: str | None, given: Layer, overrides: list[str], out: Path, resume: bool
) -> Cell:
    from baq_cli.launch.cells import Cell

    resolved = opt.build_recipe([], recipe, {**given, "algo": algo}, overrides)
    return Cell(
        algo,
        out / algo,
        resolved.as_dict(),
        opt.command_line(),
        opt.resume_command(),
        resume,
    )


def _write_comparison(out: Path, names: list[str]) -> None:
    import json as json_module

    from baq_cli.engine.files import disk_errors, replace_file

    with disk_errors(f"start a comparison in {out}"):
        out.mkdir(parents=True, exist_ok=True)
        content = {"command": opt.command_line(), "algos": names}
        replace_file(out / "comparison.json", json_module.dumps(content, indent=1).encode())


def _cores() -> int:
    import os

    return os.cpu_count() or 1

"""`baq data`: datasets in the Minari folder, and the reference ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baq_cli.cli import options as opt

app = typer.Typer(
    help="List, show, build and collect datasets.", no_args_is_help=True, rich_markup_mode=None
)

DatasetId = Annotated[str, typer.Argument(help="A dataset id, as 'baq data list' shows them.")]


@app.command("list")
def list_datasets(json: opt.Json = False) -> None:
    """List local Minari datasets and the reference ones that can be built."""
    from baq_cli.cli.results import print_json, print_table
    from baq_cli.data.minari_source import local_datasets
    from baq_cli.data.suite import SUITE

    here = local_datasets()
    rows = [
        {
            "dataset": dataset_id,
            "state": "here" if dataset_id in here else "built on demand",
            "about": SUITE[dataset_id].about if dataset_id in SUITE else "",
        }
        for dataset_id in sorted({*here, *SUITE})
    ]
    if json:
        print_json(rows)
    else:
        print_table(rows)


@app.command()
def show(dataset: DatasetId, json: opt.Json = False) -> None:
    """Show a dataset's card: environment, episodes, steps, returns, lengths, ends."""
    from baq_cli.cli.progress import watch
    from baq_cli.cli.results import print_card, print_json
    from baq_cli.data.card import card
    from baq_cli.data.minari_source import open_minari
    from baq_cli.engine.datasets import open_dataset

    with watch(dataset) as observer:
        episodes = open_dataset(dataset, observer)
    facts = card(episodes, open_minari(dataset).storage.metadata)
    if json:
        print_json(facts)
    else:
        print_card(facts)


@app.command()
def build(dataset: DatasetId) -> None:
    """Build a reference dataset into the Minari folder, unless it is there."""
    from baq_cli.cli.progress import watch
    from baq_cli.data.minari_source import local_datasets
    from baq_cli.engine.datasets import build as build_reference
    from baq_cli.engine.datasets import reference

    wanted = reference(dataset)
    if dataset in local_datasets():
        typer.echo(f"{dataset} is already there")
        return
    with watch(f"building {dataset}") as observer:
        build_reference(wanted, observer)
    typer.echo(dataset)


@app.command()
def collect(
    dataset: Annotated[str, typer.Argument(help="The id of the new dataset, as me/task/name-v0.")],
    behavior: Annotated[
        list[Path],
        typer.Option(help="A one-seed checkpoint or behaviour file; repeat it for a mix."),
    ],
    env_steps: Annotated[int, typer.Option(help="Environment steps, over all behaviours.", min=1)],
    env: Annotated[
        str | None, typer.Option(help="Gymnasium id; default: the behaviour's environment.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides start states and action noise.", min=0)] = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Take the policy's mode: no exploration.")
    ] = False,
) -> None:
    """Roll behaviours out into a new Minari dataset."""
    from baq_cli.cli.progress import watch
    from baq_cli.engine.datasets import collect_dataset

    with watch(f"collecting {dataset}") as observer:
        collect_dataset(dataset, behavior, env, env_steps, seed, deterministic, observer)
    typer.echo(dataset)


@app.command()
def behavior(
    out: Annotated[Path, typer.Argument(help="The behaviour file to write (.safetensors).")],
    checkpoint: Annotated[Path, typer.Option(help="A one-seed run or checkpoint.")],
    episodes: Annotated[int, typer.Option(help="Episodes to measure its return.", min=1)] = 50,
) -> None:
    """Keep a checkpoint's policy as a small behaviour file, with its measured return."""
    from baq_cli.engine.behaviors import describe, export_behavior

    typer.echo(describe(out, export_behavior(checkpoint, out, episodes)))

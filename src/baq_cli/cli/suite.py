"""`baq data suite`: the reference datasets, built here."""

from __future__ import annotations

from typing import Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.groups import WholeSummaries
from baq_cli.cli.say import say

app = typer.Typer(
    help="Reference datasets that the tool builds itself.",
    cls=WholeSummaries,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_suite(json: opt.Json = False) -> None:
    """List the reference datasets: environment, size, behaviour, and which are here."""
    from baq_cli.cli.results import print_json, print_table
    from baq_cli.data.minari.folder import local_datasets
    from baq_cli.data.suite import SUITE

    here = local_datasets()
    rows = [
        {
            "dataset": reference.dataset_id,
            "environment": reference.env_id,
            "env_steps": reference.transitions,
            "state": "here" if reference.dataset_id in here else "built on demand",
            "about": reference.about,
        }
        for reference in SUITE.values()
    ]
    if json:
        print_json(rows)
    else:
        print_table(rows)


@app.command()
def build(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="ID...",
            help="Reference datasets, or 'all'.",
            autocompletion=completion.reference_dataset,
        ),
    ],
    env_steps: Annotated[int | None, typer.Option(help="Another size; needs --id.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed; needs --id.", min=0)] = None,
    id: Annotated[
        str | None, typer.Option(help="Save it under this id, as me/task/name-v0.")
    ] = None,
) -> None:
    """Build reference datasets into the Minari folder; those that are there stay as they are."""
    from baq_cli.cli.progress import watch
    from baq_cli.data.minari.folder import local_datasets
    from baq_cli.data.suite import SUITE
    from baq_cli.engine.collection.datasets import build as build_reference
    from baq_cli.engine.collection.datasets import reference
    from baq_cli.errors import UsageError

    wanted = [reference(name) for name in (SUITE if datasets == ["all"] else datasets)]
    if id is not None and len(wanted) != 1:
        raise UsageError(f"--id {id} names one dataset, and this command builds {len(wanted)}")
    for each in wanted:
        usual = (
            id in (None, each.dataset_id)
            and env_steps in (None, each.transitions)
            and seed in (None, each.seed)
        )
        if usual and each.dataset_id in local_datasets():
            say(f"{each.dataset_id} is already there", err=True)
            continue
        with watch(each.dataset_id) as observer:
            say(build_reference(each, observer, env_steps, seed, id))

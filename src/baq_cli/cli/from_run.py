"""`baq data from-run`: what a run did online, as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.added import show_added, warn
from baq_cli.cli.say import say


def from_run(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The folder of a fine-tuning, at its end or under way.",
            autocompletion=completion.checkpoint,
        ),
    ],
    id: Annotated[str, typer.Option(help="The id of the new dataset, as me/task/name-v0.")],
    seed: Annotated[
        list[int] | None,
        typer.Option(help="One of the run's seeds; repeat it for more. Default: all."),
    ] = None,
    json: opt.Json = False,
) -> None:
    """Make a Minari dataset of what a run did online: checked first, saved whole or not at all."""
    from baq_cli.engine.collection.from_run import dataset_from_run

    done = dataset_from_run(run, id, seed)
    episodes = done.episodes
    for note in done.notes:
        say(note, err=True)
    warn(episodes)
    show_added(id, episodes, done.notes, json)

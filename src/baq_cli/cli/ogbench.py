"""`baq data ogbench`: an OGBench file as the dataset of one task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baq_cli.cli import options as opt
from baq_cli.cli.added import warn
from baq_cli.cli.say import say


def import_ogbench(
    file: Annotated[
        Path, typer.Argument(help="OGBench's file, by its own name: cube-double-play-v0.npz.")
    ],
    task: Annotated[
        int | None, typer.Option(help="Which task, from 1; default: the default task.", min=1)
    ] = None,
    id: Annotated[
        str | None, typer.Option(help="The new dataset's id; default: the one recipes name.")
    ] = None,
    json: opt.Json = False,
) -> None:
    """Make a Minari dataset of an OGBench file, with the rewards of one of its tasks.

    The rewards are those of OGBench's own relabelling (pip install 'baq-cli[ogbench]').
    """
    from baq_cli.cli.results import print_json
    from baq_cli.data.ogbench import save_single_task

    episodes = save_single_task(file, task, id).episodes
    warn(episodes)
    facts = {
        "dataset": episodes.dataset_id,
        "episodes": len(episodes.lengths),
        "env_steps": len(episodes),
        "done": int(episodes.terminated.sum()),
        "sha256": episodes.content_hash,
    }
    if json:
        print_json(facts)
        return
    say(
        f"{facts['dataset']}: {facts['env_steps']:,} steps, of which {facts['done']:,} begin where "
        "the task is done"
    )

"""`baq eval`: the return of a checkpoint's policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baq_cli.cli import options as opt


def evaluate(
    checkpoint: Annotated[
        Path, typer.Option(help="A run, a checkpoint folder or an agent.safetensors.")
    ],
    episodes: Annotated[int, typer.Option(help="Episodes a seed.", min=1)] = 20,
    env: Annotated[
        str | None, typer.Option(help="Gymnasium id; default: the checkpoint's environment.")
    ] = None,
    number: Annotated[
        int, typer.Option(help="Which set of start states; the same number repeats them.", min=0)
    ] = 0,
    json: opt.Json = False,
) -> None:
    """Run a checkpoint's deterministic policies and print their raw returns."""
    from baq_cli.cli.results import show_evaluation
    from baq_cli.engine.restore import evaluate_checkpoint

    returns, lengths, saved = evaluate_checkpoint(checkpoint, env, episodes, number)
    show_evaluation(saved.document, env or saved.document["env_id"], returns, lengths, json)

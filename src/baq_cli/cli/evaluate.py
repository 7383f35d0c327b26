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
    reference: Annotated[
        str | None,
        typer.Option(help="Also print a normalised score: 'd4rl', or a dataset with references."),
    ] = None,
    json: opt.Json = False,
) -> None:
    """Run a checkpoint's deterministic policies and print their raw returns."""
    from baq_cli.cli.results import show_evaluation
    from baq_cli.engine.checkpoint import locate
    from baq_cli.engine.files import read_document
    from baq_cli.engine.restore import evaluate_checkpoint
    from baq_cli.engine.scoring import find_reference

    env_id = env or str(
        read_document(locate(checkpoint), follow=checkpoint.is_file()).get("env_id")
    )
    scored_by = None if reference is None else find_reference(reference, env_id)
    returns, lengths, saved = evaluate_checkpoint(checkpoint, env, episodes, number)
    show_evaluation(saved.document, env_id, returns, lengths, json, scored_by)

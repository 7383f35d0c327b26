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
    env_arg: opt.EnvArg = None,
    max_episode_steps: opt.MaxEpisodeSteps = None,
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
    from baq_cli.cli.progress import told
    from baq_cli.cli.results import show_evaluation
    from baq_cli.engine.checkpoint import load_agent_file
    from baq_cli.engine.environment import environment_of, limited
    from baq_cli.engine.restore import evaluate_checkpoint
    from baq_cli.engine.scoring import find_reference
    from baq_cli.envs.ref import EnvRef

    document = load_agent_file(checkpoint).document
    choice = opt.environment(env, env_arg, max_episode_steps)
    asked = environment_of(document, choice, f"the checkpoint {checkpoint}")
    found = limited(asked, told, EnvRef.of_document(document))
    scored_by = None if reference is None else find_reference(reference, found)
    returns, lengths, saved = evaluate_checkpoint(checkpoint, found, episodes, number)
    show_evaluation(saved.document, returns, lengths, str(found), json, scored_by)

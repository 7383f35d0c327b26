"""`baq eval`: the return of a checkpoint's policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.errors import UsageError

if TYPE_CHECKING:
    from baq_cli.envs.ref import EnvRef

EPISODES, WATCHED = 20, 1


def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="A run, a checkpoint folder or an agent.safetensors.",
            autocompletion=completion.checkpoint,
        ),
    ],
    episodes: Annotated[
        int | None,
        typer.Option(
            help="Episodes a seed; default: 20, or 1 that is watched.", min=1, max=opt.MOST_EPISODES
        ),
    ] = None,
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
        typer.Option(
            help="Also print a normalised score: by 'd4rl', by 'baq' (the suite's own), or by a "
            "dataset with references."
        ),
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Film the episodes of one seed: a new .mp4 or .gif.")
    ] = None,
    render: Annotated[
        bool, typer.Option("--render", help="Show the episodes of one seed on the screen.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Whose episodes --video and --render show; default: first.")
    ] = None,
    json: opt.Json = False,
) -> None:
    """Play episodes with a checkpoint's policies, and print their raw returns."""
    from baq_cli.cli.progress import told
    from baq_cli.cli.results import show_evaluation
    from baq_cli.engine.checkpoints.folder import load_agent_file
    from baq_cli.engine.checkpoints.restore import evaluate_checkpoint
    from baq_cli.engine.collection.scoring import find_reference
    from baq_cli.engine.evaluation.environment import environment_of, limited
    from baq_cli.envs.ref import EnvRef

    _check_watched(video, render, seed)
    document = load_agent_file(checkpoint).document
    choice = opt.environment(env, env_arg, max_episode_steps)
    asked = environment_of(document, choice, f"the checkpoint {checkpoint}")
    found = limited(asked, told, EnvRef.of_document(document))
    scored_by = None if reference is None else find_reference(reference, found)
    if video is not None or render:
        played = _watched(checkpoint, found, episodes or WATCHED, number, video, seed)
    else:
        returns, lengths, saved = evaluate_checkpoint(
            checkpoint, found, episodes or EPISODES, number
        )
        played = saved.document, returns, lengths
    show_evaluation(*played, str(found), json, scored_by, video)


def _check_watched(video: Path | None, render: bool, seed: int | None) -> None:
    """Raise UsageError for options that don't go together, or a video that can't be written."""
    from baq_cli.deploy.film import check_video

    if video is not None and render:
        raise UsageError("--video and --render are two ways to watch: give one of them")
    if seed is not None and video is None and not render:
        raise UsageError("--seed says whose episodes are watched: give --video FILE or --render")
    if video is not None:
        check_video(video)


def _watched(
    checkpoint: Path,
    env: EnvRef,
    episodes: int,
    number: int,
    video: Path | None,
    seed: int | None,
) -> tuple[dict[str, Any], Any, Any]:
    """Play the episodes of one seed for somebody to see; return its document and what came."""
    from baq_cli.deploy.film import film, watch
    from baq_cli.deploy.policy import load_one_seed

    one = load_one_seed(checkpoint, seed)
    if video is None:
        found = watch(one, env, episodes, number)
    else:
        found = film(one, env, episodes, number, video)
    return one.document | {"seeds": [one.seed]}, *found

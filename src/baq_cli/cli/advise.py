"""`baq advise`: which way to go with a dataset, and with a policy that was trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.errors import UsageError

if TYPE_CHECKING:
    from baq_cli.envs.ref import EnvChoice

EPISODES = 20


def advise(
    dataset: Annotated[
        str, typer.Option(help="The data.", autocompletion=completion.dataset, metavar="ID")
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="The policy: a run, a checkpoint folder or an agent.safetensors; none: which to "
            "pre-train.",
            autocompletion=completion.checkpoint,
        ),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(help="Gymnasium id to play in; default: the checkpoint's environment."),
    ] = None,
    env_arg: opt.EnvArg = None,
    max_episode_steps: opt.MaxEpisodeSteps = None,
    no_env: Annotated[
        bool,
        typer.Option("--no-env", help="Play nothing: estimate the policy's return from the data."),
    ] = False,
    episodes: Annotated[
        int, typer.Option(help="Episodes to play, a seed.", min=2, max=opt.MOST_EPISODES)
    ] = EPISODES,
    number: Annotated[
        int, typer.Option(help="Which set of start states; the same number repeats them.", min=0)
    ] = 0,
    margin: Annotated[
        float,
        typer.Option(help="The share of the scale of returns that is no difference.", min=0, max=1),
    ] = 0.05,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Gradient steps of the estimate, where nothing is played.",
            min=1,
            max=opt.MOST_STEPS,
        ),
    ] = None,
    json: opt.Json = False,
) -> None:
    """Compare a policy with its data: what to keep close to, how sure that is. Changes nothing."""
    from baq_cli.advice.document import advise as answer
    from baq_cli.advice.evidence import Question
    from baq_cli.cli.progress import told
    from baq_cli.cli.results import print_json, show_advice
    from baq_cli.engine.estimation.estimate import STEPS

    choice = opt.environment(env, env_arg, max_episode_steps)
    _check(checkpoint, choice, no_env)
    question = Question(
        dataset,
        checkpoint,
        choice,
        episodes,
        number,
        margin,
        not no_env,
        steps or STEPS,
    )
    found = answer(question, told)
    if json:
        print_json(found)
    else:
        show_advice(found)


def _check(checkpoint: Path | None, choice: EnvChoice, no_env: bool) -> None:
    """Raise UsageError for flags that don't go together."""
    named = choice.id or choice.args or choice.max_episode_steps
    if named and no_env:
        raise UsageError("--no-env lets nothing play, and an environment is named: leave one out")
    if checkpoint is None and (named or no_env):
        raise UsageError(
            "--env, --env-arg, --max-episode-steps and --no-env say how a policy plays: give it "
            "with --checkpoint, or leave them out"
        )

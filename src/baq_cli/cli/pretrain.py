"""`baq pretrain`: from a dataset to a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.training import TrainingFlags


@opt.grouped
def pretrain(
    out: opt.Out,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="A Minari dataset, or one that 'baq data suite list' shows.",
            autocompletion=completion.dataset,
        ),
    ] = None,
    algo: opt.Algo = None,
    recipe: opt.RecipeName = None,
    seeds: opt.Seeds = None,
    gradient_steps: Annotated[
        int | None, typer.Option(help="Gradient steps a seed.", min=1)
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="Evaluate here instead of the dataset's environment.")
    ] = None,
    no_env: Annotated[
        bool,
        typer.Option("--no-env", help="No environment: what a policy is worth is estimated."),
    ] = False,
    env_arg: opt.EnvArg = None,
    max_episode_steps: opt.MaxEpisodeSteps = None,
    *,
    training: TrainingFlags,
    json: opt.Json = False,
    overrides: opt.Overrides = None,
) -> None:
    """Train policies on a dataset, all seeds as one program."""
    from baq_cli.cli.progress import watch
    from baq_cli.cli.results import show_run
    from baq_cli.engine.phases.commands import run_pretrain
    from baq_cli.runs.interrupt import before_training

    given = opt.flags(
        dataset=dataset,
        algo=algo,
        seeds=seeds,
        gradient_steps=gradient_steps,
        env=env,
        env_arg=env_arg,
        max_episode_steps=max_episode_steps,
        no_env=no_env or None,
        **training.of_recipe(),
    )
    resolved = opt.build_recipe([], recipe, given, overrides)
    opt.tell_idle(resolved.run.algo, overrides)
    with watch(f"{resolved.run.algo} on {resolved.run.dataset}") as observer:
        order = training.request(out, observer)
        with before_training(order.command, order.resume):
            run_pretrain(resolved, order)
    show_run(out, json)

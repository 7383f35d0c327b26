"""`baq finetune`: from a checkpoint to a policy that went on learning in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.training import TrainingFlags

if TYPE_CHECKING:
    from baq_cli.engine.checkpoints.folder import Checkpoint
    from baq_cli.recipes.closed import AgentConfig
    from baq_cli.recipes.load import Layer

CARRIED = (
    *("hidden", "policy_hidden", "critics", "layer_norm", "discount", "batch_size"),
    *("normalize_observations", "reward_scale", "reward_shift"),
)
"""What another method takes over from a checkpoint's, so that their networks fit."""

FRESH_WARMUP_ENV_STEPS, FRESH_CRITIC_UPDATES = 1_000, 5_000
"""Where critics begin anew, as a checkpoint has none or other ones: steps of its policy as it is,
then updates of critics alone, before both learn."""


@opt.grouped
def finetune(
    out: opt.Out,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A run, a checkpoint folder or an agent.safetensors; none: scratch.",
            autocompletion=completion.checkpoint,
        ),
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="Gymnasium id; default: the checkpoint's environment.")
    ] = None,
    env_arg: opt.EnvArg = None,
    max_episode_steps: opt.MaxEpisodeSteps = None,
    env_steps: Annotated[int | None, typer.Option(help="Environment steps a seed.", min=1)] = None,
    algo: opt.Algo = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Offline data to keep in reach; default: the checkpoint's.",
            autocompletion=completion.dataset,
        ),
    ] = None,
    recipe: opt.RecipeName = None,
    intervene: Annotated[
        str | None,
        typer.Option(
            help="Who may act in the policy's place: keyboard, gamepad, policy:PATH or "
            "module:Class. Keys: intervention.…",
            metavar="WHO",
        ),
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(
            help="Who acts at every step, while this policy proposes: policy:PATH.",
            metavar="policy:PATH",
        ),
    ] = None,
    control_hz: Annotated[
        float | None,
        typer.Option(
            help="Act on the wall clock, so many times a second, while another process learns."
        ),
    ] = None,
    repeat: Annotated[
        Path | None,
        typer.Option(help="Make the training of a run with --control-hz again, from its logs."),
    ] = None,
    seeds: opt.Seeds = None,
    *,
    training: TrainingFlags,
    json: opt.Json = False,
    overrides: opt.Overrides = None,
) -> None:
    """Continue a policy in its environment, or train one from scratch."""
    from baq_cli.cli.progress import watch
    from baq_cli.cli.results import show_run
    from baq_cli.engine.checkpoints import folder as ckpt
    from baq_cli.engine.phases.commands import run_finetune, run_repeat
    from baq_cli.errors import UsageError
    from baq_cli.runs.interrupt import before_training

    source = None if checkpoint is None else ckpt.load(checkpoint)
    given = opt.flags(
        env=env,
        env_arg=env_arg,
        max_episode_steps=max_episode_steps,
        env_steps=env_steps,
        algo=algo,
        dataset=dataset,
        intervention=None if intervene is None else {"by": intervene},
        shadow=shadow,
        control=None if control_hz is None else {"hz": control_hz},
        seeds=seeds,
        **training.of_recipe(),
    )
    if repeat is not None:
        if given or overrides or source is not None or recipe is not None:
            raise UsageError(
                "--repeat makes a run's training again as it was: leave out all but --out"
            )
        with watch(f"{repeat} again") as observer:
            run_repeat(repeat, training.request(out, observer))
        show_run(out, json)
        return
    method = opt.method_named(recipe, given, overrides)
    resolved = opt.build_recipe(inherited(source, method, given), recipe, given, overrides)
    opt.tell_idle(resolved.run.algo, overrides)
    with watch(f"{resolved.run.algo} online") as observer:
        hand = opt.intervention_named(given, overrides)
        order = training.request(out, observer, hand)
        with before_training(order.command, order.resume):
            run_finetune(resolved, order, source)
    show_run(out, json)


def inherited(source: Checkpoint | None, algo: str | None, given: Layer) -> list[Layer]:
    """Return what a checkpoint says of the run that continues it, beside the `given` flags.

    Raises EnvironmentMismatch where an argument of its environment could name a file.
    """
    from baq_cli.agents.registry import METHODS
    from baq_cli.engine.checkpoints.continuing import carried, critics_go_on
    from baq_cli.envs.ref import EnvRef, check_inherited

    if source is None:
        return []
    recipe = dict(source.document["recipe"])
    if "env" not in given and source.document["env_id"] is not None:
        env = EnvRef.of(source.document["env_id"], recipe.get("env_args"))
        check_inherited(env, "the checkpoint", given.get("env_args"))
    own = "track", "intervention", "shadow", "control", "keep_transitions"
    for key in own:  # of its run, and not of its policy
        recipe.pop(key, None)
    if source.document["phase"] == "online":
        recipe.pop("critic_updates", None)  # they were made
    section = recipe.pop(source.document["algo"])
    if algo is None or algo == source.document["algo"]:
        recipe[source.document["algo"]] = section
    else:
        recipe["shared"] = _reward_units(source) | {k: section[k] for k in CARRIED if k in section}
        if algo in METHODS:
            recipe[algo] = carried(algo, section)
            begin = not critics_go_on(algo, source.document["algo"], section)
            if begin and "critics" not in METHODS[algo].Config.unused:
                recipe |= _for_fresh_critics(METHODS[algo].Config, recipe[algo], algo)
    return [recipe]


def _for_fresh_critics(config: type[AgentConfig], section: Layer, algo: str) -> Layer:
    """Return what lets critics learn of a policy before it learns of them."""
    if "warmup_env_steps" not in config.unused:
        least = max(FRESH_WARMUP_ENV_STEPS, config.model_fields["warmup_env_steps"].default)
        section = section | {"warmup_env_steps": least}
    return {"critic_updates": FRESH_CRITIC_UPDATES, algo: section}


def _reward_units(source: Checkpoint) -> Layer:
    """Return a checkpoint's units of rewards, which a method without them doesn't have as keys."""
    scale, shift = source.agent["inputs.reward"].tolist()
    return {"reward_scale": scale, "reward_shift": shift}

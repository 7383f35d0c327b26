"""What an online phase takes from the checkpoint that it continues."""

from __future__ import annotations

from pathlib import Path

from baq_cli.agents.base import Agent
from baq_cli.engine.checkpoint import Checkpoint, agent_tensors
from baq_cli.engine.claims import bare_agent
from baq_cli.engine.events import Note, Observer
from baq_cli.engine.inputs import Inputs
from baq_cli.engine.learner import Learner
from baq_cli.engine.restore import load_exactly
from baq_cli.errors import UsageError
from baq_cli.recipes.schema import Recipe


def check_inputs(recipe: Recipe, source: Checkpoint, inputs: Inputs) -> None:
    """Raise UsageError when a recipe asks for other inputs than pre-training fixed (law 6)."""
    section = source.document["recipe"][source.document["algo"]]
    fixed = {
        "normalize_observations": section["normalize_observations"],
        "reward_scale": inputs.reward_scale,
        "reward_shift": inputs.reward_shift,
    }
    for key, value in fixed.items():
        if key in recipe.method.unused:
            continue
        asked = getattr(recipe.method, key)
        if asked != value and asked != section[key]:  # which may say how the value was found
            raise UsageError(
                f"{recipe.run.algo}.{key} is {asked} here, and the checkpoint was trained with "
                f"{value}: inputs are fixed at pre-training. Leave it out, or say {key}={value}."
            )


def _seed_rows(source: Checkpoint, recipe: Recipe) -> list[int]:
    """Return where a checkpoint keeps each of the recipe's seeds.

    Raises UsageError for a seed that it doesn't hold.
    """
    held = list(source.document["seeds"])
    missing = [seed for seed in recipe.run.seeds if seed not in held]
    if missing:
        raise UsageError(f"the checkpoint holds seeds {held}, not {missing}: choose among them")
    return [held.index(seed) for seed in recipe.run.seeds]


def hand_over_parameters(
    agent: Agent, source: Checkpoint, recipe: Recipe, observer: Observer
) -> None:
    """Load what the method shares with the checkpoint: all of it, unless the method changed.

    Raises DataError when the same method's tensors don't fit.
    """
    if source.document.get("kind") == "behavior":
        raise UsageError(
            "a behaviour file holds a policy alone: evaluate it or collect data with it. "
            "Fine-tuning needs the checkpoint that it was made from."
        )
    rows = _seed_rows(source, recipe)
    tensors = {name: t[rows] for name, t in agent_tensors(source).items()}
    if recipe.run.algo == source.document["algo"]:
        load_exactly(agent, tensors, Path(recipe.run.algo))
        return
    own = agent.state_dict()
    fits = {n: t for n, t in tensors.items() if n in own and own[n].shape == t.shape}
    parts = {name.split(".")[0] for name in own}
    taken = {part for part in parts if all(n in fits for n in own if n.split(".")[0] == part)}
    if "policy" not in taken:
        raise UsageError(
            f"a {source.document['algo']} policy can't be continued by '{recipe.run.algo}': their "
            "networks differ. Choose a method with the same policy, or set hidden alike."
        )
    before = bare_agent(source.document, Path(source.document["algo"]))
    if agent.policy.squashed != before.policy.squashed:
        _refuse_other_mean(source.document["algo"], recipe, before.policy.squashed)
    agent.load_state_dict({n: t for n, t in fits.items() if n.split(".")[0] in taken}, strict=False)
    fresh = ", ".join(sorted(parts - taken)) or "none"
    observer(Note(f"taken from the checkpoint: {', '.join(sorted(taken))}; fresh: {fresh}"))


def _refuse_other_mean(algo: str, recipe: Recipe, squashed: bool) -> None:
    """Raise UsageError: the same weights would be another policy."""
    mean, other = ("tanh", "linear") if squashed else ("linear", "tanh")
    way = f"say {recipe.run.algo}.mean={mean}"
    if "mean" not in type(recipe.method).model_fields:
        way = f"pre-train with {algo}.mean={other}, or continue it by '{algo}'"
    raise UsageError(
        f"the mean of the checkpoint's {algo} policy is {mean}, that of '{recipe.run.algo}' "
        f"{other}: {way}."
    )


def hand_over_optimizers(
    learner: Learner, source: Checkpoint, recipe: Recipe, observer: Observer
) -> None:
    """Keep the optimisers' moments where the whole checkpoint, all its seeds and method came."""
    same = recipe.run.algo == source.document["algo"]
    same = same and list(recipe.run.seeds) == list(source.document["seeds"])
    fresh = learner.restore_optimizers(source.training if same else {})
    if fresh:
        observer(Note(f"optimisers start fresh: {', '.join(fresh)}"))

"""What an online phase takes from the checkpoint that it continues."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Experience
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.engine.checkpoints.continuing import (
    as_policy,
    between,
    carried,
    continuing,
    ends_alike,
    fits,
    policy_part,
    renamed,
    shapes_of,
)
from baq_cli.engine.checkpoints.document import bare_agent
from baq_cli.engine.checkpoints.folder import Checkpoint, agent_tensors
from baq_cli.engine.checkpoints.restore import load_exactly
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.updates.learner import Learner
from baq_cli.errors import UsageError
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer


def check_inputs(recipe: Recipe, source: Checkpoint, inputs: Inputs) -> None:
    """Raise UsageError when a recipe asks for other inputs than pre-training fixed (law 6).

    A method that clones fixes no units of rewards.
    """
    section = source.document["recipe"][source.document["algo"]]
    fixed = {
        "normalize_observations": section["normalize_observations"],
        "reward_scale": inputs.reward_scale,
        "reward_shift": inputs.reward_shift,
    }
    for key, value in fixed.items():
        if key in recipe.method.unused or key in METHODS[source.document["algo"]].Config.unused:
            continue
        asked = getattr(recipe.method, key)
        if asked not in (value, section.get(key)):  # which may say how the value was found
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


def hand_over(
    learner: Learner, source: Checkpoint, recipe: Recipe, data: Experience, observer: Observer
) -> None:
    """Take over a checkpoint: parameters, what the method changes at the switch, optimisers."""
    _parameters(learner.agent, source, recipe, observer)
    learner.gradient_steps = int(source.document["gradient_steps"])
    fresh = learner.agent.hand_over(data)
    _optimizers(learner, source, recipe, fresh, observer)


def _parameters(agent: Agent, source: Checkpoint, recipe: Recipe, observer: Observer) -> None:
    """Load what the method shares with the checkpoint: all of it, unless the method changed.

    Raises DataError when the same method's tensors don't fit.
    """
    if source.document.get("kind") == "behavior":
        raise UsageError(
            "a behaviour file holds a policy alone: evaluate it or collect data with it. "
            "Fine-tuning needs the checkpoint that it was made from."
        )
    rows, algo = _seed_rows(source, recipe), source.document["algo"]
    tensors = {name: t[rows] for name, t in agent_tensors(source).items()}
    own, before = agent.state_dict(), bare_agent(source.document, Path(algo))
    if source.document["phase"] == "offline" or recipe.run.algo != algo:
        tensors = renamed(type(agent), algo, tensors)
    if recipe.run.algo == algo:
        lacking = {
            name: t for name, t in own.items() if name not in tensors and _fresh(agent, name)
        }
        _check_networks(agent, tensors | lacking, recipe, source)
        _check_mean(agent, "policy", before, recipe)
        load_exactly(agent, tensors | lacking, Path(recipe.run.algo))
        return
    policy = policy_part(type(agent), algo)
    tensors = tensors | as_policy(agent, policy, tensors)
    given = shapes_of(tensors) | renamed(type(agent), algo, between(before))
    taken = {part for part in _parts(own) if fits(part, shapes_of(own) | between(agent), given)}
    if policy not in taken:
        raise UsageError(
            f"a {algo} policy can't be continued by '{recipe.run.algo}': their "
            f"networks differ. {_choices(source)}{_or_set(recipe, source)}."
        )
    _check_mean(agent, policy, before, recipe)
    shared = {n: t for n, t in tensors.items() if n in own and n.split(".")[0] in taken}
    agent.load_state_dict(shared, strict=False)
    followed = _follow(agent, taken)
    fresh = ", ".join(sorted(_parts(own) - taken - followed)) or "none"
    observer(Note(f"taken from the checkpoint: {', '.join(sorted(taken))}; fresh: {fresh}"))


def _fresh(agent: Agent, name: str) -> bool:
    """Return whether a tensor is of a part that pre-training knows nothing of."""
    return name.split(".")[0] in agent.fresh_online


def _check_mean(agent: Agent, part: str, before: Agent, recipe: Recipe) -> None:
    """Raise UsageError where the same weights would be another policy, by its mean."""
    if ends_alike(before, agent, part):
        return
    squashed, algo = before.policy.squashed, before.name
    mean, other = ("tanh", "linear") if squashed else ("linear", "tanh")
    base = getattr(recipe.method, "base", "")  # whose section has the key, of a method on another
    section = getattr(recipe.method, base, recipe.method)
    way = f"say {recipe.run.algo}.{f'{base}.' if base else ''}mean={mean}"
    if "mean" not in type(section).model_fields:
        way = f"pre-train with {algo}.mean={other}, or continue it by '{algo}'"
    raise UsageError(
        f"the mean of the checkpoint's {algo} policy is {mean}, that of '{recipe.run.algo}' "
        f"{other}: {way}."
    )


def _follow(agent: Agent, taken: set[str]) -> set[str]:
    """Let targets that the checkpoint lacks begin as the networks they follow; return which."""
    parts = {id(module): name for name, module in agent.named_children()}
    followed = set()
    for target in agent.targets():
        name = parts.get(id(target.copy))
        if name is not None and name not in taken and parts.get(id(target.network)) in taken:
            target.copy.load_state_dict(target.network.state_dict())
            followed.add(name)
    return followed


def _check_networks(
    agent: Agent, tensors: dict[str, Tensor], recipe: Recipe, source: Checkpoint
) -> None:
    """Raise UsageError, naming the keys, where the recipe makes other networks than it loads."""
    algo, shapes = recipe.run.algo, shapes_of(tensors)
    if shapes_of(agent.state_dict()) == shapes:
        return
    before, asked = source.document["recipe"][algo], recipe.method.model_dump(mode="json")
    spec = replace(agent.spec, device=torch.device("meta"))
    changed = []
    for key in [key for key in asked if key in before and asked[key] != before[key]]:
        config = type(recipe.method).model_validate(before | {key: asked[key]})
        if shapes_of(make_agent(algo, config, spec, agent.phase).state_dict()) != shapes:
            changed.append(key)
    if changed:
        here = ", ".join(f"{algo}.{key} is {asked[key]}" for key in changed)
        there = " ".join(f"{algo}.{key}={_as_override(before[key])}" for key in changed)
        online = source.document["phase"] == "online"
        otherwise = "fine-tune what was pre-trained" if online else "pre-train"
        raise UsageError(
            f"{here} here, and the checkpoint was trained with {there}: its networks are of that "
            f"size. Leave it out to continue them, or {otherwise} again."
        )


def _parts(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def _section(source: Checkpoint) -> tuple[str, Mapping[str, Any]]:
    """Return a checkpoint's method, and what its recipe says of it."""
    algo = source.document["algo"]
    return algo, source.document["recipe"][algo]


def _choices(source: Checkpoint) -> str:
    algo, section = _section(source)
    own = [algo] if METHODS[algo].learns_online else []
    return f"Choose a method that can take it ({', '.join([*own, *continuing(algo, section)])})"


def _or_set(recipe: Recipe, source: Checkpoint) -> str:
    """Return the keys that would make a method's policy as a checkpoint's, as other advice."""
    algo, (before, section) = recipe.run.algo, _section(source)
    if algo not in continuing(before, section):
        return ""
    asked = recipe.method.model_dump(mode="json")
    needed = {"hidden": section["hidden"], **carried(algo, section)}
    ways = [
        f"{algo}.{key}={_as_override(value)}"
        for key, value in needed.items()
        if asked[key] != value
    ]
    return f", or set {' '.join(ways)}" if ways else ""


def _as_override(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _optimizers(
    learner: Learner,
    source: Checkpoint,
    recipe: Recipe,
    renewed: frozenset[str],
    observer: Observer,
) -> None:
    """Keep the optimisers' moments of each seed where the whole checkpoint came, and its method.

    Those of the groups that the method renews start fresh.
    """
    known: dict[str, Tensor] = {}
    if recipe.run.algo == source.document["algo"]:
        seeds = len(source.document["seeds"])
        known = learner.moments_of_seeds(source.training, seeds, _seed_rows(source, recipe))
    fresh = learner.restore_optimizers(known, renewed)
    if fresh:
        observer(Note(f"optimisers start fresh: {', '.join(fresh)}"))

"""What an online phase takes from the checkpoint that it continues."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Experience, Spec
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.engine.checkpoints.document import bare_agent
from baq_cli.engine.checkpoints.folder import Checkpoint, agent_tensors
from baq_cli.engine.checkpoints.restore import load_exactly
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.updates.learner import Learner
from baq_cli.errors import UsageError
from baq_cli.nets.mlp import MLP
from baq_cli.nets.plain import Norm
from baq_cli.nets.policies import ActingPolicy
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer
from baq_cli.units import Phase

CARRIED: Mapping[str, object] = {
    "mean": "tanh",
    "policy": "gaussian",
    "policy_layer_norm": False,
}
"""Keys of some methods that another's policy must share to be continued, and what a method without
the key does."""
Shapes = dict[str, torch.Size]
Value = TypeVar("Value")


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
        _check_mean(agent.policy, before, recipe)
        load_exactly(agent, tensors | lacking, Path(recipe.run.algo))
        return
    policy = _policy_part(type(agent), algo)
    tensors = tensors | _as_policy(agent, policy, tensors)
    taken = {part for part in _parts(own) if _fits(part, _shapes(own), _shapes(tensors))}
    taken -= _built_otherwise(agent, before)
    if policy not in taken:
        raise UsageError(
            f"a {algo} policy can't be continued by '{recipe.run.algo}': their "
            f"networks differ. {_choices(source)}{_or_set(recipe, source)}."
        )
    _check_mean(getattr(agent, policy), before, recipe)
    shared = {n: t for n, t in tensors.items() if n in own and n.split(".")[0] in taken}
    agent.load_state_dict(shared, strict=False)
    followed = _follow(agent, taken)
    fresh = ", ".join(sorted(_parts(own) - taken - followed)) or "none"
    observer(Note(f"taken from the checkpoint: {', '.join(sorted(taken))}; fresh: {fresh}"))


def _fresh(agent: Agent, name: str) -> bool:
    """Return whether a tensor is of a part that pre-training knows nothing of."""
    return name.split(".")[0] in agent.fresh_online


def renamed(method: type[Agent], algo: str, tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return the tensors of what is handed over by the names that they have in a method online."""
    places = method.inherits.get(algo, {})

    def name_here(name: str) -> str:
        begins = max((old for old in places if name.startswith(old)), key=len, default=None)
        return name if begins is None else places[begins] + name.removeprefix(begins)

    return {name_here(name): tensor for name, tensor in tensors.items()}


def _policy_part(method: type[Agent], algo: str) -> str:
    """Return the part of a method that the policy of another's checkpoint becomes."""
    (name,) = renamed(method, algo, {"policy.": None})
    return name.split(".")[0]


def _as_policy(agent: Agent, part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a policy that stands for a checkpoint's; none where it can't."""
    module, begins = getattr(agent, part, None), f"{part}."
    given = {n.removeprefix(begins): t for n, t in tensors.items() if n.startswith(begins)}
    found = module.as_another(given) if isinstance(module, ActingPolicy) else None
    return {begins + name: tensor for name, tensor in (found or {}).items()}


def _check_mean(policy: nn.Module, before: Agent, recipe: Recipe) -> None:
    """Raise UsageError where the same weights would be another policy, by its mean."""
    squashed, algo = before.policy.squashed, before.name
    if getattr(policy, "squashed", squashed) == squashed:
        return
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
    algo, shapes = recipe.run.algo, _shapes(tensors)
    if _shapes(agent.state_dict()) == shapes:
        return
    before, asked = source.document["recipe"][algo], recipe.method.model_dump(mode="json")
    spec = replace(agent.spec, device=torch.device("meta"))
    changed = []
    for key in [key for key in asked if key in before and asked[key] != before[key]]:
        config = type(recipe.method).model_validate(before | {key: asked[key]})
        if _shapes(make_agent(algo, config, spec, agent.phase).state_dict()) != shapes:
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


def _shapes(tensors: dict[str, Tensor]) -> Shapes:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _parts(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def _fits(part: str, own: Shapes, given: Shapes) -> bool:
    """Return whether all of a method's part is among what another's checkpoint holds."""
    shapes = {name: shape for name, shape in own.items() if name.split(".")[0] == part}
    return bool(shapes) and all(given.get(name) == shape for name, shape in shapes.items())


def _built_otherwise(agent: Agent, before: Agent) -> set[str]:
    """Return the parts of which the same numbers are another function in the agent before.

    Their layers have other activations there, or their LayerNorms elsewhere, or where none are.
    """
    parts = dict(agent.named_children())
    there = {
        name.split(".")[0]: _forms(module)
        for old, module in before.named_children()
        for name in renamed(type(agent), before.name, {f"{old}.": module})
    }
    return {name for name, forms in there.items() if name in parts and _forms(parts[name]) != forms}


def _forms(module: nn.Module) -> list[tuple[str, Norm]]:
    return [(m.activation, m.layer_norm) for m in module.modules() if isinstance(m, MLP)]


def carried(algo: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `CARRIED` that a method has, as a checkpoint's section has them."""
    config = METHODS[algo].Config
    keys = config.model_fields.keys() - config.unused
    return {key: section.get(key, other) for key, other in CARRIED.items() if key in keys}


def continuing(algo: str) -> list[str]:
    """Return the methods that can fine-tune another's checkpoint: it holds all of their policy."""
    spec = Spec((0,), 1, 1, device=torch.device("meta"))

    def bare(name: str, phase: Phase) -> Agent:
        config = METHODS[name].Config(hidden=(8,), **carried(name, own))  # as it is carried over
        return make_agent(name, config, spec, phase)

    own = METHODS[algo].Config().model_dump(mode="json")
    before = bare(algo, "offline")
    given = before.state_dict()

    def takes(method: type[Agent]) -> bool:
        agent, part = bare(method.name, "online"), _policy_part(method, algo)
        tensors = renamed(method, algo, given)
        tensors |= _as_policy(agent, part, tensors)
        fits = _fits(part, _shapes(agent.state_dict()), _shapes(tensors))
        return fits and part not in _built_otherwise(agent, before)

    return [
        name
        for name, method in METHODS.items()
        if name != algo
        and method.learns_online
        and (not method.needs_own_pretraining or algo in method.inherits)
        and takes(method)
    ]


def _choices(source: Checkpoint) -> str:
    algo = source.document["algo"]
    own = [algo] if METHODS[algo].learns_online else []
    return f"Choose a method that can take it ({', '.join([*own, *continuing(algo)])})"


def _or_set(recipe: Recipe, source: Checkpoint) -> str:
    """Return the keys that would make a method's policy of a checkpoint's size, as other advice."""
    algo, section = recipe.run.algo, source.document["recipe"][source.document["algo"]]
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

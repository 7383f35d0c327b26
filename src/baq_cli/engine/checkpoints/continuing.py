"""Which methods can continue whose checkpoints: networks of one form, under the names of either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.nets.mlp import MLP
from baq_cli.nets.policies import ActingPolicy
from baq_cli.units import Phase

CARRIED: Mapping[str, object] = {
    "mean": "tanh",
    "policy": "gaussian",
    "policy_layer_norm": False,
}
"""Keys of some methods that another's policy must share to be continued, and what a method without
the key does."""
Forms = Mapping[str, object]
"""The shapes of tensors, and what stands between the layers of networks, by name."""
Value = TypeVar("Value")


def renamed(method: type[Agent], algo: str, tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return the tensors of what is handed over by the names that they have in a method online."""
    places = method.inherits.get(algo, {})

    def name_here(name: str) -> str:
        begins = max((old for old in places if name.startswith(old)), key=len, default=None)
        return name if begins is None else places[begins] + name.removeprefix(begins)

    return {name_here(name): tensor for name, tensor in tensors.items()}


def policy_part(method: type[Agent], algo: str) -> str:
    """Return the part of a method that the policy of another's checkpoint becomes."""
    (name,) = renamed(method, algo, {"policy.": None})
    return name.split(".")[0]


def as_policy(agent: Agent, part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a policy that stands for a checkpoint's; none where it can't."""
    module, begins = getattr(agent, part, None), f"{part}."
    given = {n.removeprefix(begins): t for n, t in tensors.items() if n.startswith(begins)}
    found = module.as_another(given) if isinstance(module, ActingPolicy) else None
    return {begins + name: tensor for name, tensor in (found or {}).items()}


def ends_alike(source: Agent, agent: Agent, part: str) -> bool:
    """Return whether the actions of both end in a tanh, or of neither."""
    before = source.policy.squashed
    return bool(getattr(getattr(agent, part), "squashed", before) == before)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the shape of each tensor."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def between(agent: Agent) -> dict[str, object]:
    """Return what stands between the layers of each network: with other things it is another."""
    networks = [(n, net) for n, net in agent.named_modules() if isinstance(net, MLP)]
    return {name: (net.activation, net.layer_norm) for name, net in networks}


def fits(part: str, own: Forms, given: Forms) -> bool:
    """Return whether all of a method's part is among what another's checkpoint holds."""
    forms = {name: form for name, form in own.items() if name.split(".")[0] == part}
    return bool(forms) and all(given.get(name) == form for name, form in forms.items())


def carried(algo: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `CARRIED` that a method has, as a checkpoint's section has them."""
    config = METHODS[algo].Config
    keys = config.model_fields.keys() - config.unused
    return {key: section.get(key, other) for key, other in CARRIED.items() if key in keys}


def continuing(algo: str, section: Mapping[str, Any] | None = None) -> list[str]:
    """Return the methods that can fine-tune another's checkpoint: it holds all of their policy.

    `section` is what its recipe says of the method; without one, its defaults.
    """
    own = section or METHODS[algo].Config().model_dump(mode="json")
    given = _bare(algo, "offline", own)

    def takes(method: type[Agent]) -> bool:
        agent, part = _bare(method.name, "online", own), policy_part(method, algo)
        tensors = renamed(method, algo, given.state_dict())
        tensors |= as_policy(agent, part, tensors)
        forms = shapes_of(tensors) | renamed(method, algo, between(given))
        alike = fits(part, shapes_of(agent.state_dict()) | between(agent), forms)
        return alike and ends_alike(given, agent, part)

    return [
        name
        for name, method in METHODS.items()
        if name != algo
        and method.learns_online
        and (not method.needs_own_pretraining or algo in method.inherits)
        and takes(method)
    ]


def critics_go_on(method: str, algo: str, section: Mapping[str, Any]) -> bool:
    """Return whether a method's critics can be those of another's checkpoint, where it has any.

    `section` is what the checkpoint's recipe says of its method.
    """
    norm = {"layer_norm": section.get("layer_norm", False)}
    given = between(_bare(algo, "offline", section, norm))
    own = between(_bare(method, "online", section, norm))
    critics = {name: form for name, form in given.items() if name.startswith("critic.")}
    here = renamed(METHODS[method], algo, critics)
    return bool(here) and all(own.get(name) == form for name, form in here.items())


def _bare(
    name: str, phase: Phase, section: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> Agent:
    """Return a method of shapes without numbers, as what it carries over from a section makes it.

    It has those of `more` settings that it knows.
    """
    config = METHODS[name].Config
    known = {k: v for k, v in (more or {}).items() if k not in config.unused}
    spec = Spec((0,), 1, 1, device=torch.device("meta"))
    return make_agent(name, config(hidden=(8,), **known, **carried(name, section)), spec, phase)

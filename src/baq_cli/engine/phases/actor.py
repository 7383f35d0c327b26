"""Choosing actions to explore with, on the training device or on the CPU."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.registry import make_agent
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.updates.learner import Learner
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe

Array = npt.NDArray[Any]
ActingOn = Literal["cpu", "device"]
TRIALS = 30


class Actor:
    """Act for S seeds, one observation each.

    On the CPU a twin of the agent acts; before it does, the parts that act are copied over if
    there was an update since. One observation a seed is little work, and a device far away may
    take longer to be asked than the copy and the work here.
    """

    def __init__(
        self, recipe: Recipe, learner: Learner, inputs: Inputs, stream: SeedStream, place: ActingOn
    ):
        self._learner, self._inputs, self.stream = learner, inputs, stream
        self._agent = learner.agent
        self._twin = place == "cpu"
        self._seen = -1
        if self._twin:
            spec = replace(learner.agent.spec, device=torch.device("cpu"))
            self._agent = make_agent(recipe.run.algo, recipe.method, spec, "online")
        self._device = self._agent.spec.device

    def act(self, obs: Array) -> Array:
        """Return exploring actions for raw observations `[S, obs_dim]`.

        They are `[S, chunk · action_dim]`: as many as the method decides on at once.
        """
        with torch.no_grad():
            if self._twin and self._seen != self._learner.gradient_steps:
                self._follow()
            known = self._inputs.obs(obs).unsqueeze(1).to(self._device)
            return self._agent.explore(known, self.stream).squeeze(1).cpu().numpy()

    def forget(self) -> None:
        """Copy the acting parts again before the next action."""
        self._seen = -1

    def _follow(self) -> None:
        theirs, own = (_acting(agent) for agent in (self._learner.agent, self._agent))
        flat = torch.cat([tensor.flatten() for tensor in theirs]).cpu()  # one transfer
        sizes = [tensor.numel() for tensor in own]
        for tensor, part in zip(own, flat.split(sizes), strict=True):
            tensor.copy_(part.view_as(tensor))
        self._seen = self._learner.gradient_steps


def _acting(agent: Agent) -> list[Tensor]:
    state = agent.state_dict()
    return [state[name] for name in sorted(state) if name.startswith(agent.acting_parts())]


def faster_place(recipe: Recipe, learner: Learner, inputs: Inputs) -> ActingOn:
    """Return where acting after an update is faster: as the recipe says, or measured."""
    spec = learner.agent.spec
    asked = recipe.run.acting
    if asked != "auto":
        return asked
    if spec.device.type == "cpu":
        return "device"
    obs = torch.zeros(len(spec.seeds), spec.obs_dim).numpy()
    seconds: dict[ActingOn, float] = {}
    places: tuple[ActingOn, ...] = ("cpu", "device")
    for place in places:
        device = "cpu" if place == "cpu" else spec.device
        stream = SeedStream(spec.seeds, "explore/trial", device)
        actor = Actor(recipe, learner, inputs, stream, place)
        actor.act(obs)
        started = time.perf_counter()
        for _ in range(TRIALS):
            actor.forget()
            actor.act(obs)
        seconds[place] = time.perf_counter() - started
    return min(seconds, key=seconds.__getitem__)

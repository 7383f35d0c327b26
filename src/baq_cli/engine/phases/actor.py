"""Choosing actions to explore with, on the training device or on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.registry import make_agent
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.updates.card_graph import EAGER_FIRST, SideStream
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
    take longer to be asked than the copy and the work here. On a card the work is captured once, as
    updates are, unless the recipe's `capture` is off. `agent` is who acts: the learner's own, or
    the twin.
    """

    def __init__(
        self, recipe: Recipe, learner: Learner, inputs: Inputs, stream: SeedStream, place: ActingOn
    ):
        self.learner, self._inputs, self.stream = learner, inputs, stream
        self.agent = learner.agent
        self._twin = place == "cpu"
        self._seen = -1
        if self._twin:
            spec = replace(learner.agent.spec, device=torch.device("cpu"))
            self.agent = make_agent(recipe.run.algo, recipe.method, spec, "online")
        self._device = self.agent.spec.device
        self._captured: _Captured | None = None
        if self._device.type == "cuda" and recipe.run.capture:
            self._captured = _Captured(lambda obs: self.agent.explore(obs, self.stream))

    def act(self, obs: Array) -> Array:
        """Return exploring actions for raw observations `[S, obs_dim]`.

        They are `[S, chunk · action_dim]`: as many as the method decides on at once.
        """
        with torch.no_grad():
            if self._twin and self._seen != self.learner.gradient_steps:
                self.follow()
            known = self._inputs.obs(obs).unsqueeze(1)
            return self._explore(known).squeeze(1).cpu().numpy()

    def _explore(self, obs: Tensor) -> Tensor:
        if self._captured is not None:
            return self._captured.run(obs)
        return self.agent.explore(obs.to(self._device), self.stream)

    def forget(self) -> None:
        """Copy the acting parts again before the next action."""
        self._seen = -1

    def follow(self) -> None:
        """Copy the parts that act from the learner's agent, in one transfer."""
        theirs, own = (_acting(agent) for agent in (self.learner.agent, self.agent))
        flat = torch.cat([tensor.flatten() for tensor in theirs]).cpu()
        sizes = [tensor.numel() for tensor in own]
        for tensor, part in zip(own, flat.split(sizes), strict=True):
            tensor.copy_(part.view_as(tensor))
        self._seen = self.learner.gradient_steps


class _Captured:
    """A function of one tensor on a card: run eagerly a few times, then as a CUDA graph."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        self._function, self._side = function, SideStream()
        self._eager = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, given: Tensor) -> Tensor:
        """Return the function's result, which the next run may overwrite."""
        if self._eager < EAGER_FIRST:
            self._eager += 1
            self._given = given.cuda()
            return self._side.run(lambda: self._function(self._given))
        self._given.copy_(given)
        if self._graph is None:
            self._graph, self._found = self._side.capture(lambda: self._function(self._given))
        self._graph.replay()
        return self._found


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
        for _ in range(EAGER_FIRST + 1):  # up to a capture
            actor.act(obs)
        started = time.perf_counter()
        for _ in range(TRIALS):
            actor.forget()
            actor.act(obs)
        seconds[place] = time.perf_counter() - started
    return min(seconds, key=seconds.__getitem__)

"""What CQL's sampled gradient costs in variance, beside the noise that batches bring anyway.

Trains CQL for a while, holds it, and compares the critics' gradients of one batch: the full one
with sampled ones (M = 1, 2, 4), and full ones of different batches with each other. Prints, for
each, the mean squared distance from what it estimates, over the squared length of the full gradient
averaged over batches.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from baq_cli.agents.interface import Batch, Spec
from baq_cli.agents.registry import make_agent, method_configs
from baq_cli.engine.collection.datasets import open_dataset
from baq_cli.engine.experience.inputs import Inputs, offline_store
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.updates.device import prepare
from baq_cli.engine.updates.learner import Learner
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.load import resolve

DRAWS = 40
BATCHES = 40


def gradient(agent: Any, batch: Batch, noise: SeedStream) -> Tensor:
    """Return the gradient of the critics' loss, flat."""
    agent.zero_grad(set_to_none=True)
    loss, _ = agent.critic_loss(batch, noise)
    loss.sum().backward()
    return torch.cat([p.grad.flatten() for p in agent.critic.parameters()])


def distance(found: list[Tensor], centre: Tensor) -> float:
    return float(torch.stack([(g - centre).square().sum() for g in found]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="baq/hopper/medium-v0")
    parser.add_argument("--gradient-steps", type=int, default=1000)
    given = parser.parse_args()
    prepare("cpu", None)
    recipe = resolve([{"algo": "cql"}], method_configs())
    episodes = open_dataset(given.dataset, print)
    spec = Spec((0,), episodes.obs.shape[1], episodes.action.shape[1])
    agent = make_agent("cql", recipe.method, spec, "offline")
    inputs = Inputs.fit(recipe.method, spec.obs_dim, episodes)
    discount = recipe.method.discount
    store = offline_store(episodes, inputs, spec, (), discount)
    learner, stream = Learner(agent), SeedStream((0,), "batch/offline")
    replay = Replay(learner.plan.draws, {"offline": store}, stream, 256, discount)
    for _ in range(given.gradient_steps):
        learner.update(replay.batch())
    full = agent.config
    across = [gradient(agent, replay.batch(), learner.noise) for _ in range(BATCHES)]
    mean = torch.stack(across).mean(0)
    scale = float(mean.square().sum())
    batch, state = replay.batch(), learner.noise.state()
    exact = gradient(agent, batch, learner.noise)
    print(f"{given.dataset}, CQL after {given.gradient_steps} gradient steps")
    print(f"between batches of 256: {distance(across, mean) / scale:.3f}")
    for count in (1, 2, 4):
        agent.config = full.model_copy(update={"gradient": "sampled", "gradient_actions": count})
        sampled = []
        for draw in range(DRAWS):
            learner.noise.restore(state)  # the same actions; then other choices among them
            stream = _Choosing(learner.noise, SeedStream((draw,), "choose"))
            sampled.append(gradient(agent, batch, stream))
        print(
            f"sampled, M = {count}, about the full gradient: {distance(sampled, exact) / scale:.3f}"
        )
    agent.config = full


class _Choosing(SeedStream):
    """Draws from one stream, except the choice of actions (the last uniforms), from another."""

    def __init__(self, actions: SeedStream, choice: SeedStream):
        super().__init__((), actions.name, actions.device)
        self._actions, self._choice, self._uniforms = actions, choice, 0

    def normal(self, *shape: int) -> Tensor:
        return self._actions.normal(*shape)

    def uniform(self, *shape: int) -> Tensor:
        self._uniforms += 1
        return (self._actions if self._uniforms == 1 else self._choice).uniform(*shape)


if __name__ == "__main__":
    main()

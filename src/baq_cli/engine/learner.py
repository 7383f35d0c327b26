"""One gradient step of any method: losses, one backward pass, fused optimisers, targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Batch, Group
from baq_cli.engine.events import Phase
from baq_cli.engine.flat import FlatParameters
from baq_cli.nets.streams import SeedStream


class Learner:
    """Train an agent's parameter groups.

    A method's terms don't leak into each other's parameters, so one backward pass of their sum
    gives every group its gradient. `gradient_steps` counts updates of each seed, over both phases.
    Groups with a cosine schedule fall to zero over `cosine_steps`; None holds every learning rate
    at its configured value.
    """

    def __init__(self, agent: Agent, phase: Phase):
        self.agent = agent
        self.noise = SeedStream(agent.spec.seeds, f"noise/{phase}", agent.spec.device)
        self._loss = agent.loss if phase == "offline" else agent.online_loss
        self.gradient_steps = 0
        self.metrics: dict[str, Tensor] = {}
        self.cosine_steps: int | None = None
        self._groups: dict[str, Group] = agent.groups()
        self._flat = {name: FlatParameters(g.modules) for name, g in self._groups.items()}
        self._optimizers = {
            name: torch.optim.Adam([self._flat[name].flat], lr=group.learning_rate, fused=True)
            for name, group in self._groups.items()
        }
        self._targets = [
            (self._span(online), FlatParameters([target]).flat.data)
            for online, target in agent.targets()
        ]

    def _span(self, module: torch.nn.Module) -> Tensor:
        for name, group in self._groups.items():
            if any(module is owned for owned in group.modules):
                return self._flat[name].span(module)
        raise ValueError("a target network follows a module that no parameter group holds")

    def update(self, batch: Batch) -> None:
        """Take one gradient step from a batch of `[S, B]` transitions."""
        step = self.gradient_steps + 1
        every = self.agent.every
        active = frozenset(name for name in self._groups if step % every.get(name, 1) == 0)
        losses = self._loss(batch, self.noise, active)
        # A group without a term is left alone: its old momentum must not move it.
        for name in losses.terms:
            gradient = self._flat[name].flat.grad
            assert gradient is not None
            gradient.zero_()
        losses.total().backward()
        for name in losses.terms:
            self._step_group(name)
        for online, target in self._targets:
            target.lerp_(online, self.agent.config.tau)
        self.metrics = losses.metrics | {
            f"loss_{name}": term.detach() for name, term in losses.terms.items()
        }
        self.gradient_steps = step

    def _step_group(self, name: str) -> None:
        optimizer, group = self._optimizers[name], self._groups[name]
        rate = group.learning_rate
        if group.cosine and self.cosine_steps:
            progress = min(self.gradient_steps / self.cosine_steps, 1.0)
            rate *= 0.5 * (1 + math.cos(math.pi * progress))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()

    def is_finite(self) -> bool:
        """Whether every trained parameter is finite. Waits for the device."""
        return all(bool(flat.flat.isfinite().all()) for flat in self._flat.values())

    def state(self) -> dict[str, Tensor]:
        """Return optimiser moments and the noise stream, by name."""
        tensors = {"stream.noise": self.noise.state()}
        for name, optimizer in self._optimizers.items():
            for key, value in optimizer.state[self._flat[name].flat].items():
                tensors[f"optimizer.{name}.{key}"] = value
        return tensors

    def restore(self, tensors: dict[str, Tensor], gradient_steps: int) -> None:
        """Continue from what `state()` returned."""
        self.gradient_steps = gradient_steps
        self.noise.restore(tensors["stream.noise"])
        self.restore_optimizers(tensors)

    def restore_optimizers(self, tensors: dict[str, Tensor]) -> list[str]:
        """Load the moments of the groups that fit; return the names of those left fresh."""
        fresh = []
        for name, optimizer in self._optimizers.items():
            prefix = f"optimizer.{name}."
            saved = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            flat = self._flat[name].flat
            if saved and saved["exp_avg"].shape == flat.shape:
                optimizer.state[flat] = {
                    key: value.clone().to(flat.device) for key, value in saved.items()
                }
            else:
                fresh.append(name)
        return fresh

"""One gradient step of any method: losses, one backward pass, fused optimisers, targets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Batch, Group, Losses
from baq_cli.agents.plans import Stage
from baq_cli.engine.updates.adam import Adam, Settings
from baq_cli.engine.updates.flat import FlatParameters
from baq_cli.nets.streams import SeedStream

Following = Literal["active", "all", "none"]
"""The targets that move: those that follow what an update trains, every one, or none."""
CLIP_EPS = 1e-6
"""As torch.nn.utils.clip_grad_norm_ has it."""


class Learner:
    """Train an agent's parameter groups.

    A method's terms don't leak into each other's parameters, so one backward pass of their sum
    gives every group its gradient. `gradient_steps` counts updates of each seed, over both phases.
    Groups with a cosine schedule fall to zero over `cosine_steps`; None holds every learning rate
    at its configured value. `env_steps` and `share` are what the clock says beside it. Online,
    `critic_updates` of what judges actions come at once after the warm-up.
    """

    def __init__(self, agent: Agent, critic_updates: int = 0):
        self.agent, phase = agent, agent.phase
        self.noise = SeedStream(agent.spec.seeds, f"noise/{phase}", agent.spec.device)
        self._loss = agent.loss if phase == "offline" else agent.online_loss
        self.plan = agent.offline_plan() if phase == "offline" else agent.online_plan()
        judging = agent.judging()
        if critic_updates and judging:
            fit = Stage("critics", judging, self.plan.draws, critic_updates, follow=True)
            self.plan = replace(self.plan, fit=fit)
        self.gradient_steps, self.env_steps, self.share = 0, 0, 0.0
        self.metrics: dict[str, Tensor] = {}
        self.cosine_steps: int | None = None
        self._scales: dict[str, Tensor] = {}
        self._groups: dict[str, Group] = agent.groups()
        self._flat = {name: FlatParameters(g.modules) for name, g in self._groups.items()}
        self._adam = Adam(
            {name: flat.flat for name, flat in self._flat.items()},
            {n: Settings(g.betas, g.weight_decay) for n, g in self._groups.items()},
        )
        # Captured and recorded steps read their rates where these are written to.
        device = agent.spec.device
        exact = torch.float32 if device.type == "cuda" else torch.float64
        self._rates = {name: torch.zeros((), dtype=exact, device=device) for name in self._flat}
        self._written: dict[str, float] = {}
        self._targets = [
            (
                self._span(target.network),
                FlatParameters([target.copy]).flat.data,
                target.follows,
                agent.config.tau if target.rate is None else target.rate,
            )
            for target in agent.targets()
        ]
        for _, _, group, _ in self._targets:
            if group is not None and group not in self._groups:
                raise ValueError(f"a target network follows '{group}', which is no parameter group")
        asked = frozenset().union(self.plan.train or (), *(s.groups for s in self.plan.stages))
        if unknown := sorted(asked - self._groups.keys()):
            raise ValueError(f"the plan trains '{unknown[0]}', which is no parameter group")

    @property
    def discount(self) -> float:
        """γ of the phase."""
        return self.plan.discount or self.agent.config.discount

    def _span(self, module: torch.nn.Module) -> Tensor:
        for name, group in self._groups.items():
            if any(module is owned for owned in group.modules):
                return self._flat[name].span(module)
        raise ValueError("a target network follows a module that no parameter group holds")

    def update(self, batch: Batch) -> None:
        """Take one gradient step from a batch of `[S, B]` transitions."""
        self.prepare()
        self.compute(batch, self.active())
        self.count()

    def active(self) -> frozenset[str]:
        """Return the groups that the next update trains."""
        step, every, trained = self.gradient_steps + 1, self.agent.every, self.plan.train
        return frozenset(
            name
            for name in self._groups
            if (trained is None or name in trained) and step % every.get(name, 1) == 0
        )

    def prepare(self) -> None:
        """Set what the next `compute` reads and the host decides: learning rates, the clock."""
        if self.agent.reads_clock:
            self.agent.clock.write(self.gradient_steps, self.env_steps, self.share)
        rates = self.learning_rates()
        for name, rate in rates.items():
            if rate != self._written.get(name):  # constant rates cost the device nothing
                self._rates[name].fill_(rate)
        self._written = rates

    def compute(
        self,
        batch: Batch,
        active: frozenset[str],
        noise: SeedStream | None = None,
        targets: Following = "active",
    ) -> None:
        """Do one update's tensor work, which a CUDA graph can hold: nothing waits for the host.

        `noise` stands in for the learner's own; `targets` says which of them follow.
        """
        losses = self._loss(batch, noise or self.noise, active)
        losses.terms = {name: term for name, term in losses.terms.items() if name in active}
        # A group without a term is left alone: its old momentum must not move it.
        if losses.terms:  # none where a plan trains only what steps less often
            self._differentiate(losses)
        for name in losses.terms:
            self._clip(name)
        with self._refusing({n: losses.applied[n] for n in losses.terms if n in losses.applied}):
            self._adam.step(losses.terms, self._rates)
        for name, value in losses.becomes.items():
            self.agent.get_buffer(name).copy_(value)
        for online, target, group, rate in self._targets if targets != "none" else ():
            if targets == "all" or group is None or group in active:
                target.lerp_(online, rate)
        self.metrics = losses.metrics | {
            f"loss_{name}": term.detach() for name, term in losses.terms.items()
        }

    def _differentiate(self, losses: Losses) -> None:
        """Write the gradient of the terms' sum, over seeds too, into the flat ones of their groups.

        Asked for, not accumulated: PyTorch's own way zeroes all of them first, then adds each.
        """
        flats = [self._flat[name] for name in losses.terms]
        found = losses.gradients([p for flat in flats for p in flat.parameters])
        start = 0
        for flat in flats:
            end = start + len(flat.parameters)
            flat.take_gradients(found[start:end])
            start = end

    def reprioritised(self, batch: Batch) -> Tensor:
        """Return the priorities `[S, B]` that the method gives a batch's rows, after an update."""
        with torch.no_grad():
            found = self.agent.reprioritise(batch)
        assert found is not None
        return found

    @contextmanager
    def _refusing(self, applied: Mapping[str, Tensor]) -> Iterator[None]:
        """Take the step inside the block back in the seeds of a group where it isn't applied."""
        written = {
            name: [self._flat[name].flat.detach(), *self._adam.moments(name)] for name in applied
        }
        before = {name: [tensor.clone() for tensor in of] for name, of in written.items()}
        yield
        for name, mask in applied.items():
            for now, was in zip(written[name], before[name], strict=True):
                views = (self._flat[name].views(tensor) for tensor in (now, was))
                for view, old in zip(*views, strict=True):
                    here = mask.view(-1, *[1] * (view.ndim - 1))
                    view.copy_(torch.where(here, view, old))

    def _clip(self, name: str) -> None:
        """Bound the norm of each seed's gradient of a group, where it has a bound."""
        most, flat = self._groups[name].clip, self._flat[name]
        if most is None:
            return
        assert flat.flat.grad is not None
        views = flat.views(flat.flat.grad)
        squares = torch.stack([view.square().flatten(1).sum(1) for view in views])
        scale = (most / (squares.sum(0).sqrt() + CLIP_EPS)).clamp(max=1.0)  # [S]
        for view in views:
            view.mul_(scale.view(-1, *[1] * (view.ndim - 1)))

    def forget_momentum(self, seed_index: int) -> None:
        """Let a seed's optimisers begin their momentum anew; the gradients' size stays known."""
        for name, flat in self._flat.items():
            for view in flat.views(self._adam.state[name]["exp_avg"]):
                view[seed_index] = 0

    def scale_updates(self, scale: npt.NDArray[np.float64]) -> None:
        """Let each seed's parameters move by a share of what an update asks for, `[S]`."""
        for name, flat in self._flat.items():
            whole = torch.ones_like(flat.flat.data)
            for view in flat.views(whole):
                for i, share in enumerate(scale):
                    view[i] = share
            self._scales[name] = whole

    @contextmanager
    def scaled(self) -> Iterator[None]:
        """Hold the update inside the block to the seeds' shares.

        Targets have followed the whole update by then: a share of tau of it, once.
        """
        before = {name: self._flat[name].flat.detach().clone() for name in self._scales}
        yield
        for name, was in before.items():
            flat = self._flat[name].flat.data
            flat.copy_(was + self._scales[name] * (flat - was))

    def count(self) -> None:
        """Note that an update was made."""
        self.gradient_steps += 1

    def learning_rates(self) -> dict[str, float]:
        """Return every group's learning rate at the next update."""
        progress = 0.0
        if self.cosine_steps:
            progress = min(self.gradient_steps / self.cosine_steps, 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * progress))
        return {
            name: group.learning_rate * (fall if group.cosine else 1.0)
            for name, group in self._groups.items()
        }

    def not_finite(self) -> dict[str, Tensor]:
        """Return the parameters of which a trained or following number is NaN or infinite, by name.

        They lead with the seed axis. Waits for the device.
        """
        flats = (
            *(flat.flat.data for flat in self._flat.values()),
            *(t for _, t, *_ in self._targets),
        )
        if all(bool(flat.isfinite().all()) for flat in flats):
            return {}
        found = {name: p.detach() for name, p in self.agent.named_parameters()}
        return {name: p for name, p in found.items() if not bool(p.isfinite().all())}

    def state(self) -> dict[str, Tensor]:
        """Return optimiser moments and the noise stream, by name."""
        return {"stream.noise": self.noise.state(), **self.optimizer_state()}

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return optimiser moments, by name."""
        return {
            f"optimizer.{name}.{key}": value
            for name, state in self._adam.state.items()
            for key, value in state.items()
        }

    def restore(self, tensors: dict[str, Tensor], gradient_steps: int) -> None:
        """Continue from what `state()` returned."""
        self.gradient_steps = gradient_steps
        self.noise.restore(tensors["stream.noise"])
        self.restore_optimizers(tensors)

    def moments_of_seeds(
        self, tensors: Mapping[str, Tensor], seeds: int, rows: Sequence[int]
    ) -> dict[str, Tensor]:
        """Return optimiser state of so many seeds as that of those at `rows`, in the order of mine.

        Groups of other parameters are left out; how many steps were made, seeds share.
        """
        found = {}
        for name, flat in self._flat.items():
            for key in self._adam.state[name]:
                known = tensors.get(of := f"optimizer.{name}.{key}")
                if known is not None and known.ndim:
                    known = flat.of_seeds(known, seeds, rows)
                if known is not None:
                    found[of] = known
        return found

    def restore_optimizers(
        self, tensors: dict[str, Tensor], but: frozenset[str] = frozenset()
    ) -> list[str]:
        """Load the moments of the groups that fit, but for some; return which are left fresh."""
        fresh = []
        for name, state in self._adam.state.items():
            keys = {key: f"optimizer.{name}.{key}" for key in state}
            if name not in but and all(
                k in tensors and tensors[k].shape == state[key].shape for key, k in keys.items()
            ):
                for key, k in keys.items():
                    state[key].copy_(tensors[k])
            else:
                fresh.append(name)
        return fresh

"""The frame of a method that adapts another, its base: what it doesn't say is the base's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Batch, Experience, Group, Losses, Target
from baq_cli.agents.parts.adaptable import Adaptable
from baq_cli.agents.parts.sections import OnBase
from baq_cli.agents.plans import Draw, Plan, Stage
from baq_cli.nets.critics import QEnsemble
from baq_cli.nets.policies import ActingPolicy
from baq_cli.nets.streams import SeedStream


class Wrapper(Agent):
    """A method with another inside it, `base`, which answers wherever this one doesn't.

    A subclass overrides what it changes and asks `super()` for the rest. Its networks draw their
    first weights from streams of their own, so that the base begins as it does alone.
    """

    BASES: ClassVar[Mapping[str, type[Adaptable]]]
    """What it can adapt, by name."""

    config: OnBase
    base: Adaptable

    def build(self, init: SeedStream) -> None:
        config = self.config
        self.base = self.BASES[config.base](config.base_config(), self.spec, self.phase)
        self.base.clock = self.clock
        self.every, self.chunk = self.base.every, self.base.chunk
        self.reads_clock, self.data_columns = self.base.reads_clock, self.base.data_columns

    @property
    def policy(self) -> ActingPolicy:  # type: ignore[override]  # the base's, and no part of ours
        return self.base.policy

    @property
    def critic(self) -> QEnsemble:
        return self.base.critic

    # -- updates

    def groups(self) -> dict[str, Group]:
        return self.base.groups()

    def judging(self) -> frozenset[str]:
        return self.base.judging()

    def targets(self) -> list[Target]:
        return self.base.targets()

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        return _of_base(self.base.loss(batch, noise, active))

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        return _of_base(self.base.online_loss(batch, noise, active))

    def reprioritise(self, batch: Batch) -> Tensor | None:
        return self.base.reprioritise(batch)

    @property
    def reprioritises(self) -> bool:
        own = type(self).reprioritise is not Wrapper.reprioritise
        return own or self.base.reprioritises

    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        return self.base.diagnose(batch)

    # -- acting

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        return self.base.explore(obs, noise)

    def act(self, obs: Tensor, noise: SeedStream) -> Tensor:
        return self.base.act(obs, noise)

    @property
    def acts_by_its_policy(self) -> bool:
        return type(self).act is Wrapper.act and self.base.acts_by_its_policy

    def acting_parts(self) -> tuple[str, ...]:
        return tuple(f"base.{part}" for part in self.base.acting_parts())

    # -- the phases

    def offline_plan(self) -> Plan:
        return _by_full_names(self.base.offline_plan())

    def online_plan(self) -> Plan:
        return _by_full_names(self.base.online_plan())

    def begin_stage(self, stage: str, data: Experience) -> None:
        self.base.begin_stage(stage, data)

    def assess(self, data: Experience, stage: str | None = None) -> None:
        self.base.assess(data, stage)

    def finish_offline(self, data: Experience) -> None:
        self.base.finish_offline(data)

    def refresh(self, routine: str, data: Experience, noise: SeedStream) -> None:
        self.base.refresh(routine, data, noise)

    def hand_over(self, data: Experience) -> frozenset[str]:
        return self.base.hand_over(data)

    def annotate(self, batch: Batch) -> dict[str, Tensor]:
        return self.base.annotate(batch)

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        return self.base.on_episode_end(finished, returns, lengths)


def _of_base(losses: Losses) -> Losses:
    """Return a base's losses with the buffers that change named as the wrapper has them."""
    losses.becomes = {f"base.{name}": value for name, value in losses.becomes.items()}
    return losses


def _by_full_names(plan: Plan) -> Plan:
    """Return a base's plan with the buffers of its odds named as the wrapper has them."""

    def draws(given: tuple[Draw, ...]) -> tuple[Draw, ...]:
        return tuple(d if d.odds is None else replace(d, odds=f"base.{d.odds}") for d in given)

    def stages(given: tuple[Stage, ...]) -> tuple[Stage, ...]:
        return tuple(replace(stage, draws=draws(stage.draws)) for stage in given)

    routines = tuple(replace(each, stages=stages(each.stages)) for each in plan.routines)
    return replace(plan, draws=draws(plan.draws), first=stages(plan.first), routines=routines)

"""A method of the tests with a stage before each phase, a routine in it, and a model's store."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Batch, Experience, Group, Losses
from baq_cli.agents.plans import Draw, Plan, Routine, Stage, StoreName
from baq_cli.agents.td3_bc import TD3BC
from baq_cli.nets.critics import ValueNet
from baq_cli.nets.streams import SeedStream

MODEL = frozenset({"model"})
FIT, ASSESS, AGAIN = 7, 3, 2
"""Updates of the stage before a phase and between its assessments; of the routine's stage."""
EVERY, ROWS, CAPACITY = 4, 3, 8
"""Steps between two routines, the rows that one writes, and what its store holds."""


class Staged(TD3BC):
    """TD3+BC beside a model of rewards, of which half of every batch is made.

    `asked` has what the engine asked of it, in order, and `made` the rewards that it wrote.
    """

    name = "staged"
    asked: ClassVar[list[tuple[str, Any]]] = []
    made: ClassVar[list[Tensor]] = []

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.model = ValueNet(init, self.spec.obs_dim, (8,))
        self.guessed: Tensor
        self.register_buffer("guessed", per_seed(0.0, self.spec))

    def groups(self) -> dict[str, Group]:
        return super().groups() | {"model": Group((self.model,), 1e-2)}

    def offline_plan(self) -> Plan:
        return self.plan(("offline",))

    def online_plan(self) -> Plan:
        return self.plan(("offline", "online"), self.config.warmup_env_steps)

    def plan(self, stores: tuple[StoreName, ...], warmup: int = 0) -> Plan:
        return Plan(
            (Draw(stores, 0.5), Draw(("model",), 0.5)),
            warmup_env_steps=warmup,
            train=frozenset({"critic", "policy"}),
            first=(Stage("fit", MODEL, (Draw(),), FIT, rows=4, assess_every=ASSESS),),
            routines=(Routine("dream", EVERY, (Stage("fit again", MODEL, (Draw(),), AGAIN),)),),
            model_capacity=CAPACITY,
        )

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        if active == MODEL:
            label = batch.reward + 0.1 * noise.normal(batch.obs.shape[1])
            return Losses(model=(self.model(batch.obs) - label).square())
        return super().loss(batch, noise, active)

    def assess(self, data: Experience, stage: str | None = None) -> None:
        self.asked.append(("assess", stage))

    @torch.no_grad()
    def refresh(self, routine: str, data: Experience, noise: SeedStream) -> None:
        self.asked.append(("refresh", routine))
        real = data.sample((Draw(),), ROWS, noise)
        guess = self.model(real.obs)
        fields = {"obs": real.obs, "action": real.action, "next_obs": real.next_obs}
        data.put("model", fields | {"reward": guess, "bootstrap": real.bootstrap})
        self.made.append(guess)
        self.guessed.copy_(guess.mean(1))

"""Adaptive behaviour cloning: a cloning weight steered by episode returns."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Experience
from baq_cli.agents.plans import UNION, Plan
from baq_cli.agents.td3_bc import TD3BC
from baq_cli.nets.critics import Reduction
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Initialization


class AdaptiveBC(TD3BC):
    """REDQ + AdaptiveBC (Zhao et al. 2022, arXiv 2210.13846): cloning as the returns want it.

    Offline:
        Q_i   as TD3+BC, of ten critics; y has min over two drawn ones of Q̄_j(s', a')
        π     −mean_{i,B} Q_i(s, π(s)) / mean_{i,B}|Q_i(s, π(s))|
              + α mean_B mean_j (π(s)_j − a_j)²,  α = `bc_weight`

    Online: the same losses, `utd` gradient steps an environment step; at the end of every episode,
    of length T and return R, a proportional-derivative controller moves the cloning weight:
        R̄ ← R̄ + ρ (R − R̄)
        α ← clip(α + T [−K_P (R_target − R̄) + K_D max(0, R̄ − R)], 0, `bc_weight`)
    Returns are normalised to the reference range. Where this has no width, its size is the unit;
    without a dataset they are as they are.

    At the hand-over: α begins at `bc_weight`, and R̄ anew. Of the dataset a random part stays in
    reach, drawn for each seed (`distilled_share`, and `distilled_min_rows` at least); batches are
    drawn from it and the online rows together.

    Departures: the reference range is the dataset's lowest and highest episode return (the paper's:
    D4RL's random and expert scores); R̄ starts at the first episode's R, and moves before α does
    (the authors': after); the actor's value term is divided by the mean of |Q_i| over critics (the
    authors': the mean of the critics' |mean|); online rows never take the place of the dataset's
    part (the authors' are in one buffer of `capacity`).
    """

    name = "adaptive_bc"
    title = "AdaptiveBC"
    family = "adaptive constraint"
    constraint_online = "relaxes"

    class Config(TD3BC.Config):
        unused: ClassVar[frozenset[str]] = frozenset({"online_share", "alpha"})

        normalize_observations: bool = False
        initialization: Initialization = "normal"
        policy_initialization: Initialization | None = "uniform"
        actor_q: Literal["first", "mean", "min"] = "mean"
        critics: int = Field(10, ge=1)
        target_reduction: Reduction = "min_of_two"
        bc_weight: float = Field(0.4, ge=0, description="α_0, the cloning weight offline")
        utd: int = Field(10, ge=1, description="critic steps an environment step")
        target_return: float = Field(1.05, description="R_target, normalised")
        proportional_gain: float = Field(3e-5, ge=0, description="K_P, below the target")
        derivative_gain: float = Field(1e-4, ge=0, description="K_D, after a fall")
        return_rate: float = Field(0.05, gt=0, le=1, description="rate of the running mean R̄")
        distilled_share: float = Field(0.05, gt=0, le=1, description="of the dataset, kept online")
        distilled_min_rows: int = Field(50_000, ge=0, description="transitions at least, if it has")
        capacity: int = Field(250_000, ge=1)

    config: Config

    def initial_bc_weight(self) -> float:
        return float(self.config.bc_weight)

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.mean_return: Tensor
        self.register_buffer("mean_return", per_seed(float("nan"), self.spec))

    def hand_over(self, data: Experience) -> frozenset[str]:
        self.mean_return.fill_(float("nan"))  # an earlier online phase's may be another task's
        return super().hand_over(data)

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        config = self.config
        score = (returns - self.spec.return_range[0]) / self.spec.return_span
        score = score.to(self.bc_weight)
        mean = torch.where(self.mean_return.isnan(), score, self.mean_return)
        mean = mean + config.return_rate * (score - mean)
        decay = -config.proportional_gain * (config.target_return - mean)
        rise = config.derivative_gain * (mean - score).clamp(min=0)
        weight = (self.bc_weight + lengths * (decay + rise)).clamp(0.0, self.initial_bc_weight())
        self.mean_return.copy_(torch.where(finished, mean, self.mean_return))
        self.bc_weight.copy_(torch.where(finished, weight, self.bc_weight))
        return {}

    def online_plan(self) -> Plan:
        config = self.config
        return Plan(
            (UNION,),
            config.utd,
            config.warmup_env_steps,
            offline_share=config.distilled_share,
            offline_min_rows=config.distilled_min_rows,
            capacity=config.capacity,
        )

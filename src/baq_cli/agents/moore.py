"""Model-based offline-to-online learning: rollouts in a learned model, refitted online."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from baq_cli.agents.interface import Batch, Experience, Group, Losses
from baq_cli.agents.parts.dynamics import Imagined
from baq_cli.agents.parts.model_based import MODEL, MOST_MODEL_ROWS, ModelBased
from baq_cli.agents.parts.soft import SoftActorCritic
from baq_cli.agents.plans import Draw, Plan, Routine
from baq_cli.nets.streams import SeedStream


class MOORe(SoftActorCritic, ModelBased):
    """MOORe-style fine-tuning (after Mao, Wang, Wang, Zhang 2022, arXiv 2201.10070) of MOPO.

    MOPO (Yu et al. 2020, arXiv 2005.13239) is SAC on rollouts in a model whose rewards are lowered
    where its members are unsure. Fine-tuning goes on so, while the model moves from the dataset to
    what the environment shows.

    Offline:
        P_i   mean_B[mean_j((y_j − μ_ij)² / σ_ij² + log σ_ij²) + e(s, a)], y = (s' − s, r)
              standardised, e the cross-entropy of a termination (those weigh as much as all other
              rows); and 0.01 of how far apart the bounds of log σ² are; summed over `members`, for
              `dynamics_steps` before all else
        D_m   every `rollout_every` gradient steps: `rollouts` × `horizon` transitions of the model
              from states of the dataset, a ~ π(s), (s', r) ~ P_i of a drawn elite i,
              rewarded r − λ u(s, a),  u = max_i ‖σ_i(s, a)‖,  λ = `penalty`
        Q, π, α   as SAC has them, on batches of `real_share` real rows, the rest of D_m
    Of the members, each is kept as it was when it was off by least on rows held out.

    Online: the same losses. Every `refit_every` environment steps, t of T:
        P_i   `refit_steps` more, on rows of the dataset with probability
              w N_off / (w N_off + N_on),  w = max(ε, exp(−k t / T)),
              k = `decay`, ε = `decay_floor`; on online rows else
        D_m   rollouts as before, from states that are drawn like these rows; so are real rows
    `sampling` has other odds, the paper's ablations: uniform is w = 1, which adapts slowly; half
    and online_only are ½ and 0 from the first refit with online rows on.

    At the hand-over: policy, critics, temperature, model and their optimisers are taken as they
    are; D_m is empty, and filled before the first environment step. The penalty stays: u falls as
    data come.

    Departures: no code was found, and the paper's formula of w is not at hand: ours is a choice. A
    fit has a fixed number of steps, begun from the members that are kept, of which the best are
    kept by rows held out of the dataset and by all online rows, weighed as the drawn ones; weights
    do not decay. Terminations are predicted, not told by a rule of the task: a rollout that
    terminates begins anew from another start, so that every seed's D_m has as many rows.
    """

    name = "moore"
    title = "MOORe-style"
    family = "model-based"
    constraint_online = "stays"
    ablations: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"sampling": odds} for odds in ("uniform", "half", "online_only")
    )

    class Config(SoftActorCritic.Config, ModelBased.Config):
        unused: ClassVar[frozenset[str]] = frozenset({"online_share"})

        penalty: float = Field(1.0, ge=0, description="λ, of the model's uncertainty in rewards")
        rollouts: int = Field(50_000, ge=1, description="rollouts, each time that they are made")
        rollouts_kept: int = Field(5, ge=1, description="how many times' rollouts D_m holds")
        rollout_every: int = Field(1_000, ge=1, description="gradient steps between them, offline")
        real_share: float = Field(0.05, ge=0, lt=1, description="share of real rows a batch")
        sampling: Literal["decaying", "uniform", "half", "online_only"] = Field(
            "decaying", description="how the dataset counts against online rows"
        )
        decay: float = Field(5.0, ge=0, description="k: how fast the dataset's weight falls")
        decay_floor: float = Field(0.01, ge=0, le=1, description="ε, its least weight")

        @model_validator(mode="after")
        def _fits(self) -> MOORe.Config:
            if self.rollouts * self.horizon * self.rollouts_kept > MOST_MODEL_ROWS:
                raise ValueError(
                    f"expected rollouts · horizon · rollouts_kept <= {MOST_MODEL_ROWS:,}"
                )
            return self

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.build_model()
        if self.phase == "online":
            self.reads_clock = frozenset({"share"})

    def groups(self) -> dict[str, Group]:
        return super().groups() | self.model_group()

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        if active == MODEL:
            return Losses(dynamics=self.dynamics.fit_loss(batch))
        return super().loss(batch, noise, active)

    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Log the odds of the dataset, and how unsure the model is where batches are."""
        unsure = self.dynamics.uncertainty(batch.obs, batch.action)
        return {"offline_odds": self.odds.clone(), "model_uncertainty": unsure.mean(1)}

    # -- plans

    def offline_plan(self) -> Plan:
        first = (self.fit(self.config.dynamics_steps),)
        return replace(self._plan(Routine("rollouts", self.config.rollout_every)), first=first)

    def online_plan(self) -> Plan:
        config = self.config
        fit = self.fit(config.refit_steps)
        plan = self._plan(Routine("refit", config.refit_every, (fit,)))
        return replace(plan, utd=config.utd, warmup_env_steps=config.warmup_env_steps)

    def _plan(self, routine: Routine) -> Plan:
        config = self.config
        draws = replace(self.real, share=config.real_share), Draw(("model",), 1 - config.real_share)
        return Plan(
            tuple(draw for draw in draws if draw.share > 0),
            capacity=config.capacity,
            model_capacity=config.rollouts * config.horizon * config.rollouts_kept,
            train=frozenset(super().groups()),
            routines=(routine,),
        )

    # -- the model

    def odds_at(self, offline: int, online: int) -> Tensor:
        config = self.config
        if not online:
            return torch.ones_like(self.odds)
        if config.sampling in ("half", "online_only"):
            return torch.full_like(self.odds, 0.5 if config.sampling == "half" else 0.0)
        weight = torch.ones_like(self.odds)
        if config.sampling == "decaying":
            weight = (weight * -config.decay * self.clock.share).exp().clamp(min=config.decay_floor)
        return offline * weight / (offline * weight + online)

    def refresh(self, routine: str, data: Experience, noise: SeedStream) -> None:
        self.fill(data, self.config.rollouts, noise)

    def imagined_reward(self, found: Imagined) -> Tensor:
        return found.reward - self.config.penalty * found.penalty

"""Behavior-Adaptive Q-Learning: a base method, made careful by what it knows of the behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from baq_cli.agents.adapted import ADAPTED, Adapted
from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Batch, Experience, Group, Losses
from baq_cli.agents.objectives import spread_by_store, squared_distance
from baq_cli.agents.parts.behavior import BehaviorModel
from baq_cli.agents.parts.wrapper import Wrapper
from baq_cli.agents.plans import Plan
from baq_cli.nets.critics import Reduction
from baq_cli.nets.streams import SeedStream

REFERENCE_STATES = 10_000


class BAQConfig(Adapted):
    """BAQ's section. What it shares with its base (networks, batches, rates) is set here."""

    critics: int = Field(4, ge=2)
    layer_norm: bool = True
    target_reduction: Reduction = "min_of_two"
    normalize_observations: bool = True
    warmup_env_steps: int = Field(1_000, ge=0, description="steps of the frozen policy first")
    online_share: float | None = Field(
        0.5, ge=0, le=1, description="ρ, share of online rows a batch; null draws from the union"
    )

    weight: bool = Field(True, description="switch: weight TD errors by behaviour distance")
    priority: Literal["rising", "falling", "off"] = Field(
        "rising", description="switch: priority against behaviour distance"
    )
    align: bool = Field(True, description="switch: align with the behaviour where uncertain")
    relax: bool = Field(True, description="switch: relax with confidence (off holds κ at 0)")
    constraint: Literal["auto", "kept", "dropped"] = Field(
        "auto", description="the base's own constraint online; auto: dropped when align is on"
    )

    @field_validator("priority", mode="before")
    @classmethod
    def _bare_off(cls, value: Any) -> Any:
        return "off" if value is False else value

    k_q: float = Field(3.0, ge=0, description="how fast the weight falls with distance")
    k_p: float = Field(3.0, ge=0, description="how fast the priority changes with distance")
    priority_floor: float = Field(0.05, gt=0, description="ε, added to every priority")
    align_weight: float = Field(3.0, ge=0, description="λ, on a value term of size one")
    confidence_rate: float = Field(1e-3, gt=0, le=1, description="of κ, a gradient step")
    distance_limit: float | None = Field(
        0.1, gt=0, description="scale distances down so that their offline median is at most this"
    )
    behavior_hidden: tuple[int, ...] = Field((256, 256), description="hidden layer widths of π_BC")
    behavior_learning_rate: float = Field(3e-4, gt=0, description="of π_BC")

    @property
    def drops_constraint(self) -> bool:
        """Whether the base's own constraint is off online."""
        return self.constraint == "dropped" or (self.constraint == "auto" and self.align)


class BAQ(Wrapper):
    """BAQ (after Zu, Zhou, Zhang 2025, arXiv 2511.03695): a method careful far from the behaviour.

    Our implementation from the published description: the paper's code and tables are not public.

    Offline:
        base  the losses of `base`, as that method has them
        π_BC  −mean_B[log π_BC(a|s)] over rows that are not held out
    Of π_BC, each seed keeps what has the best held-out likelihood.

    Online:
        d(s, a) = mean_j (π_BC(s)_j − a_j)²
        weight    the base's TD errors are multiplied by exp(−k_q (1 − κ) d)
        priority  rows are drawn in proportion to 1 − exp(−k_p d) + ε
        align     π's loss gains λ (1 − κ) mean_B[u(s) mean_j (π(s)_j − π_BC(s)_j)²],
                  in units of the base's value term
                  u = clip(std_i Q_i(s, π(s)) / σ_ref, 0, 1), σ_ref its offline 90th percentile
        relax     κ ← κ + ρ (1 − mean u − κ) over online rows, ρ = `confidence_rate`
    Distances are scaled down so that their offline median is at most `distance_limit`. With every
    switch (`weight`, `priority`, `align`, `relax`) off it is its base, bit for bit.

    At the hand-over: π_BC is kept as it is from here on; d and u get their references; the base's
    own constraint goes where `align` takes its place (`constraint`); a share `online_share` of each
    batch are online rows, drawn by priority as the dataset's are; the first `warmup_env_steps` are
    taken by the frozen policy, without updates.

    Departures: the weight is the paper's; the priority's form, the alignment and its relaxation are
    this project's.
    """

    name = "baq"
    title = "BAQ"
    family = "adaptive constraint"
    constraint_online = "relaxes"
    needs_own_pretraining: ClassVar[bool] = True
    BASES = ADAPTED
    ablations: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **dict.fromkeys(("weight", "align", "relax"), (False,)),
        "priority": ("off",),
    }
    Config = BAQConfig

    config: BAQConfig
    confidence: Tensor
    distance_reference: Tensor
    uncertainty_reference: Tensor

    def build(self, init: SeedStream) -> None:
        super().build(init)
        config, spec = self.config, self.spec
        self.data_columns = (*self.base.data_columns, "held_out")
        if self.phase == "online" and config.drops_constraint:
            self.base.drop_constraint()
        self.behavior = BehaviorModel(spec, config.behavior_hidden)
        self.register_buffer("confidence", per_seed(0.0, spec))
        self.register_buffer("distance_reference", per_seed(1.0, spec))
        self.register_buffer("uncertainty_reference", per_seed(1.0, spec))

    def groups(self) -> dict[str, Group]:
        behavior = Group((self.behavior.learner,), self.config.behavior_learning_rate)
        return super().groups() | {"behavior": behavior}

    # -- offline: the base unchanged, and π_BC beside it

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        losses = super().loss(batch, noise, active)
        if "behavior" in active:
            losses.terms["behavior"] = self.behavior.fit_loss(batch)
        return losses

    def assess(self, data: Experience, stage: str | None = None) -> None:
        super().assess(data, stage)
        if stage is None:
            self.behavior.keep_better(data)

    def finish_offline(self, data: Experience) -> None:
        """Measure d_ref (held-out median of d) and σ_ref (90th percentile of the spread), `[S]`."""
        super().finish_offline(data)
        with torch.no_grad():
            distance = [self.distance(b.obs, b.action) for b in data.chunks(held_out=True)]
            spread = [
                self.critic(b.obs, self.policy.mode(b.obs)).std(1)
                for b in data.chunks(most_rows=REFERENCE_STATES)
            ]
        self.distance_reference.copy_(torch.cat(distance, 1).median(1).values)
        self.uncertainty_reference.copy_(torch.cat(spread, 1).quantile(0.9, dim=1).clamp(min=1e-8))

    # -- online

    def hand_over(self, data: Experience) -> frozenset[str]:
        fresh = super().hand_over(data)
        if self.config.drops_constraint:
            self.base.drop_constraint()
        return fresh

    def distance(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return `d(s, a) = mean_j (π_BC(s)_j − a_j)²`, `[S, B]`."""
        return squared_distance(self.behavior.mode(obs), action)

    def scaled(self, distance: Tensor) -> Tensor:
        """Return distances with their offline median brought down to `distance_limit`."""
        limit = self.config.distance_limit
        if limit is None:
            return distance
        return distance * (limit / self.distance_reference).clamp(max=1.0).unsqueeze(1)

    def td_weight(self, distance: Tensor) -> Tensor:
        """Return `w = exp(−k_q (1 − κ) d)`, `[S, B]`."""
        doubt = (1.0 - self.confidence).unsqueeze(1)
        return torch.exp(-self.config.k_q * doubt * self.scaled(distance))

    def priority(self, distance: Tensor) -> Tensor:
        """Return `1 − exp(−k_p d) + ε` (rising) or `exp(−k_p d) + ε` (falling), `[S, B]`."""
        near = torch.exp(-self.config.k_p * self.scaled(distance))
        value = near if self.config.priority == "falling" else 1.0 - near
        return value + self.config.priority_floor

    def uncertainty(self, q_policy: Tensor) -> Tensor:
        """Return `u = clip(std_i Q_i(s, π(s)) / σ_ref, 0, 1)`, `[S, B]`, detached."""
        spread = q_policy.detach().std(1) / self.uncertainty_reference.unsqueeze(1)
        return spread.clamp(0.0, 1.0)

    def annotate(self, batch: Batch) -> dict[str, Tensor]:
        distance = self.distance(batch.obs, batch.action)
        columns = super().annotate(batch) | {"behavior_distance": distance}
        if self.config.priority != "off":
            columns["priority"] = self.priority(distance)
        return columns

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        config = self.config
        if config.weight:
            weight = self.td_weight(batch.columns["behavior_distance"])
            batch = replace(batch, weight=batch.weight * weight)
        losses = super().online_loss(batch, noise, active)
        if "policy" in active and (config.align or config.relax):
            self._align_and_relax(losses, batch)
        return losses

    def _align_and_relax(self, losses: Losses, batch: Batch) -> None:
        """Add the alignment to the policy's loss, then move κ; both see κ as it was."""
        action, q_policy = self.base.seen(losses, batch.obs)
        u = self.uncertainty(q_policy)
        losses.metrics |= {"uncertainty": u.mean(1), "confidence": self.confidence.clone()}
        if self.config.align:
            gap = (u * squared_distance(action, self.behavior.mode(batch.obs))).mean(1)
            strength = self.config.align_weight * self.base.value_scale(q_policy)
            term = strength * (1.0 - self.confidence) * gap
            losses.terms["policy"] = losses.terms["policy"] + term
            losses.metrics["alignment"] = term.detach()
        if self.config.relax:
            self._raise_confidence(u, batch.online)

    def _raise_confidence(self, u: Tensor, online: Tensor) -> None:
        """Move κ towards `1 − mean u` over online rows; without any, κ stays.

        A policy that steps every k-th gradient step moves κ at the rate of k steps.
        """
        rows = online.sum(1)
        calm = 1.0 - (u * online).sum(1) / rows.clamp(min=1.0)
        rate = 1.0 - (1.0 - self.config.confidence_rate) ** self.every.get("policy", 1)
        self.confidence += rate * (rows > 0) * (calm - self.confidence)

    def online_plan(self) -> Plan:
        plan = super().online_plan()
        if self.config.priority == "off":
            return plan
        return replace(plan, draws=tuple(replace(draw, prioritised=True) for draw in plan.draws))

    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Log d and w, offline and online rows apart, the effective sample size of w, the shares.

        Quantiles are over the batch; a store without rows in the batch logs NaN.
        """
        known = super().diagnose(batch)
        if "behavior_distance" not in batch.columns:
            return known
        distance = batch.columns["behavior_distance"]
        weight = self.td_weight(distance) if self.config.weight else torch.ones_like(distance)
        known |= {
            "online_share": batch.online.mean(1),
            "weight_effective_share": weight.mean(1).square() / weight.square().mean(1),
        }
        return known | spread_by_store(batch.online, distance=distance, weight=weight)

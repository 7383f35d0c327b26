"""Behavior-Adaptive Q-Learning: a base method, made careful by what it knows of the behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from baq_cli.agents.adapted import ADAPTED, BAQConfig
from baq_cli.agents.base import frozen_copy, per_seed
from baq_cli.agents.interface import Batch, Experience, Group, Losses, Target
from baq_cli.agents.objectives import spread_by_store, squared_distance
from baq_cli.agents.parts.behavior import BehaviorModel
from baq_cli.agents.parts.confidence import CONFIDENCES, Confidence, Evidence
from baq_cli.agents.parts.wrapper import Wrapper
from baq_cli.agents.plans import Plan
from baq_cli.nets.policies import ActingPolicy
from baq_cli.nets.streams import SeedStream

REFERENCE_STATES = 10_000


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
        align     π's loss gains λ (1 − κ) mean_B[u(s) mean_j (π(s)_j − π_ref(s)_j)²],
                  in units of the base's own loss; π_ref as `align_to` says: π_BC,
                  or π as it was handed over
                  u = clip(std_i Q_i(s, π(s)) / σ_ref, 0, 1), σ_ref its offline 90th percentile
        bound     π's loss gains λ_b mean_B[((1 − κ) mean_j (π(s)_j − π̃(s)_j)² − δ)⁺],
                  in the same units; δ = `bound`, none by default; π̃ follows π by `bound_rate`
        relax     κ, from 0, moves by ρ = `confidence_rate` and follows, as `confidence` says (each
                  one's formula: docs/baq.md),
                  relative_spread  1 − mean u / g over online rows, g the growth of |Q|
                  spread           1 − mean u
                  calibration      values at entry against the returns of the newest episodes
                  returns          those of the newest episodes against those of the warm-up
                  dual             a distance of π to π_BC that widens while returns hold
    Distances are scaled down so that their offline median is at most `distance_limit`. With every
    switch (`weight`, `priority`, `align`, `relax`) off it is its base, bit for bit.

    At the hand-over: π_BC is kept as it is from here on; d and u get their references; the base's
    own constraint stays, or goes if `constraint` says so; a share `online_share` of each batch are
    online rows, drawn by priority as the dataset's are; the first `warmup_env_steps` are taken by
    the frozen policy, without updates.

    Departures: the weight is the paper's; the priority's form, the alignment, the bound and what
    relaxes them are this project's. The paper's two mechanisms alone: `align` and `relax` off.
    """

    name = "baq"
    title = "BAQ"
    family = "adaptive constraint"
    constraint_online = "relaxes"
    needs_own_pretraining: ClassVar[bool] = True
    BASES = ADAPTED
    fresh_online = ("gauge", "slow", "anchor")
    ablations: ClassVar[tuple[Mapping[str, Any], ...]] = (
        *({switch: False} for switch in ("weight", "align", "relax")),
        {"priority": "off"},
        {"align": False, "relax": False},  # the paper's weight and priority alone
    )
    Config = BAQConfig

    config: BAQConfig
    gauge: Confidence
    slow: ActingPolicy | None
    anchor: ActingPolicy | None
    confidence: Tensor
    distance_reference: Tensor
    uncertainty_reference: Tensor

    def build(self, init: SeedStream) -> None:
        super().build(init)
        config, spec = self.config, self.spec
        online = self.phase == "online"
        follows = CONFIDENCES[config.confidence] if online and config.relax else Confidence
        self.gauge = follows(spec, config.warmup_env_steps)
        asked = (*self.base.data_columns, "held_out", *self.gauge.data_columns)
        self.data_columns = tuple(dict.fromkeys(asked))
        if online and config.drops_constraint:
            self.base.drop_constraint()
        self.behavior = BehaviorModel(spec, config.behavior_hidden)
        bounded = online and config.bound is not None
        self.slow = frozen_copy(self.policy) if bounded else None
        anchored = online and config.align and config.align_to == "handover"
        self.anchor = frozen_copy(self.policy) if anchored else None
        self.register_buffer("confidence", per_seed(0.0, spec))
        self.register_buffer("distance_reference", per_seed(1.0, spec))
        self.register_buffer("uncertainty_reference", per_seed(1.0, spec))

    def groups(self) -> dict[str, Group]:
        behavior = Group((self.behavior.learner,), self.config.behavior_learning_rate)
        return super().groups() | {"behavior": behavior}

    def targets(self) -> list[Target]:
        found = super().targets()
        if self.slow is not None:
            found.append(Target(self.policy, self.slow, "policy", self.config.bound_rate))
        return found

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
        self.gauge.begin(data, self.confidence, self.distance_reference)
        for copy in filter(None, (self.slow, self.anchor)):
            copy.load_state_dict(self.policy.state_dict())
        return fresh

    def distance(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return `d(s, a) = mean_j (π_BC(s)_j − a_j)²`, `[S, B]`."""
        return squared_distance(self.behavior.mode(obs), action)

    def scaled(self, distance: Tensor) -> Tensor:
        """Return distances with their offline median brought down to `distance_limit`."""
        if (limit := self.config.distance_limit) is None:
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
        columns |= self.gauge.annotate(batch, self.base)
        if self.config.priority != "off":
            columns["priority"] = self.priority(distance)
        return columns

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        ended = finished, returns, lengths
        return super().on_episode_end(*ended) | self.gauge.on_episode_end(*ended)

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        config = self.config
        if config.weight:
            weight = self.td_weight(batch.columns["behavior_distance"])
            batch = replace(batch, weight=batch.weight * weight)
        losses = super().online_loss(batch, noise, active)
        if "policy" in active and (config.align or config.relax or self.slow):
            self._hold_and_relax(losses, batch)
        return losses

    def _hold_and_relax(self, losses: Losses, batch: Batch) -> None:
        """Add what holds the policy to its loss, then move κ; all see κ as it was.

        A policy that steps every k-th gradient step moves κ at the rate of k steps.
        """
        config, doubt = self.config, 1.0 - self.confidence
        action, q_policy = self.base.seen(losses, batch.obs)
        u, scale = self.uncertainty(q_policy), self.base.scale(losses, q_policy)
        gap = squared_distance(action, self.behavior.mode(batch.obs))
        held = {}
        if config.align:
            anchor = self.anchor
            strayed = gap if anchor is None else squared_distance(action, anchor.mode(batch.obs))
            held["alignment"] = config.align_weight * scale * doubt * (u * strayed).mean(1)
        if self.slow is not None and config.bound is not None:
            moved = squared_distance(action, self.slow.mode(batch.obs))
            beyond = (doubt.unsqueeze(1) * moved - config.bound).clamp(min=0.0)
            held["bound"] = config.bound_weight * scale * beyond.mean(1)
        for name, term in held.items():
            losses.terms["policy"] = losses.terms["policy"] + term
            losses.metrics[name] = term.detach()
        losses.metrics |= {"uncertainty": u.mean(1), "confidence": self.confidence.clone()}
        rate = 1.0 - (1.0 - config.confidence_rate) ** self.every.get("policy", 1)
        seen = Evidence(batch, u, gap.detach(), q_policy.detach().abs().mean((1, 2)), rate)
        self.confidence.copy_(self.gauge.moved(self.confidence, seen))

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
        known |= self.gauge.report() | {
            "online_share": batch.online.mean(1),
            "weight_effective_share": weight.mean(1).square() / weight.square().mean(1),
        }
        return known | spread_by_store(batch.online, distance=distance, weight=weight)

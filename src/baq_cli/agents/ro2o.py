"""RO2O: an ensemble that is smooth about the data and unsure beside them, before and after."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Batch
from baq_cli.agents.objectives import squared_distance, td_loss
from baq_cli.agents.plans import Draw, Plan
from baq_cli.agents.sac_n import SACN
from baq_cli.nets.critics import reduce_q
from baq_cli.nets.streams import SeedStream

RISE, FALL = 0.8, 0.2
"""How a value counts that is higher at a perturbed state, and one that is lower."""


class RO2O(SACN):
    """RO2O (Wen et al. 2023, arXiv 2309.16973): SAC-N, robust to small changes of the state.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over N critics
              y = r + γ (1 − d) [min_j Q̄_j(s', a') − α log π(a'|s')],  a' ~ π(s')
              + η₁ mean_B[max_ŝ mean_i (0.8 δ₊² + 0.2 δ₋²)],  δ = Q_i(ŝ, a) − Q_i(s, a)
              + η₂ mean_{B, ŝ, i}[(Q_i(ŝ, â) − sg[Q_i(ŝ, â) − u std_j Q_j(ŝ, â)])²],  â ~ π(ŝ)
        π     mean_B[α log π(a|s) − min_i Q_i(s, a)],  a ~ π(s)
              + η₃ mean_B[max_ŝ KL(π(s) ‖ π(ŝ)) + KL(π(ŝ) ‖ π(s))]
        α     as SAC-N
              η₁ = `q_smooth_weight`, η₂ = `ood_weight`, η₃ = `policy_smooth_weight`
    ŝ = s + δ_k, k up to `perturbations`, δ_k uniform within ± `q_smooth_radius`, `ood_radius`,
    `policy_smooth_radius`: each term draws its own, and the rows of a batch share them. The KLs are
    of the Gaussians before the tanh. u falls from `ood_uncertainty` by `ood_decay` a gradient step
    to `ood_uncertainty_floor`.

    On AntMaze each critic bootstraps from itself (`independent_targets`), π follows
    mean_i Q_i − κ std_i Q_i, κ = `policy_pessimism`, and pays `bc_weight` mean_B ‖a − π(s)‖² / |A|
    for leaving the actions of the batch.

    Online: the same losses, with u at its floor and `online_bc_weight`. Without
    `keep_regularisers_online` the terms of η₁, η₂ and η₃ go, as in the authors' code on MuJoCo.
    Actions are samples of π.

    At the hand-over: networks, temperature and optimisers go on. The online store starts empty, no
    row of the dataset is drawn again, and the first `warmup_env_steps` are π's, without updates.

    Departures: those of SAC-N. The authors compute the terms online and leave them out of what is
    differentiated, which their paper doesn't say: by default they stay. A version of
    their AntMaze code trains on raw rewards offline and on others online; here they have one unit.
    """

    name = "ro2o"
    title = "RO2O"
    family = "ensemble"
    constraint_online = "stays"

    class Config(SACN.Config):
        unused: ClassVar[frozenset[str]] = frozenset({"online_share"})

        critics: int = Field(10, ge=2)
        normalize_observations: bool = True
        warmup_env_steps: int = Field(2_500, ge=0)
        capacity: int = Field(250_000, ge=1)
        perturbations: int = Field(20, ge=1, description="states ŝ about each state, in each term")
        q_smooth_weight: float = Field(1e-4, ge=0, description="η₁, of the critics' smoothness")
        q_smooth_radius: float = Field(0.005, ge=0, description="ε of the critics' smoothness")
        policy_smooth_weight: float = Field(0.1, ge=0, description="η₃, of the policy's smoothness")
        policy_smooth_radius: float = Field(0.005, ge=0, description="ε of the policy's smoothness")
        ood_weight: float = Field(0.5, ge=0, description="η₂, of the pessimism beside the data")
        ood_radius: float = Field(0.01, ge=0, description="ε of the pessimism beside the data")
        ood_uncertainty: float = Field(2.0, ge=0, description="u at first, times the critics' std")
        ood_uncertainty_floor: float = Field(0.1, ge=0, description="u at last, and online")
        ood_decay: float = Field(1e-6, ge=0, description="what u falls by, a gradient step offline")
        keep_regularisers_online: bool = Field(
            True, description="smoothness and pessimism online too, as the paper says"
        )
        independent_targets: bool = Field(
            False, description="each critic bootstraps from itself, not from target_reduction"
        )
        policy_pessimism: float | None = Field(
            None, ge=0, description="κ: π follows mean − κ std of the critics; null: their least"
        )
        bc_weight: float = Field(0.0, ge=0, description="of π's squared distance from the actions")
        online_bc_weight: float | None = Field(
            None, ge=0, description="bc_weight online; null: as offline"
        )

        @model_validator(mode="after")
        def _falls(self) -> RO2O.Config:
            first, last = self.ood_uncertainty, self.ood_uncertainty_floor
            if last > first:
                raise ValueError(
                    f"ood_uncertainty_floor {last:g} is above ood_uncertainty {first:g}: u falls "
                    "from one to the other. Expected ood_uncertainty_floor <= ood_uncertainty"
                )
            return self

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        config, online = self.config, self.phase == "online"
        later = config.online_bc_weight
        self.bc_weight = later if online and later is not None else config.bc_weight
        weights = config.q_smooth_weight, config.ood_weight, config.policy_smooth_weight
        kept = config.keep_regularisers_online or not online
        self.q_smooth_weight, self.ood_weight, self.policy_smooth_weight = (
            weight if kept else 0.0 for weight in weights
        )
        self.reads_clock = frozenset() if online else frozenset({"gradient_steps"})
        self.constrained: Tensor  # 1, or 0 where the constraints are dropped
        self.register_buffer("constrained", per_seed(1.0, self.spec), persistent=False)

    def online_plan(self) -> Plan:
        config = self.config
        draws = (Draw(("online",)),)
        return Plan(draws, config.utd, config.warmup_env_steps, capacity=config.capacity)

    def drop_constraint(self) -> None:
        self.constrained.zero_()

    # -- the terms

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        if not self.config.independent_targets:
            return super().q_target(batch, noise)
        with torch.no_grad():
            next_action, next_log_prob = self.policy.sample(batch.next_obs, noise)
            next_q = self.critic_target(batch.next_obs, next_action)
            return self.backup(batch, next_q, next_log_prob)

    def critic_smoothness(self, batch: Batch, q: Tensor, noise: SeedStream) -> Tensor:
        """Return `max_ŝ mean_i (0.8 δ₊² + 0.2 δ₋²)`, `[S, B]`, for q = Q_i(s, a) `[S, N, B]`."""
        config = self.config
        near = perturbed(batch.obs, config.perturbations, config.q_smooth_radius, noise)
        action = batch.action.repeat(1, config.perturbations, 1)
        delta = self.critic(near, action).unflatten(2, (config.perturbations, -1)) - q.unsqueeze(2)
        sides = RISE * delta.clamp(min=0).square() + FALL * delta.clamp(max=0).square()
        return sides.mean(1).amax(1)

    def uncertainty(self) -> Tensor:
        """Return u at this gradient step, a scalar."""
        config = self.config
        if self.phase == "online":
            return torch.full_like(self.clock.gradient_steps, config.ood_uncertainty_floor)
        fallen = config.ood_uncertainty - config.ood_decay * self.clock.gradient_steps
        return fallen.clamp(min=config.ood_uncertainty_floor)

    def pessimism(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `mean_{ŝ, i} (Q_i(ŝ, â) − sg[Q_i(ŝ, â) − u std_j Q_j(ŝ, â)])²`, `[S, B]`."""
        config = self.config
        near = perturbed(batch.obs, config.perturbations, config.ood_radius, noise)
        with torch.no_grad():
            action, _ = self.policy.sample(near, noise)
        q = self.critic(near, action)
        target = (q - self.uncertainty() * q.std(1, keepdim=True)).detach()
        return (q - target).square().mean(1).unflatten(1, (config.perturbations, -1)).mean(1)

    def policy_smoothness(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `max_ŝ KL(π(s) ‖ π(ŝ)) + KL(π(ŝ) ‖ π(s))`, `[S, B]`."""
        copies = self.config.perturbations
        near = perturbed(batch.obs, copies, self.config.policy_smooth_radius, noise)
        here = [part.unsqueeze(1) for part in self.policy.head(batch.obs)]
        there = [part.unflatten(1, (copies, -1)) for part in self.policy.head(near)]
        return symmetric_kl(*here, *there).amax(1)

    # -- the losses

    def critic_loss(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, dict[str, Tensor]]:
        q = self.critic(batch.obs, batch.action)
        loss, metrics = td_loss(q, self.q_target(batch, noise), batch.weight), {"q": q.mean((1, 2))}
        held = torch.zeros_like(batch.constraint)
        if self.q_smooth_weight > 0:
            rough = self.critic_smoothness(batch, q, noise)
            held, metrics["q_roughness"] = held + self.q_smooth_weight * rough, rough.mean(1)
        if self.ood_weight > 0:
            unsure = self.pessimism(batch, noise)
            held, metrics["ood"] = held + self.ood_weight * unsure, unsure.mean(1)
        return loss + self.constrained * (batch.constraint * held).mean(1), metrics

    def actor_losses(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, Tensor]:
        action, log_prob = self.policy.sample(batch.obs, noise)
        q, kappa = self.critic(batch.obs, action, frozen=True), self.config.policy_pessimism
        value = reduce_q(q, "min") if kappa is None else q.mean(1) - kappa * q.std(1)
        held = self.bc_weight * squared_distance(action, batch.action)
        if self.policy_smooth_weight > 0:
            held = held + self.policy_smooth_weight * self.policy_smoothness(batch, noise)
        held = self.constrained * (batch.constraint * held).mean(1)
        surplus = (log_prob.detach() + self.target_entropy).mean(1)
        return (self.alpha * log_prob - value).mean(1) + held, -self.log_alpha * surplus


def perturbed(obs: Tensor, copies: int, radius: float, noise: SeedStream) -> Tensor:
    """Return `s + δ_k`, uniform within ±radius, `[S, copies · B, obs_dim]`, copy after copy.

    The rows of a batch share the δ_k.
    """
    delta = radius * (2 * noise.uniform(copies, 1, obs.shape[-1]) - 1)
    return (obs.unsqueeze(1) + delta).flatten(1, 2)


def symmetric_kl(mean: Tensor, log_std: Tensor, other: Tensor, other_log_std: Tensor) -> Tensor:
    """Return `KL(p ‖ q) + KL(q ‖ p)` of diagonal Gaussians `[…, action_dim]`, `[…]`."""
    ours, theirs = (2 * log_std).exp(), (2 * other_log_std).exp()
    apart = (mean - other).square()
    return (0.5 * ((ours + apart) / theirs + (theirs + apart) / ours) - 1).sum(-1)

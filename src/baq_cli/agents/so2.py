"""SO2: EDAC fine-tuned without its pessimism, on smoothed targets and many critic updates."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.edac import EDAC
from baq_cli.agents.interface import Batch, Experience, Group, Losses
from baq_cli.agents.objectives import td_loss
from baq_cli.agents.plans import Draw, Plan
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Positive


class SO2(EDAC):
    """SO2 (Zhang et al. 2023, arXiv 2312.07685): EDAC with perturbed value updates online.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over N critics,
              + η mean_B[Σ_{i≠j} cos(∇_a Q_i(s, a), ∇_a Q_j(s, a))] / (N − 1)
              η = `diversity_weight`; y = r + γ (1 − d) [min_j Q̄_j(s', a') − α log π(a'|s')],
              or EDAC's of several actions (`max_target_backup`), in this phase alone
        π, α  as SAC-N

    Online:
        Q_i   mean_B[(Q_i(s, a) − y_i)²], averaged over critics
              y_i = r + γ (1 − d) [Q̄_i(s', ã') − α log π(a'|s')],  a' ~ π(s')
              ã' = clip(a' + clip(ε, ±c), ±1),  ε ~ N(0, σ²),  σ = `target_noise`
        π     mean_B[α log π(a|s) − min_i Q_i(s, a)],  a ~ π(s),  α = `online_temperature`
    Each critic learns from its own target; with `online_target` min, all from the least. An
    environment step has `utd` gradient steps, and the policy one in every `policy_every` of them.
    A batch has `batch_size` online rows, which are `online_share` of it; the others are of a queue
    that begins as the dataset and that online rows push its oldest out of. Actions are samples of
    π.

    At the hand-over: the diversity term goes; critics bootstrap from themselves at perturbed
    actions; α becomes a constant, and jumps to it; optimisers start fresh, at
    `online_learning_rate`. The first `warmup_env_steps` are π's, without updates. Checkpoints of
    EDAC are continued as its own.

    Departures: those of EDAC. The first `warmup_env_steps` rows enter the queue too (the authors':
    only later ones). Truncated transitions bootstrap (the authors store Hopper's and Walker2d's
    time limits as terminations). Their two released entry points differ; this follows the
    branch named code, which has the paper's ten updates a step. A batch has no greatest size
    (8 192).
    """

    name = "so2"
    title = "SO2"
    family = "ensemble"
    constraint_online = "ends"

    class Config(EDAC.Config):
        own: ClassVar[dict[str, str]] = EDAC.Config.own | {
            "utd": "it updates more often",
            "online_share": "its batches have that many more rows of the past",
        }

        utd: int = Field(10, ge=1)
        warmup_env_steps: int = Field(5_000, ge=0)
        online_share: float | None = Field(
            0.1,
            ge=0.01,
            le=1,
            description="share of online rows in batches online, which have batch_size / this; "
            "null draws batch_size rows from the union",
        )
        policy_every: int = Field(10, ge=1, description="gradient steps a policy step online")
        online_temperature: float | None = Field(
            0.2, gt=0, description="α online, a constant; null: learned on"
        )
        online_learning_rate: Positive | None = Field(
            1e-3, description="of critics and policy online; null: as offline"
        )
        online_target: Literal["independent", "min"] = Field(
            "independent", description="what critics bootstrap from online: themselves or the least"
        )
        target_noise: float = Field(0.3, ge=0, description="σ, std of the target's perturbation")
        target_noise_clip: float = Field(0.6, ge=0, description="c, bound of that noise")

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        if self.phase == "online":
            every = self.config.policy_every
            self.every = {"policy": every, "temperature": every}

    @property
    def learns_temperature(self) -> bool:
        """Whether α is learned in this phase."""
        return self.phase == "offline" or self.config.online_temperature is None

    @property
    def alpha(self) -> Tensor:
        """The temperature, detached, `[S, 1]`: a constant online, where one is configured."""
        constant = self.config.online_temperature
        if self.phase == "offline" or constant is None:
            return super().alpha
        return torch.full_like(self.log_alpha.detach(), constant).unsqueeze(1)

    def groups(self) -> dict[str, Group]:
        groups, rate = super().groups(), self.config.online_learning_rate
        if self.phase == "online" and rate is not None:
            groups |= {n: replace(groups[n], learning_rate=rate) for n in ("critic", "policy")}
        if not self.learns_temperature:
            del groups["temperature"]
        return groups

    def hand_over(self, data: Experience) -> frozenset[str]:
        return frozenset(self.groups())

    def online_plan(self) -> Plan:
        plan, share = super().online_plan(), self.config.online_share
        if share is None:
            return plan
        queue = Draw(("offline", "online"), 1 / share - 1, newest="offline")
        return replace(plan, draws=tuple(d for d in (Draw(("online",)), queue) if d.share > 0))

    def perturbed(self, action: Tensor, noise: SeedStream) -> Tensor:
        """Return `clip(a' + clip(ε, ±c), ±1)`, `[S, B, action_dim]`."""
        config = self.config
        eps = config.target_noise * noise.normal(*action.shape[1:])
        eps = eps.clamp(-config.target_noise_clip, config.target_noise_clip)
        return (action + eps).clamp(-1.0, 1.0)

    def online_q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `y_i`, `[S, N, B]`, or `[S, B]` with one target for all critics."""
        with torch.no_grad():
            next_action, next_log_prob = self.policy.sample(batch.next_obs, noise)
            next_q = self.critic_target(batch.next_obs, self.perturbed(next_action, noise))
            if self.config.online_target == "min":
                next_q = next_q.amin(1)
            return self.backup(batch, next_q, next_log_prob)

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        q = self.critic(batch.obs, batch.action)
        critic = td_loss(q, self.online_q_target(batch, noise), batch.weight) / q.shape[1]
        metrics = {"q": q.mean((1, 2)), "alpha": self.alpha.squeeze(1)}
        if "policy" not in active:
            return Losses(metrics, critic=critic)
        policy, temperature = self.actor_losses(batch, noise)
        learned = {"temperature": temperature} if self.learns_temperature else {}
        return Losses(metrics, None, critic=critic, policy=policy, **learned)

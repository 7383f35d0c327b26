"""ReBRAC: TD3 whose actor and whose critics' targets both pay for leaving the data."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Batch, Losses, Seen
from baq_cli.agents.objectives import mean_abs, td_loss
from baq_cli.agents.parts.adaptable import Adaptable
from baq_cli.agents.parts.td3 import TD3
from baq_cli.agents.plans import Plan
from baq_cli.nets.critics import reduce_q
from baq_cli.nets.plain import Norm
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Initialization, Widths


class ReBRAC(TD3, Adaptable):
    """ReBRAC (Tarasov et al. 2023, arXiv 2305.09836): TD3+BC with a penalty for critics too.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over critics
              y = r + γ (1 − d) [min_j Q̄_j(s', a') − β₂ ‖a' − â'‖²],  β₂ = `critic_penalty`
              a' = clip(π̄(s') + clip(ε, ±c), ±1),  ε ~ N(0, σ²),  σ = `target_noise`
              â', what was done in s'; no penalty where that isn't known, at an episode's end
        π     −mean_B[min_i Q_i(s, π(s))] / mean_B|min_i Q_i(s, π(s))| + β₁ mean_B ‖π(s) − a‖²
              β₁ = `policy_penalty`
    Both ‖·‖² are sums over action dimensions. Critics have a LayerNorm behind each activation. The
    policy steps on every second gradient step, and the targets with it.

    Online: β₂ is 0, and β₁ falls with the share of the phase that is over:
        β₁ ← `policy_penalty` · max(`penalty_floor`, 1 − share)
    Actions have Gaussian noise of std `exploration_noise`, by default none.

    At the hand-over: the critics' penalty ends at once and the policy's begins to fall; optimisers
    stay as they are. Half of a batch are online rows (`online_share`). As CORL does it.

    Departures: critic and policy step on one backward pass, from the same parameters; a truncated
    last transition is learned from without a penalty (the authors leave it out); LayerNorm's
    epsilon is 1e-5 (1e-6).
    """

    name = "rebrac"
    title = "ReBRAC"
    family = "policy constraint"
    constraint_online = "relaxes"
    norm: ClassVar[Norm] = "after"

    class Config(TD3.Config):
        hidden: Widths = (256, 256, 256)
        initialization: Initialization = "small_last"
        layer_norm: bool = Field(True, description="LayerNorm behind each critic activation")
        learning_rate: float = Field(1e-3, gt=0)
        policy_learning_rate: float = Field(1e-3, gt=0)
        batch_size: int = Field(1024, ge=1)
        exploration_noise: float = Field(0.0, ge=0)
        online_share: float | None = Field(0.5, ge=0, le=1)
        policy_penalty: float = Field(0.01, ge=0, description="β₁, of the policy's distance")
        critic_penalty: float = Field(0.01, ge=0, description="β₂, of the target action's distance")
        penalty_floor: float = Field(
            0.5, ge=0, le=1, description="the share of β₁ that it falls to online"
        )

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.policy_penalty: Tensor
        self.critic_penalty: Tensor
        for name in ("policy_penalty", "critic_penalty"):  # as configured, or dropped
            weight = per_seed(getattr(self.config, name), self.spec)
            self.register_buffer(name, weight, persistent=False)
        if self.phase == "online":
            self.reads_clock = frozenset({"share"})

    def offline_plan(self) -> Plan:
        return Plan(next_action=True)

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `y = r + γ (1 − d) [min_j Q̄_j(s', a') − β₂ ‖a' − â'‖²]`, `[S, B]`."""
        if self.phase == "online":
            return super().q_target(batch, noise)
        assert batch.next_action is not None
        assert batch.has_next is not None
        with torch.no_grad():
            next_action = self.target_action(batch, noise)
            next_q = self.critic_target(batch.next_obs, next_action)
            next_value = reduce_q(next_q, self.config.target_reduction, noise)
            strayed = batch.has_next * (next_action - batch.next_action).square().sum(-1)
            next_value = next_value - self.critic_penalty.unsqueeze(1) * strayed
            return batch.reward + batch.discount * next_value

    def penalty_left(self) -> Tensor:
        """Return β₁ at this step, `[S]`; offline it is whole."""
        if self.phase == "offline":
            return self.policy_penalty
        return self.policy_penalty * (1 - self.clock.share).clamp(min=self.config.penalty_floor)

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        q = self.critic(batch.obs, batch.action)
        critic = td_loss(q, self.q_target(batch, noise), batch.weight)
        penalty = self.penalty_left()
        metrics = {"q": q.mean((1, 2)), "policy_penalty": penalty}
        if "policy" not in active:
            return Losses(metrics, critic=critic)
        action = self.policy.mode(batch.obs)
        q_policy = self.critic(batch.obs, action, frozen=True)
        least = q_policy.amin(1)
        strayed = (batch.constraint * (action - batch.action).square().sum(-1)).mean(1)
        policy = -least.mean(1) / mean_abs(least) + penalty * strayed
        return Losses(metrics, Seen(action, q_policy), critic=critic, policy=policy)

    def drop_constraint(self) -> None:
        self.policy_penalty.zero_()
        self.critic_penalty.zero_()

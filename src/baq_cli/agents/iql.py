"""Implicit Q-learning."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import critic_start, make_critics, policy_net
from baq_cli.agents.interface import Batch, Group, Losses, Seen, Target
from baq_cli.agents.objectives import advantage_weight, expectile_loss, td_loss
from baq_cli.agents.parts.adaptable import Regressed
from baq_cli.agents.parts.conditioned import Conditioned
from baq_cli.nets.critics import ValueNet, reduce_q
from baq_cli.nets.policies import GaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig, RewardScale

Named = dict[str, Tensor]


class IQL(Regressed, Conditioned):
    """IQL (Kostrikov, Nair, Levine 2021, arXiv 2110.06169): no value of an action outside the data.

    Offline:
        V     mean_B[|τ − 1(A < 0)| A²],  A = min_j Q̄_j(s, a) − V(s),  τ = `expectile`
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over critics,  y = r + γ (1 − d) V(s')
        π     −mean_B[min(exp(β A), 100) log π(a|s)]
    Rewards are scaled so that the dataset's returns span 1000, as the authors do on locomotion
    (`reward_scale`); inputs are normalised, as CORL does. With `policy_cosine`, π's learning rate
    falls along a cosine.

    Online: the same losses. Actions are samples of π.

    At the hand-over: the losses stay as they are; π's learning rate is constant from here on;
    batches are drawn from the dataset and the online rows together, or with `online_share` in fixed
    parts.

    Departures: the value, critics and policy step on one backward pass, from the same parameters
    (the authors update them in turn); the policy's cosine learning rate ends with the offline
    phase.
    """

    name = "iql"
    title = "IQL"
    family = "policy constraint"
    constraint_online = "stays"

    class Config(AgentConfig):
        former: ClassVar[dict[str, Any]] = AgentConfig.former | {"reward_scale": 1.0}

        normalize_observations: bool = True
        reward_scale: RewardScale = "returns"
        expectile: float = Field(0.7, gt=0, lt=1, description="τ: V is this expectile of Q")
        beta: float = Field(3.0, gt=0, description="inverse temperature of advantage weights")
        policy_cosine: bool = Field(True, description="cosine policy learning rate offline")

    config: Config

    def build(self, init: SeedStream) -> None:
        config, spec = self.config, self.spec
        self.policy = GaussianPolicy(init, self.policy_dim, spec.action_dim, **policy_net(config))
        self.critic, self.critic_target = make_critics(config, spec, init)
        self.value = ValueNet(init, spec.obs_dim, config.hidden, critic_start(config))

    def groups(self) -> dict[str, Group]:
        config = self.config
        return {
            "value": Group((self.value,), config.learning_rate),
            "critic": Group((self.critic,), config.learning_rate),
            "policy": Group((self.policy,), config.policy_learning_rate, config.policy_cosine),
        }

    def targets(self) -> list[Target]:
        return [Target(self.critic, self.critic_target)]

    def critic_loss(self, q: Tensor, q_target: Tensor, weight: Tensor) -> Tensor:
        """Return `Σ_i mean_B[w (Q_i − y)²]`, `[S]`, for q `[S, N, B]`."""
        return td_loss(q, q_target, weight)

    def value_terms(self, batch: Batch, noise: SeedStream) -> tuple[Named, Named, Tensor]:
        """Return the terms of V and the critics, metrics, and the data's advantage, `[S, B]`."""
        config = self.config
        with torch.no_grad():
            target_q = self.critic_target(batch.obs, batch.action)
            q_data = reduce_q(target_q, config.target_reduction, noise)  # [S, B]
            next_v = self.value(batch.next_obs)
            q_target = batch.reward + batch.discount * next_v
        v = self.value(batch.obs)
        q = self.critic(batch.obs, batch.action)
        advantage = q_data - v
        value = expectile_loss(advantage, config.expectile)
        critic = self.critic_loss(q, q_target, batch.weight)
        metrics = {"q": q.mean((1, 2)), "v": v.mean(1)}
        return {"value": value, "critic": critic}, metrics, advantage

    def improvement(self, batch: Batch) -> float | Tensor:
        return self.config.beta

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        terms, metrics, advantage = self.value_terms(batch, noise)
        weight = advantage_weight(advantage, self.improvement(batch))
        action = self.policy.mean(self.policy_obs(batch))
        policy = -weight * self.policy.log_density(action, batch.action)
        metrics["awr_weight"] = weight.mean(1)
        return Losses(metrics, Seen(action), **terms, policy=policy)

"""Advantage-weighted actor-critic."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from baq_cli.agents.base import Agent, make_critics
from baq_cli.agents.interface import Batch, Group, Losses
from baq_cli.agents.objectives import advantage_weight, td_loss
from baq_cli.nets.critics import reduce_q
from baq_cli.nets.policies import GaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig


class AWAC(Agent):
    """AWAC (Nair et al. 2020, arXiv 2006.09359). The same losses offline and online.

    The advantage is `min_i Q_i(s, a) − min_i Q_i(s, a')` with one sample a' ~ π(s). Departures:
    weights are capped at 100 instead of normalised over the batch.
    """

    name = "awac"
    title = "AWAC"

    class Config(AgentConfig):
        temperature: float = Field(0.333, gt=0, description="λ: weights are exp(A/λ)")

    def build(self, init: SeedStream) -> None:
        config, spec = self.config, self.spec
        self.policy = GaussianPolicy(init, spec.obs_dim, spec.action_dim, config.hidden)
        self.critic, self.critic_target = make_critics(config, spec, init)

    def groups(self) -> dict[str, Group]:
        return {
            "critic": Group((self.critic,), self.config.learning_rate),
            "policy": Group((self.policy,), self.config.policy_learning_rate),
        }

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.critic, self.critic_target)]

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        config = self.config
        q = self.critic(batch.obs, batch.action)  # [S, N, B]
        with torch.no_grad():
            next_action, _ = self.policy.sample(batch.next_obs, noise)
            next_q = self.critic_target(batch.next_obs, next_action)
            next_value = reduce_q(next_q, config.target_reduction, noise)
            q_target = batch.reward + config.discount * batch.bootstrap * next_value
        mean = self.policy.mode(batch.obs)
        with torch.no_grad():
            action = self.policy.sample_about(mean, noise)
            value = reduce_q(self.critic(batch.obs, action), "min")
        advantage = reduce_q(q.detach(), "min") - value
        weight = advantage_weight(advantage, 1.0 / config.temperature)
        return Losses(
            {"q": q.mean((1, 2)), "advantage": advantage.mean(1), "awr_weight": weight.mean(1)},
            critic=td_loss(q, q_target, batch.weight),
            policy=-weight * self.policy.log_density(mean, batch.action),
        )

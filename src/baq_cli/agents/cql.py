"""Conservative Q-learning."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Batch, OnlinePlan
from baq_cli.agents.objectives import td_loss
from baq_cli.agents.sac import SAC
from baq_cli.nets.critics import reduce_q
from baq_cli.nets.streams import SeedStream


class CQL(SAC):
    """CQL(H) (Kumar et al. 2020, arXiv 2006.04779) on SAC. The same losses offline and online.

    The penalty, a critic, is `α_c · mean_B[logsumexp_k(Q(s, a_k) − log q(a_k)) − Q(s, a)]` over K
    uniform actions, K of π(s) and K of π(s'), importance-sampled. Departures: no Lagrange form;
    critics, policy and temperature step on one backward pass.
    """

    name = "cql"
    title = "CQL"
    learns_offline: ClassVar[bool] = True

    class Config(SAC.Config):
        unused: ClassVar[frozenset[str]] = frozenset()

        warmup_env_steps: int = Field(0, ge=0, description="environment steps before updates")
        policy_learning_rate: float = Field(1e-4, gt=0)
        entropy_backup: bool = Field(False, description="entropy term in the critic's target")
        cql_weight: float = Field(5.0, ge=0, description="α_c, the penalty's weight")
        cql_actions: int = Field(10, ge=1, description="K sampled actions of each kind a state")
        max_target_backup: bool = Field(
            False, description="bootstrap on the best of K policy actions"
        )

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.cql_weight = float(self.config.cql_weight)

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        if not self.config.max_target_backup:
            return super().q_target(batch, noise)
        config = self.config
        with torch.no_grad():
            actions, log_prob = self.policy.sample_many(batch.next_obs, config.cql_actions, noise)
            q = self.q_many(batch.next_obs, actions, target=True)  # [S, N, B, K]
            q = reduce_q(q.flatten(2), config.target_reduction, noise)
            next_value, best = q.unflatten(1, (-1, config.cql_actions)).max(2)
            if config.entropy_backup:
                chosen = log_prob.gather(2, best.unsqueeze(2)).squeeze(2)
                next_value = next_value - self.alpha * chosen
            return batch.reward + config.discount * batch.bootstrap * next_value

    def q_many(self, obs: Tensor, actions: Tensor, target: bool = False) -> Tensor:
        """Return Q_i(s, a_k), `[S, N, B, K]`, for actions `[S, B, K, action_dim]`."""
        count = actions.shape[2]
        states = obs.unsqueeze(2).expand(-1, -1, count, -1).flatten(1, 2)
        critic = self.critic_target if target else self.critic
        q: Tensor = critic(states, actions.flatten(1, 2))
        return q.unflatten(2, (-1, count))

    def calibrate(self, q_policy: Tensor, batch: Batch) -> Tensor:
        """Return the values at policy actions, `[S, N, B, 2K]`, as the penalty should see them."""
        return q_policy

    def penalty(self, batch: Batch, q: Tensor, noise: SeedStream) -> Tensor:
        """Return the conservative gap summed over critics, `[S]`, before its weight."""
        count = self.config.cql_actions
        with torch.no_grad():
            uniform = 2 * noise.uniform(batch.obs.shape[1], count, self.spec.action_dim) - 1
            here, log_here = self.policy.sample_many(batch.obs, count, noise)
            after, log_after = self.policy.sample_many(batch.next_obs, count, noise)
        q_uniform = self.q_many(batch.obs, uniform)
        q_policy = self.q_many(batch.obs, torch.cat([here, after], dim=2))
        q_policy = self.calibrate(q_policy, batch)
        log_policy = torch.cat([log_here, log_after], dim=2).unsqueeze(1)
        log_uniform = -self.spec.action_dim * math.log(2)
        every = torch.cat([q_uniform - log_uniform, q_policy - log_policy], dim=3)
        return (torch.logsumexp(every, dim=3) - q).mean(2).sum(1)

    def critic_loss(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, dict[str, Tensor]]:
        q = self.critic(batch.obs, batch.action)
        td = td_loss(q, self.q_target(batch, noise), batch.weight)
        metrics = {"q": q.mean((1, 2)), "td": td}
        if self.cql_weight == 0:
            return td, metrics
        gap = self.penalty(batch, q, noise)
        return td + self.cql_weight * gap, metrics | {"cql_gap": gap}

    def online_plan(self) -> OnlinePlan:
        return Agent.online_plan(self)

    def drop_constraint(self) -> None:
        self.cql_weight = 0.0

"""Advantage-weighted actor-critic."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from baq_cli.agents.base import make_critics, policy_net
from baq_cli.agents.interface import Batch, Group, Losses, Seen, Target
from baq_cli.agents.objectives import advantage_weight, td_loss
from baq_cli.agents.parts.adaptable import Regressed
from baq_cli.agents.parts.conditioned import Conditioned
from baq_cli.nets.critics import reduce_q
from baq_cli.nets.policies import GaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig, LogStd, Widths


class AWAC(Regressed, Conditioned):
    """AWAC (Nair et al. 2020, arXiv 2006.09359): a policy that clones actions by their advantage.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over critics
              y = r + γ (1 − d) min_j Q̄_j(s', a'),  a' ~ π(s')
        π     −mean_B[min(exp(A / λ), 100) log π(a|s)],  λ = `temperature`
              A = min_i Q_i(s, a) − min_i Q_i(s, ã),  ã ~ π(s), one sample
    Settings are CORL's (three layers, normalised inputs, λ, log σ in (−20, 2) from 0), the
    Gaussian's mean the authors': a tanh. CORL's is `mean: linear`, unbounded, and clipped when it
    acts.

    Online: the same losses. Actions are samples of π.

    At the hand-over: the losses stay as they are; batches are drawn from the dataset and the online
    rows together, or with `online_share` in fixed parts.

    Departures: weights are capped at 100, as CORL's, instead of normalised over the batch; log σ is
    clipped instead of squashed into (−6, 0); critics and policy step on one backward pass, from the
    same parameters.
    """

    name = "awac"
    title = "AWAC"
    family = "policy constraint"
    constraint_online = "stays"

    class Config(AgentConfig):
        former: ClassVar[dict[str, Any]] = AgentConfig.former | {
            "hidden": [256, 256],
            "normalize_observations": False,
            "mean": "tanh",
            "min_log_std": -5.0,
            "max_log_std": 2.0,
            "initial_log_std": 0.0,
        }

        hidden: Widths = (256, 256, 256)
        normalize_observations: bool = True
        temperature: float = Field(0.333, gt=0, description="λ: weights are exp(A/λ)")
        mean: Literal["tanh", "linear"] = Field(
            "tanh", description="the policy's mean: within ±1, or unbounded with clipped actions"
        )
        min_log_std: LogStd = Field(-20.0, description="lower bound of the policy's log σ")
        max_log_std: LogStd = Field(2.0, description="upper bound of the policy's log σ")
        initial_log_std: LogStd = Field(0.0, description="the policy's log σ at first")

        @model_validator(mode="after")
        def _within_bounds(self) -> AWAC.Config:
            if not self.min_log_std <= self.initial_log_std <= self.max_log_std:
                raise ValueError("expected min_log_std <= initial_log_std <= max_log_std")
            return self

    config: Config

    def build(self, init: SeedStream) -> None:
        config, spec = self.config, self.spec
        self.policy = GaussianPolicy(
            init,
            self.policy_dim,
            spec.action_dim,
            **policy_net(config),
            mean=config.mean,
            log_std_range=(config.min_log_std, config.max_log_std),
            initial_log_std=config.initial_log_std,
        )
        self.critic, self.critic_target = make_critics(config, spec, init)

    def groups(self) -> dict[str, Group]:
        return {
            "critic": Group((self.critic,), self.config.learning_rate),
            "policy": Group((self.policy,), self.config.policy_learning_rate),
        }

    def targets(self) -> list[Target]:
        return [Target(self.critic, self.critic_target)]

    def improvement(self, batch: Batch) -> float | Tensor:
        return 1.0 / self.config.temperature

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        config = self.config
        q = self.critic(batch.obs, batch.action)  # [S, N, B]
        with torch.no_grad():
            next_action, _ = self.policy.sample(self.policy_next_obs(batch), noise)
            next_q = self.critic_target(batch.next_obs, next_action)
            next_value = reduce_q(next_q, config.target_reduction, noise)
            q_target = batch.reward + batch.discount * next_value
        mean = self.policy.mean(self.policy_obs(batch))
        with torch.no_grad():
            action = self.policy.sample_about(mean, noise)
            value = reduce_q(self.critic(batch.obs, action), "min")
        advantage = reduce_q(q.detach(), "min") - value
        weight = advantage_weight(advantage, self.improvement(batch))
        return Losses(
            {"q": q.mean((1, 2)), "advantage": advantage.mean(1), "awr_weight": weight.mean(1)},
            Seen(self.policy.within(mean)),
            critic=td_loss(q, q_target, batch.weight),
            policy=-weight * self.policy.log_density(mean, batch.action),
        )

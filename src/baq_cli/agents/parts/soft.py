"""The soft actor-critic: what SAC and the methods that are written on it share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from baq_cli.agents.base import make_critics, policy_net
from baq_cli.agents.interface import Batch, Group, Losses, Target
from baq_cli.agents.objectives import mean_abs, td_loss
from baq_cli.agents.parts.adaptable import Adaptable
from baq_cli.agents.parts.conditioned import Conditioned
from baq_cli.nets.critics import Reduction, reduce_q
from baq_cli.nets.policies import TanhGaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig, LogStd


class SoftActorCritic(Adaptable, Conditioned):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), with a learned temperature.

    N critics, their target reduced as configured; the actor follows their minimum, or what a
    method's `actor_reduction` makes of them.
    """

    class Config(AgentConfig):
        former: ClassVar[dict[str, Any]] = AgentConfig.former | {"initial_log_std": None}

        policy_layer_norm: bool = Field(
            False, description="LayerNorm before each activation of the policy"
        )
        temperature_learning_rate: float | None = Field(
            None, gt=0, description="of α; null: the policy's"
        )
        initial_temperature: float = Field(1.0, gt=0, description="α at first")
        target_entropy: float | None = Field(None, description="H, the policy's; null: minus |A|")
        entropy_backup: bool = Field(True, description="entropy term in the critic's target")
        initial_log_std: LogStd | None = Field(
            None, description="biases of the policy's log σ at first; null: as others"
        )

    log_std_range: ClassVar[tuple[float, float]] = (-20.0, 2.0)
    """Of the policy's log σ."""
    actor_reduction: ClassVar[Reduction] = "min"
    """How the critics become the one value that the actor maximises."""

    config: Config
    policy: TanhGaussianPolicy

    @property
    def members(self) -> int:
        """Networks of the policy, each with critics of its own."""
        return 1

    def build(self, init: SeedStream) -> None:
        config, spec = self.config, self.spec
        self.policy = TanhGaussianPolicy(
            init,
            self.policy_dim,
            spec.action_dim,
            **policy_net(config),
            layer_norm=config.policy_layer_norm,
            log_std_range=self.log_std_range,
            initial_log_std=config.initial_log_std,
            members=self.members,
        )
        self.critic, self.critic_target = make_critics(config, spec, init, members=self.members)
        self.log_alpha = nn.Parameter(self.initial_log_alpha())
        entropy = config.target_entropy
        self.target_entropy = -float(spec.action_dim) if entropy is None else entropy

    def initial_log_alpha(self) -> Tensor:
        """Return log α as it begins, `[S]`."""
        on_cpu = torch.full((len(self.spec.seeds),), self.config.initial_temperature).log()
        return on_cpu.to(self.spec.device)  # without memory there, nothing would be computed

    def groups(self) -> dict[str, Group]:
        config = self.config
        rate = config.temperature_learning_rate or config.policy_learning_rate
        return {
            "critic": Group((self.critic,), config.learning_rate),
            "policy": Group((self.policy,), config.policy_learning_rate),
            "temperature": Group((self.log_alpha,), rate),
        }

    def targets(self) -> list[Target]:
        return [Target(self.critic, self.critic_target)]

    @property
    def alpha(self) -> Tensor:
        """The temperature, detached, `[S, 1]`."""
        return self.log_alpha.detach().exp().unsqueeze(1)

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `y = r + γ (1 − d) [reduce Q̄(s', a') − α log π(a'|s')]`, `[S, B]`."""
        with torch.no_grad():
            next_action, next_log_prob = self.policy.sample(self.policy_next_obs(batch), noise)
            next_q = self.critic_target(batch.next_obs, next_action)
            next_value = reduce_q(next_q, self.config.target_reduction, noise)
            return self.backup(batch, next_value, next_log_prob)

    def backup(self, batch: Batch, next_value: Tensor, next_log_prob: Tensor) -> Tensor:
        """Return `r + γ (1 − d) [q' − α log π(a'|s')]`, without the entropy if so configured.

        Shapes: `next_value [S, B]`, or `[S, N, B]` where each critic has a target of its own;
        `next_log_prob [S, B]`; returned, that of the values.
        """
        reward, discount = batch.reward, batch.discount
        entropy = self.alpha * next_log_prob
        if next_value.ndim == 3:
            reward, discount, entropy = (t.unsqueeze(1) for t in (reward, discount, entropy))
        if self.config.entropy_backup:
            next_value = next_value - entropy
        return reward + discount * next_value

    def critic_loss(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, dict[str, Tensor]]:
        q = self.critic(batch.obs, batch.action)
        loss = td_loss(q, self.q_target(batch, noise), batch.weight)
        return loss, {"q": q.mean((1, 2))}

    def actor_losses(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, Tensor]:
        """Return `mean_B[α log π − w reduce Q(s, π)]` and the temperature's loss, `[S]` each.

        w, the weight of values, is one but for a policy that is one of a family.
        """
        action, log_prob = self.policy.sample(self.policy_obs(batch), noise)
        q = reduce_q(self.critic(batch.obs, action, frozen=True), self.actor_reduction, noise)
        policy_loss = (self.alpha * log_prob - self.improvement(batch) * q).mean(1)
        surplus = (log_prob.detach() + self.target_entropy).mean(1)
        return policy_loss, -self.log_alpha * surplus

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        critic, metrics = self.critic_loss(batch, noise)
        metrics["alpha"] = self.alpha.squeeze(1)
        if not active & {"policy", "temperature"}:
            return Losses(metrics, critic=critic)
        policy, temperature = self.actor_losses(batch, noise)
        return Losses(metrics, critic=critic, policy=policy, temperature=temperature)

    def scale(self, losses: Losses, q_policy: Tensor) -> Tensor:
        return mean_abs(q_policy)

    def followed(self, q: Tensor) -> Tensor:
        return reduce_q(q, self.actor_reduction)

    def candidates(self, obs: Tensor, count: int, noise: SeedStream) -> Tensor:
        return self.policy.sample_many(obs, count, noise)[0]

    def reset_temperature(self) -> None:
        self.log_alpha.data.copy_(self.initial_log_alpha())

    def drop_constraint(self) -> None:
        """Do nothing: there is none."""

"""Conservative Q-learning."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Batch, Group, Losses
from baq_cli.agents.objectives import softmax_draw, td_loss
from baq_cli.agents.parts.soft import SoftActorCritic
from baq_cli.nets.critics import reduce_q
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Initialization, LogStd, Positive, Widths

MOST_DUAL = 1e6


class CQL(SoftActorCritic):
    """CQL(H) (Kumar et al. 2020, arXiv 2006.04779): SAC whose critics are low on other actions.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²] + α_c gap_i, summed over critics
              y = r + γ (1 − d) min_j Q̄_j(s', a'),  a' ~ π(s')
              gap_i = mean_B[logsumexp_k(Q_i(s, a_k) − log q(a_k)) − Q_i(s, a)]
              a_k: K uniform actions, K of π(s) and K of π(s'), all valued at s
        π, α  as SAC
    With a `cql_target_gap` τ, the Lagrange form: β (gap_i − τ) in place of gap_i, and a dual
    variable β that rises while the critics' mean gap is above τ. What is logged of
    gaps is their sum: τ is held against it over the number of critics.

    Online: the same losses. Actions are samples of π.

    At the hand-over: the losses stay as they are; batches are drawn from the dataset and the online
    rows together, or with `online_share` in fixed parts.

    Departures: critics, policy, temperature and β step on one backward pass, from the same
    parameters; log σ begins at CORL's offset, and has no learned scale and offset behind the
    network; `gradient: sampled` is ours.
    """

    name = "cql"
    title = "CQL"
    family = "conservative critic"
    constraint_online = "stays"

    class Config(SoftActorCritic.Config):
        former: ClassVar[dict[str, Any]] = SoftActorCritic.Config.former | {
            "hidden": [256, 256],
            "normalize_observations": False,
            "policy_learning_rate": 1e-4,
            "cql_weight": 5.0,
            "cql_target_gap": None,
            "cql_min_gap": None,
        }

        hidden: Widths = (256, 256, 256)
        initialization: Initialization = "orthogonal"
        policy_initialization: Initialization | None = "uniform"
        last_layer_gain: Positive | None = 0.01
        normalize_observations: bool = True
        warmup_env_steps: int = Field(0, ge=0, description="environment steps before updates")
        policy_learning_rate: float = Field(3e-5, gt=0)
        initial_log_std: LogStd | None = -1.0
        entropy_backup: bool = Field(False, description="entropy term in the critic's target")
        cql_weight: float = Field(10.0, ge=0, description="α_c, the penalty's weight")
        cql_target_gap: float | None = Field(
            None, description="τ of the Lagrange form; null: the penalty's weight is α_c alone"
        )
        cql_min_gap: float | None = Field(None, description="a state's gap counts at least this")
        cql_actions: int = Field(10, ge=1, description="K sampled actions of each kind a state")
        gradient: Literal["full", "sampled"] = Field(
            "full", description="of the log-sum-exp: through all actions, or through a sample"
        )
        gradient_actions: int = Field(1, ge=1, description="M, actions of a sampled gradient")
        max_target_backup: bool = Field(
            False, description="bootstrap on the best of K policy actions"
        )

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.penalised = self.config.cql_weight > 0
        self.max_backup = self.config.max_target_backup
        self.cql_weight: Tensor
        weight = per_seed(self.config.cql_weight, self.spec)
        self.register_buffer("cql_weight", weight, persistent=False)  # as configured, or dropped
        if self.config.cql_target_gap is not None:
            self.log_dual = nn.Parameter(per_seed(1.0, self.spec))

    def groups(self) -> dict[str, Group]:
        groups = super().groups()
        if self.config.cql_target_gap is not None:
            groups["dual"] = Group((self.log_dual,), self.config.learning_rate)
        return groups

    def judging(self) -> frozenset[str]:
        return super().judging() | ({"dual"} & self.groups().keys())

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        if not self.max_backup:
            return super().q_target(batch, noise)
        config = self.config
        with torch.no_grad():
            next_obs = self.policy_next_obs(batch)
            actions, log_prob = self.policy.sample_many(next_obs, config.cql_actions, noise)
            q = self.critic_target.many(batch.next_obs, actions)  # [S, N, B, K]
            q = reduce_q(q.flatten(2), config.target_reduction, noise)
            next_value, best = q.unflatten(1, (-1, config.cql_actions)).max(2)
            if config.entropy_backup:
                chosen = log_prob.gather(2, best.unsqueeze(2)).squeeze(2)
                next_value = next_value - self.alpha * chosen
            return batch.reward + batch.discount * next_value

    def calibrate(self, q_policy: Tensor, batch: Batch) -> Tensor:
        """Return values at policy actions, `[S, N, B, any]`, as the penalty should see them."""
        return q_policy

    def penalty(self, batch: Batch, q: Tensor, noise: SeedStream) -> Tensor:
        """Return the conservative gap summed over critics, `[S]`, before its weight."""
        with torch.no_grad():
            actions, log_density = self.penalised_actions(batch, noise)
        if self.config.gradient == "sampled":
            every = self.sampled_logsumexp(batch, actions, log_density, noise)
        else:
            values = self.seen_values(self.critic.many(batch.obs, actions), batch)
            every = torch.logsumexp(values - log_density.unsqueeze(1), dim=3)
        gap = every - q
        if self.config.cql_min_gap is not None:
            gap = gap.clamp(min=self.config.cql_min_gap)
        return (batch.constraint.unsqueeze(1) * gap).mean(2).sum(1)

    def penalised_actions(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, Tensor]:
        """Return K uniform actions, K of π(s), K of π(s'), and the log-density of each.

        Shapes: `[S, B, 3K, action_dim]` and `[S, B, 3K]`.
        """
        count, size = self.config.cql_actions, self.spec.action_dim
        uniform = 2 * noise.uniform(batch.obs.shape[1], count, size) - 1
        here, log_here = self.policy.sample_many(self.policy_obs(batch), count, noise)
        after, log_after = self.policy.sample_many(self.policy_next_obs(batch), count, noise)
        log_uniform = torch.full_like(log_here, -size * math.log(2))
        actions = torch.cat([uniform, here, after], dim=2)
        return actions, torch.cat([log_uniform, log_here, log_after], dim=2)

    def seen_values(self, q: Tensor, batch: Batch) -> Tensor:
        """Calibrate the values `[S, N, B, 3K]` of policy actions; uniform ones come first."""
        count = self.config.cql_actions
        return torch.cat([q[..., :count], self.calibrate(q[..., count:], batch)], dim=3)

    def sampled_logsumexp(
        self, batch: Batch, actions: Tensor, log_density: Tensor, noise: SeedStream
    ) -> Tensor:
        """Return `logsumexp_k(Q_i(s, a_k) − log q(a_k))`, `[S, N, B]`, with a sampled gradient.

        The exact gradient is `Σ_k p_k ∇Q_i(s, a_k)` with p the softmax of what is summed. M actions
        drawn from p, for each critic its own, give an unbiased estimate, and need a backward pass
        over M actions instead of 3K. The value is exact.
        """
        with torch.no_grad():
            values = self.seen_values(self.critic.many(batch.obs, actions), batch)
            values = values - log_density.unsqueeze(1)
            chosen = self.draw_from_softmax(values, noise)  # [S, N, B, M]
            at = chosen.unsqueeze(4).expand(*chosen.shape, actions.shape[3])
            own = actions.unsqueeze(1).expand(-1, chosen.shape[1], -1, -1, -1).gather(3, at)
        q = self.critic.own(batch.obs, own)
        q = torch.where(chosen < self.config.cql_actions, q, self.calibrate(q, batch))
        slope = q.mean(3)
        return torch.logsumexp(values, dim=3) + (slope - slope.detach())

    def draw_from_softmax(self, values: Tensor, noise: SeedStream) -> Tensor:
        """Draw M of the last axis's indices in proportion to exp(values), `[S, N, B, M]`."""
        return softmax_draw(values, noise.uniform(*values.shape[1:3], self.config.gradient_actions))

    def critic_loss(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, dict[str, Tensor]]:
        q = self.critic(batch.obs, batch.action)
        td = td_loss(q, self.q_target(batch, noise), batch.weight)
        metrics = {"q": q.mean((1, 2)), "td": td}
        if not self.penalised:
            return td, metrics
        gap = self.penalty(batch, q, noise)
        return td + self.weighted(gap, batch), metrics | {"cql_gap": gap}

    def weighted(self, gap: Tensor, batch: Batch) -> Tensor:
        """Return the penalty's part of the critics' loss, `[S]`, for a gap summed over critics."""
        target = self.config.cql_target_gap
        if target is None:
            return self.cql_weight * gap
        surplus = gap - self.config.critics * target * batch.constraint.mean(1)
        return self.cql_weight * self.dual.detach() * surplus

    @property
    def dual(self) -> Tensor:
        """The dual variable β of the Lagrange form, `[S]`."""
        return self.log_dual.exp().clamp(max=MOST_DUAL)

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        losses = super().loss(batch, noise, active)
        target = self.config.cql_target_gap
        if target is not None and self.penalised:
            gap = losses.metrics["cql_gap"] / self.config.critics
            surplus = gap - target * batch.constraint.mean(1)
            losses.terms["dual"] = -self.cql_weight * self.dual * surplus
            losses.metrics["cql_dual"] = self.dual.detach()
        return losses

    def drop_constraint(self) -> None:
        self.penalised = False
        self.cql_weight.zero_()

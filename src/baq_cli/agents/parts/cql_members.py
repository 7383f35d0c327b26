"""Several CQL agents a seed that share nothing: policies, critics, temperatures and rows apart."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Batch, Group, Losses
from baq_cli.agents.parts.soft import SoftActorCritic
from baq_cli.agents.plans import Draw, Plan
from baq_cli.nets.critics import QEnsemble
from baq_cli.nets.policies import squash
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import MOST_CRITICS


class CQLMembers(SoftActorCritic):
    """N agents a seed that learn by CQL (arXiv 2006.04779) offline, each from rows of its own.

    In the offline losses fields of a batch are `[S, N, B, …]`, and values of C critics a member
    `[S, N, C, B]`. Together they act as the one policy that is made of theirs.
    """

    class Config(SoftActorCritic.Config):
        unused: ClassVar[frozenset[str]] = frozenset({"target_reduction", "entropy_backup"})

        members: int = Field(5, ge=1, description="N, agents that learn apart offline")
        critics: int = Field(2, ge=1, description="critics of each member")
        cql_weight: float = Field(5.0, ge=0, description="α_c, the penalty's weight offline")
        cql_actions: int = Field(10, ge=1, description="K sampled actions of each kind a state")

        @model_validator(mode="after")
        def _fits(self) -> CQLMembers.Config:
            if self.members * self.critics > MOST_CRITICS:
                raise ValueError(f"expected members · critics <= {MOST_CRITICS:,}")
            return self

    config: Config

    @property
    def members(self) -> int:
        return self.config.members

    def build(self, init: SeedStream) -> None:
        super().build(init)
        apart = self.log_alpha.detach().unsqueeze(1).repeat(1, self.members)
        self.log_alphas = nn.Parameter(apart)
        self.cql_weight: Tensor
        weight = per_seed(self.config.cql_weight, self.spec)  # as configured, or dropped
        self.register_buffer("cql_weight", weight, persistent=False)

    def groups(self) -> dict[str, Group]:
        groups = super().groups()
        if self.phase == "offline":
            rate = groups["temperature"].learning_rate
            groups["temperature"] = Group((self.log_alphas,), rate)
        return groups

    def drop_constraint(self) -> None:
        self.cql_weight.zero_()

    def offline_plan(self) -> Plan:
        return Plan((Draw(share=float(self.members)),))

    def own_values(
        self, critic: QEnsemble, obs: Tensor, action: Tensor, frozen: bool = False
    ) -> Tensor:
        """Return each member's critics at its own states and actions, `[S, N, C, B]`."""
        own = (each.repeat_interleave(self.config.critics, dim=1) for each in (obs, action))
        return self.by_member(critic(*own, frozen=frozen))

    def by_member(self, values: Tensor) -> Tensor:
        """Return values `[S, N · C, B]` as `[S, N, C, B]`."""
        return values.unflatten(1, (self.members, -1))

    def own_sample(self, obs: Tensor, noise: SeedStream, count: int = 1) -> tuple[Tensor, Tensor]:
        """Return `count` actions of each member, `[S, N, B · count, A]`, and their log density."""
        mean, log_std = (
            each.repeat_interleave(count, dim=2) if count > 1 else each
            for each in self.policy.heads(obs)
        )
        return squash(mean, log_std, noise.normal(*mean.shape[1:]))

    def loss_apart(self, batch: Batch, noise: SeedStream) -> Losses:
        """Return the members' losses, summed, on a batch that has rows of each, `[S, N · B, …]`."""
        apart = {n: t.unflatten(1, (self.members, -1)) for n, t in batch.tensors().items()}
        own = Batch.from_tensors(apart, {})
        q = self.own_values(self.critic, own.obs, own.action)
        with torch.no_grad():
            next_action, _ = self.own_sample(own.next_obs, noise)
            next_q = self.own_values(self.critic_target, own.next_obs, next_action)
            y = own.reward + own.discount * next_q.amin(2)
        td = (own.weight.unsqueeze(2) * (q - y.unsqueeze(2)).square()).mean(3).sum((1, 2))
        gap = (own.constraint.unsqueeze(2) * self.gap(own, q, noise)).mean(3).sum((1, 2))
        action, log_prob = self.own_sample(own.obs, noise)
        value = self.own_values(self.critic, own.obs, action, frozen=True).amin(2)
        policy = (self.log_alphas.detach().exp().unsqueeze(2) * log_prob - value).mean(2)
        surplus = (log_prob.detach() + self.target_entropy).mean(2)
        return Losses(
            {
                "q": q.mean((1, 2, 3)),
                "td": td,
                "cql_gap": gap,
                "alpha": self.log_alphas.exp().mean(1),
            },
            critic=td + self.cql_weight * gap,
            policy=policy.sum(1),
            temperature=-(self.log_alphas * surplus).sum(1),
        )

    def gap(self, own: Batch, q: Tensor, noise: SeedStream) -> Tensor:
        """Return each critic's `logsumexp_k(Q(s, a_k) − log q(a_k)) − Q(s, a)`, `[S, N, C, B]`."""
        count, (_, _, rows, size) = self.config.cql_actions, own.action.shape
        with torch.no_grad():
            uniform = 2 * noise.uniform(self.members, rows * count, size) - 1
            here, after = (self.own_sample(o, noise, count) for o in (own.obs, own.next_obs))
            log_uniform = torch.full_like(here[1], -size * math.log(2))
            kinds = (uniform, log_uniform), here, after
            action, log_density = (torch.cat(each, dim=2) for each in zip(*kinds, strict=True))
        states = own.obs.repeat_interleave(count, dim=2).repeat(1, 1, 3, 1)
        values = self.own_values(self.critic, states, action) - log_density.unsqueeze(2)
        return torch.logsumexp(values.unflatten(3, (3, rows, count)), dim=(3, 5)) - q

"""FamO2O: a family of policies, from cautious to greedy, and one that chooses among them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from baq_cli.agents.awac import AWAC
from baq_cli.agents.base import per_seed, policy_net
from baq_cli.agents.cql import CQL
from baq_cli.agents.interface import Batch, Group, Losses
from baq_cli.agents.iql import IQL
from baq_cli.agents.parts.family import (
    BalancePolicy,
    Choice,
    FamilyConfig,
    FamilyPolicy,
    OfFamily,
    told,
)
from baq_cli.agents.parts.sections import OnBase
from baq_cli.agents.parts.wrapper import Wrapper
from baq_cli.nets.critics import QEnsemble
from baq_cli.nets.policies import ActingPolicy, GaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Initialization, LogStd, RewardScale


class FamilyOnAdvantages(OfFamily):
    """A family by advantage-weighted regression, with the weight exp(β A)."""

    balance_std = "one"
    policy: GaussianPolicy

    def action_at(self, seen: Tensor, noise: SeedStream) -> Tensor:
        mean = self.policy.mean(seen, frozen=True)
        return self.policy.sample_about(mean, noise, frozen=True, clip=False)


class FamilyIQL(FamilyOnAdvantages, IQL):
    """IQL with a family of policies."""

    class Config(FamilyConfig, IQL.Config):
        unused: ClassVar[frozenset[str]] = frozenset({"beta"})

        policy_cosine: bool = False

    config: Config

    @property
    def judge(self) -> QEnsemble:
        return self.critic_target


class FamilyAWAC(FamilyOnAdvantages, AWAC):
    """AWAC with a family of policies."""

    class Config(FamilyConfig, AWAC.Config):
        unused: ClassVar[frozenset[str]] = frozenset({"temperature"})

    config: Config


class FamilyCQL(OfFamily, CQL):
    """CQL with a family of policies."""

    class Config(FamilyConfig, CQL.Config):
        cql_weight: float = Field(1.0, ge=0)
        initial_log_std: LogStd | None = -1.0
        lowest_beta: float = Field(0.5, ge=0)
        highest_beta: float = Field(1.5, ge=0)
        balance_every: int = Field(1, ge=1)
        balance_target_entropy: float | None = None

    balance_std = "state"
    config: Config

    def action_at(self, seen: Tensor, noise: SeedStream) -> Tensor:
        return self.policy.draw(seen, noise, frozen=True)


class FamO2OConfig(OnBase):
    """FamO2O's section. What it shares with its base (networks, batches, rates) is set here."""

    bases: ClassVar[tuple[str, ...]] = ("iql", "cql", "awac")
    with_base: ClassVar[dict[str, dict[str, Any]]] = {
        "cql": {"layer_norm": True, "reward_scale": 1.0}
    }

    reward_scale: RewardScale = "returns"
    initialization: Initialization = "orthogonal"

    base: Literal["iql", "cql", "awac"] = Field("iql", description="the method it makes a family")
    iql: FamilyIQL.Config = FamilyIQL.Config()
    cql: FamilyCQL.Config = FamilyCQL.Config()
    awac: FamilyAWAC.Config = FamilyAWAC.Config()


class FamO2O(Wrapper):
    """FamO2O (Wang et al. 2023, arXiv 2310.17966): a family of policies, and a choice among them.

    π_u(a|s, β) is the policy of `base`, which sees β beside the state, as sin and cos of
    β / 10000^(2i/6), i = 0, 1, 2. π_b(β|s) is a tanh-Gaussian x in (−1, 1), mapped to
    β = (x + 1)/2 (high − low) + low, low and high the base's (`iql.lowest_beta`,
    `iql.highest_beta`).

    Offline:
        base  its losses, with a β drawn uniformly for each row in π's
              iql, awac: −mean_B[min(exp(β A), 100) log π_u(a|s, β)]
              cql: mean_B[α log π_u − β min_i Q_i(s, a)],  a ~ π_u(s, β)
              next actions a' ~ π_u(s', β'), β' ~ π_b(s): drawn at s
        π_b   −mean_B[min_i Q_i(s, a) − T log π_b(β|s)],  β ~ π_b(s), a ~ π_u(s, β)
              iql: Q̄_i in place of Q_i; log π_b is that of x; cql has no such term
        T     T mean_B[H − H'],  H = −log π_b, H' = `iql.balance_target_entropy`
    Gradients of π_b's loss reach β through what π_u sees; π_u itself is held. π_b and T step on
    every k-th gradient step (`iql.balance_every`). With high = low it is the base with one β.

    Online: the same losses, with β ~ π_b(s) in π's, and no gradient into π_b from them. Actions are
    samples of π_u, at the mode of π_b; in evaluations, its mode.

    At the hand-over: β is π_b's choice where it was uniform. All else stays, CQL's penalty too;
    batches are drawn from the dataset and the online rows together, or with `online_share` in fixed
    parts.

    Departures: the released CQL maps x as if it were in (0, 1), so that β may be negative and π_u
    lower its values; here β is within its bounds. All step on one backward pass, from the same
    parameters, with one draw of π_b for all losses. CQL's actions of π(s') see β' as the target's.
    AWAC's form is the paper's idea with IQL's settings. One environment step and one update take
    turns, for CQL too (its authors': a thousand of each). Actions of the dataset are not clipped
    (to ±0.99999, with CQL ±0.999).
    """

    name = "famo2o"
    title = "FamO2O"
    family = "adaptive constraint"
    constraint_online = "relaxes"
    needs_own_pretraining: ClassVar[bool] = True
    Config = FamO2OConfig

    BASES: ClassVar[dict[str, type[OfFamily]]] = {
        "iql": FamilyIQL,
        "cql": FamilyCQL,
        "awac": FamilyAWAC,
    }

    config: FamO2OConfig
    base: OfFamily

    def build(self, init: SeedStream) -> None:
        super().build(init)
        spec, section = self.spec, self.base.config
        own = SeedStream(spec.seeds, "init/balance", spec.device)
        bounds, net = (section.lowest_beta, section.highest_beta), policy_net(self.config)
        self.balance = BalancePolicy(own, spec.obs_dim, bounds, self.base.balance_std, **net)
        rates = {"balance": section.balance_every}
        if section.balance_target_entropy is not None:
            self.log_temperature = nn.Parameter(per_seed(0.0, spec))
            rates["balance_temperature"] = section.balance_every
        self.every = {**self.base.every, **rates}

    def groups(self) -> dict[str, Group]:
        rate = self.config.policy_learning_rate
        groups = {**super().groups(), "balance": Group((self.balance,), rate)}
        if self.base.config.balance_target_entropy is not None:
            groups["balance_temperature"] = Group((self.log_temperature,), rate)
        return groups

    # -- acting

    @property
    def policy(self) -> ActingPolicy:  # type: ignore[override]  # made of two parts
        return FamilyPolicy(self.base.policy, self.balance)

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        return self.policy.draw(obs, noise)

    def act(self, obs: Tensor, noise: SeedStream) -> Tensor:
        return self.policy.mode(obs)

    def acting_parts(self) -> tuple[str, ...]:
        return (*super().acting_parts(), "balance.")

    # -- learning

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        beta = self.balance.uniform(batch.obs.shape[1], noise)
        choice = self.balance.sample(batch.obs, noise)
        losses = super().loss(told(batch, beta, choice), noise, active)
        return self.choosing(losses, batch, choice, noise, active)

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        choice = self.balance.sample(batch.obs, noise)
        losses = super().online_loss(told(batch, choice.beta.detach(), choice), noise, active)
        return self.choosing(losses, batch, choice, noise, active)

    def choosing(
        self,
        losses: Losses,
        batch: Batch,
        choice: Choice,
        noise: SeedStream,
        active: frozenset[str],
    ) -> Losses:
        """Return the losses with those of π_b and its temperature beside them."""
        losses.metrics |= {"beta": choice.beta.detach().mean(1), "beta_std": choice.std}
        if not active & {"balance", "balance_temperature"}:
            return losses
        losses.terms["balance"] = -self.base.value_at(batch.obs, choice.beta, noise).mean(1)
        target = self.base.config.balance_target_entropy
        if target is not None:
            entropy, temperature = -choice.log_prob.mean(1), self.log_temperature.exp()
            losses.terms["balance"] -= temperature.detach() * entropy
            losses.terms["balance_temperature"] = temperature * (entropy.detach() - target)
        return losses

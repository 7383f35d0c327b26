"""A family of policies, one for each β, and the policy that chooses among them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from baq_cli.agents.interface import Batch
from baq_cli.agents.parts.adaptable import Adaptable
from baq_cli.agents.parts.conditioned import Conditioned
from baq_cli.nets.critics import QEnsemble, reduce_q
from baq_cli.nets.exports import NoExport, PlainMode
from baq_cli.nets.policies import ActingPolicy, GaussianPolicy, TanhGaussianPolicy, squash
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig

PAIRS = 3
"""Of a sine and a cosine, with which a policy sees β."""
BETA, NEXT_BETA = "beta", "next_beta"
"""Columns of a batch, `[S, B]`: the β of π_u at s, and the one at s'."""


def encoding(beta: Tensor) -> Tensor:
    """Return `sin(β / 10000^(2i/6)), cos(β / 10000^(2i/6))` for i = 0, 1, 2, `[…, 6]`."""
    i = torch.arange(PAIRS, dtype=beta.dtype, device=beta.device)
    angle = beta.unsqueeze(-1) / 10_000 ** (i / PAIRS)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def with_beta(obs: Tensor, beta: Tensor) -> Tensor:
    """Return what the universal policy sees, `[S, B, obs_dim + 6]`, for β `[S, B]`."""
    return torch.cat([obs, encoding(beta)], dim=-1)


class FamilyConfig(AgentConfig):
    """What a base's section says of β beside its method's keys; defaults are those of IQL."""

    lowest_beta: float = Field(1.0, ge=0, description="the least β of the family")
    highest_beta: float = Field(5.0, ge=0, description="the greatest β of the family")
    balance_every: int = Field(5, ge=1, description="gradient steps a step of π_b")
    balance_target_entropy: float | None = Field(
        -0.5, description="of π_b, whose loss has an entropy term; null: it has none"
    )

    @model_validator(mode="after")
    def _in_order(self) -> FamilyConfig:
        if self.lowest_beta > self.highest_beta:
            raise ValueError(
                f"lowest_beta {self.lowest_beta:g} is above highest_beta {self.highest_beta:g}: "
                "expected lowest_beta <= highest_beta"
            )
        return self


class Choice(NamedTuple):
    """A draw of π_b: β and the log-density of its x, `[S, B]`, and the mean σ of x, `[S]`."""

    beta: Tensor
    log_prob: Tensor
    std: Tensor


class BalancePolicy(nn.Module):
    """π_b(β|s): a tanh-Gaussian x in (−1, 1), as β = lowest + (x + 1)/2 (highest − lowest).

    Its σ is the state's (`state`), or one for all states (`one`).
    """

    def __init__(
        self,
        init: SeedStream,
        obs_dim: int,
        bounds: tuple[float, float],
        std: Literal["state", "one"],
        **net: Any,
    ):
        super().__init__()
        self.bounds = bounds
        self.gaussian: GaussianPolicy | TanhGaussianPolicy
        if std == "state":
            self.gaussian = TanhGaussianPolicy(init, obs_dim, 1, initial_log_std=-1.0, **net)
        else:
            self.gaussian = GaussianPolicy(
                init, obs_dim, 1, mean="linear", log_std_range=(-10.0, 2.0), **net
            )

    def beta(self, x: Tensor) -> Tensor:
        """Return β for x in [−1, 1]; rounding doesn't carry it beyond its bounds."""
        low, high = self.bounds
        return (low + 0.5 * (x + 1.0) * (high - low)).clamp(low, high)

    def mode(self, obs: Tensor) -> Tensor:
        """Return the β to act with, `[S, B]`."""
        return self.beta(torch.tanh(self.gaussian.head(obs)[0])).squeeze(-1)

    def sample(self, obs: Tensor, noise: SeedStream) -> Choice:
        """Return a reparametrised draw; its density is that of x, its σ that before the tanh."""
        mean, log_std = self.gaussian.head(obs)
        x, log_prob = squash(mean, log_std, noise.normal(*mean.shape[1:]))
        std = log_std.detach().exp().flatten(1).mean(1)
        return Choice(self.beta(x).squeeze(-1), log_prob, std)

    def uniform(self, rows: int, noise: SeedStream) -> Tensor:
        """Return β uniform between the bounds, `[S, rows]`."""
        return self.beta(2.0 * noise.uniform(rows) - 1.0)


class FamilyPolicy(ActingPolicy):
    """π_u(a|s, β) at the mode of π_b(β|s)."""

    def __init__(self, universal: ActingPolicy, balance: BalancePolicy):
        super().__init__()
        self.universal, self.balance = universal, balance
        self.squashed = universal.squashed

    @property
    def exports(self) -> PlainMode | NoExport:
        return NoExport("a second policy chooses at every state how it acts")

    def mode(self, obs: Tensor, frozen: bool = False) -> Tensor:
        return self.universal.mode(with_beta(obs, self.balance.mode(obs)), frozen)

    def draw(self, obs: Tensor, noise: SeedStream, frozen: bool = False) -> Tensor:
        return self.universal.draw(with_beta(obs, self.balance.mode(obs)), noise, frozen)


def told(batch: Batch, beta: Tensor, next_choice: Choice) -> Batch:
    """Return the batch with π_u's β at s, `[S, B]`, and the chosen one for its next action."""
    columns = {BETA: beta, NEXT_BETA: next_choice.beta.detach()}
    return replace(batch, columns=batch.columns | columns)


class OfFamily(Adaptable, Conditioned):
    """A method whose policy is π_u: it sees β, and follows values as far as β says.

    β is read from the batch's columns BETA and NEXT_BETA.
    """

    config: FamilyConfig
    balance_std: Literal["state", "one"]
    """Whether the σ of the policy that chooses β is the state's, or one for all."""

    @property
    def policy_dim(self) -> int:
        return super().policy_dim + 2 * PAIRS

    def policy_obs(self, batch: Batch) -> Tensor:
        return with_beta(batch.obs, batch.columns[BETA])

    def policy_next_obs(self, batch: Batch) -> Tensor:
        return with_beta(batch.next_obs, batch.columns[NEXT_BETA])

    def improvement(self, batch: Batch) -> float | Tensor:
        return batch.columns[BETA]

    @property
    def judge(self) -> QEnsemble:
        """The critics by which β is chosen."""
        return self.critic

    @abstractmethod
    def action_at(self, seen: Tensor, noise: SeedStream) -> Tensor:
        """Return an action of π_u, whose gradient reaches what it sees alone, `[S, B, A]`."""

    def value_at(self, obs: Tensor, beta: Tensor, noise: SeedStream) -> Tensor:
        """Return min_i Q_i(s, a), a ~ π_u(s, β), `[S, B]`; its gradient reaches β alone."""
        action = self.action_at(with_beta(obs, beta), noise)
        return reduce_q(self.judge(obs, action, frozen=True), "min")

"""Rejection sampling of whole episodes: what went well is cloned, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import Agent, per_seed, policy_net
from baq_cli.agents.interface import OFFLINE, ROUNDED, Batch, Experience, Group, Losses
from baq_cli.agents.plans import UNION, Plan, online_and_offline
from baq_cli.nets.flow import FlowPolicy
from baq_cli.nets.policies import ActingPolicy, GaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig


class HiORS(Agent):
    """Hi-ORS (Lu et al. 2025, arXiv 2510.26406) on states: accepted episodes alone are cloned.

    There is no critic: an episode is accepted or not, and all rows of an accepted one count alike.

    Offline:
        π     Σ_B w ℓ(s, a) / Σ_B w,  w = 1[max_j |s'_j − s_j| ≥ `min_change`] · 1[R ≥ ρ]
              R the return of the row's episode, ρ the batch's `pretraining_quantile` of it
              flow: ℓ = mean_j (v(s, x_t, t)_j − (a − x₀)_j)²,  x_t = (1 − t) x₀ + t a
              x₀ ~ N(0, I),  1 − t = 0.999 u + 0.001,  u ~ Beta(1.5, 1)
              gaussian: ℓ = −log π(a|s),  the mean a tanh

    Online: the same loss without ρ, on rows of accepted episodes, uniformly. An episode of T steps
    and return R is accepted when it is over:
        I     1[R ≥ m] · 1[T ≥ `min_steps`],  R but for a millionth of m
        m     max(m, `quantile` of the `recent` last accepted returns)
    With `online_share` below 1 the other rows are of those episodes of the dataset that reached the
    first m; null draws from both alike. As long as a seed has no accepted row, its rows are any of
    the dataset. Actions are samples of π; what was done in their place, by whoever took over, is
    the label. Evaluations take a sample of a flow, and a Gaussian's mode.

    At the hand-over: m is `first_threshold`, or the `quantile` of the dataset's returns; evenly
    spaced ones of these stand for accepted returns until there are enough, the lowest give way
    first. The loss stays.

    Departures: states and single steps in place of images and chunks of poses. The authors' code
    accepts by the last step's reward, the paper by a return and a threshold that is told; how ours
    rises is a choice. Their learner waits for ten accepted rows. The last row of an episode is
    tested for change as the others. Adam's rate is constant, in place of a large model's schedule.
    """

    name = "hi_ors"
    title = "Hi-ORS"
    family = "imitation"
    constraint_online = "stays"
    needs_own_pretraining: ClassVar[bool] = True
    inherits: ClassVar[dict[str, dict[str, str]]] = {"bc": {}}
    data_columns = ("episode_return", "episode_length", "intervention")

    class Config(AgentConfig):
        unused: ClassVar[frozenset[str]] = frozenset(
            {
                *("critics", "layer_norm", "target_reduction", "tau", "learning_rate", "discount"),
                *("reward_scale", "reward_shift", "policy_hidden", "policy_initialization"),
            }
        )

        own: ClassVar[dict[str, str]] = {"online_share": "it learns of accepted episodes alone"}

        normalize_observations: bool = True
        online_share: float | None = Field(1.0, ge=0, le=1)
        policy: Literal["flow", "gaussian"] = Field("flow", description="what π is")
        flow_steps: int = Field(10, ge=1, le=1000, description="Euler steps along the flow")
        pretraining_quantile: float = Field(
            0.0, ge=0, lt=1, description="of a batch's returns: pre-training clones those above"
        )
        quantile: float = Field(
            0.5, ge=0, le=1, description="of recent accepted returns: how far the threshold rises"
        )
        recent: int = Field(20, ge=1, description="accepted returns that it is taken of")
        first_threshold: float | None = Field(
            None, description="raw return to reach at first; null: the quantile of the dataset's"
        )
        min_steps: int = Field(3, ge=1, description="steps below which no episode is accepted")
        min_change: float = Field(
            1e-3, ge=0, description="of normalised observations: rows that change less are left out"
        )

    config: Config
    policy: ActingPolicy
    threshold: Tensor
    accepted_returns: Tensor
    accepted_episodes: Tensor

    def build(self, init: SeedStream) -> None:
        config, spec = self.config, self.spec
        sizes = spec.obs_dim, spec.action_dim
        if config.policy == "flow":
            self.policy = FlowPolicy(init, *sizes, steps=config.flow_steps, **policy_net(config))
        else:
            self.policy = GaussianPolicy(init, *sizes, **policy_net(config))
        returns = torch.full((config.recent,), spec.return_range[0], device=spec.device)
        self.register_buffer("threshold", per_seed(-torch.inf, spec))
        self.register_buffer("accepted_returns", returns.repeat(len(spec.seeds), 1))
        self.register_buffer("accepted_episodes", per_seed(0, spec).long())

    def groups(self) -> dict[str, Group]:
        return {"policy": Group((self.policy,), self.config.policy_learning_rate)}

    # -- the loss

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        returns = batch.columns["episode_return"]
        rho = torch.quantile(returns, self.config.pretraining_quantile, dim=1, keepdim=True)
        return self.cloning(batch, noise, returns >= rho)

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        return self.cloning(batch, noise, torch.ones_like(batch.reward))

    def cloning(self, batch: Batch, noise: SeedStream, chosen: Tensor) -> Losses:
        """Return the mean of ℓ over the chosen rows in which something was done; 0 without any."""
        change = (batch.next_obs - batch.obs).abs().amax(-1)
        used = (change >= self.config.min_change) * chosen.to(batch.weight)
        error = (self.error(batch, noise) * used).sum(1) / used.sum(1).clamp(min=1)
        return Losses({"rows_used": used.mean(1)}, policy=error)

    def error(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return ℓ, `[S, B]`; a flow draws x₀ first, and Beta(1.5, 1) as U^(2/3)."""
        policy = self.policy
        if isinstance(policy, GaussianPolicy):
            return -policy.log_prob(batch.obs, batch.action)
        assert isinstance(policy, FlowPolicy)
        start = noise.normal(*batch.action.shape[1:])
        time = 0.999 * (1 - noise.uniform(batch.action.shape[1], 1) ** (2 / 3))
        return policy.error_at(batch.obs, batch.action, start, time).mean(-1)

    def act(self, obs: Tensor, noise: SeedStream) -> Tensor:
        gaussian = self.config.policy == "gaussian"
        return self.policy.mode(obs) if gaussian else self.policy.draw(obs, noise)

    # -- what is accepted

    def online_plan(self) -> Plan:
        config, share = self.config, self.config.online_share
        draws = (UNION,) if share is None else online_and_offline(share)
        accepted = tuple(replace(draw, prioritised=True, otherwise="offline") for draw in draws)
        return Plan(accepted, config.utd, config.warmup_env_steps, capacity=config.capacity)

    def hand_over(self, data: Experience) -> frozenset[str]:
        """Take the first threshold; one that has risen online, in an earlier phase, stays."""
        first, rows = self.config.first_threshold, list(data.chunks())
        stand_ins = self.accepted_returns
        if first is not None:
            stand_ins = torch.full_like(stand_ins, first)
        elif rows:
            stand_ins = self._spread(rows).to(stand_ins).expand_as(stand_ins)
        begun = (self.accepted_episodes > 0).unsqueeze(1)
        self.accepted_returns.copy_(torch.where(begun, self.accepted_returns, stand_ins))
        self._raise_threshold()
        return frozenset()

    def _spread(self, rows: list[Batch]) -> Tensor:
        """Return evenly spaced returns of a dataset's episodes, rising, `[recent]`."""
        returns, lengths = (
            torch.cat([batch.columns[name][0] for batch in rows]) for name in self.data_columns[:2]
        )
        order = returns.argsort()
        share = (1 / lengths[order].double()).cumsum(0)
        levels = torch.arange(self.config.recent, device=share.device, dtype=share.dtype) + 0.5
        at = torch.searchsorted(share, levels / self.config.recent * share[-1])
        return returns[order][at.clamp(max=len(returns) - 1)]

    def _reached(self, returns: Tensor) -> Tensor:
        """Return whether returns `[S, …]` reach the threshold, but for what float32 rounds.

        A dataset has its rewards in float32: of the same rewards, an online return may be less.
        """
        least = self.threshold - ROUNDED * self.threshold.abs()
        return returns >= (least if returns.ndim == 1 else least.unsqueeze(1))

    def _raise_threshold(self) -> None:
        reached = torch.quantile(self.accepted_returns, self.config.quantile, dim=1)
        self.threshold.copy_(torch.maximum(self.threshold, reached))

    def annotate(self, batch: Batch) -> dict[str, Tensor]:
        """Accept the dataset's rows by the first threshold; online ones when they are over."""
        reached = self._reached(batch.columns["episode_return"])
        long_enough = batch.columns["episode_length"] >= self.config.min_steps
        offline = batch.source == OFFLINE
        return {"priority": (reached & long_enough & offline).to(batch.weight)}

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        returns = returns.to(self.threshold)
        accepted = self._reached(returns) & (lengths >= self.config.min_steps)
        taken = accepted & finished
        place = torch.arange(self.config.recent, device=taken.device)
        oldest = place == (self.accepted_episodes % self.config.recent).unsqueeze(1)
        given = torch.where(
            oldest & taken.unsqueeze(1), returns.unsqueeze(1), self.accepted_returns
        )
        self.accepted_returns.copy_(given)
        self.accepted_episodes += taken
        self._raise_threshold()
        return {"priority": accepted.to(self.threshold)}

    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        counts = {"accepted_episodes": self.accepted_episodes.to(self.threshold)}
        taken = batch.columns["intervention"].mean(1)
        return {"threshold": self.threshold.clone(), "taken_over_rows": taken, **counts}

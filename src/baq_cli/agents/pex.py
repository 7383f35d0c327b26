"""Policy expansion: a new policy beside the pre-trained one, and a choice between their actions."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import policy_net
from baq_cli.agents.interface import Batch, Experience, Losses
from baq_cli.agents.iql import IQL
from baq_cli.agents.objectives import advantage_weight, td_loss
from baq_cli.nets.critics import reduce_q
from baq_cli.nets.policies import GaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import RewardScale


class PEX(IQL):
    """PEX (Zhang, Xu, Yu 2023, arXiv 2302.00935): the pre-trained policy kept, a new one beside it.

    Offline:
        V     mean_B[|τ − 1(A < 0)| A²],  A = min_j Q̄_j(s, a) − V(s),  τ = `expectile`
        Q_i   mean_B[(Q_i(s, a) − y)²], averaged over critics,  y = r + γ (1 − d) V(s')
        π_β   −mean_B[min(exp(β A), 100) log π_β(a|s)]

    Online:
        V, Q  as offline
        π     −mean_B[min(exp(β A), 100) log π(ã|s)],  A = min_j Q̄_j(s, ã) − V(s)
              ã ~ the composite at s, drawn anew
    The composite chooses between a_1, the mode of π_β, and a_2 ~ π: a_i with a probability
    ∝ exp(α min_j Q_j(s, a_i)), α = `inverse_temperature`. It explores so. In evaluations a_2 is π's
    mode and the choice the better one, but each, on its own, is drawn as above with a probability
    of `evaluation_epsilon`.

    At the hand-over: the pre-trained policy becomes π_β, which is frozen, and π begins anew, as all
    optimisers do; Q, Q̄ and V go on. IQL's checkpoints can be expanded as well. No learning rate
    falls any more. Half of every batch is online rows (`online_share`), and the first
    `warmup_env_steps` are the composite's, without updates.

    Departures: V, Q and π step on one backward pass, from the same parameters (the authors update
    them in turn); actions of π are clipped to ±1 before they are valued and learned.
    """

    name = "pex"
    title = "PEX"
    family = "policy expansion"
    constraint_online = "stays"
    needs_own_pretraining = True
    inherits: ClassVar[dict[str, dict[str, str]]] = {
        "pex": {"policy.": "prior."},
        "iql": {"policy.": "prior."},
    }
    fresh_online = ("policy",)

    class Config(IQL.Config):
        normalize_observations: bool = False
        reward_scale: RewardScale = 1.0
        expectile: float = Field(0.9, gt=0, lt=1)
        beta: float = Field(10.0, gt=0)
        online_share: float | None = Field(0.5, ge=0, le=1)
        warmup_env_steps: int = Field(5_000, ge=0)
        inverse_temperature: float = Field(
            10.0, ge=0, description="α, of the choice between the policies' actions"
        )
        evaluation_epsilon: float = Field(
            0.1, ge=0, le=1, description="how often an evaluation draws what it could maximise"
        )

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        if self.phase == "online":
            spec, net = self.spec, policy_net(self.config)
            self.prior = self.policy.requires_grad_(False)
            self.policy = GaussianPolicy(init, spec.obs_dim, spec.action_dim, **net)

    def hand_over(self, data: Experience) -> frozenset[str]:
        return frozenset(self.groups())

    def acting_parts(self) -> tuple[str, ...]:
        return ("policy.", "prior.", "critic.") if self.phase == "online" else ("policy.",)

    # -- acting

    def new_share(self, obs: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """Return the probability that the new policy's action is chosen, `[S, B]`."""
        values = [self.critic(obs, action, frozen=True).amin(1) for action in (old, new)]
        return torch.sigmoid(self.config.inverse_temperature * (values[1] - values[0]))

    def composite(self, obs: Tensor, noise: SeedStream, epsilon: float = 1.0) -> Tensor:
        """Return actions drawn from the two policies, `[S, B, action_dim]`.

        What is drawn, π's action and the choice, is so with probability `epsilon`, each on its own,
        and the likeliest otherwise.
        """
        old, mean = self.prior.mode(obs), self.policy.mode(obs)
        sample = self.policy.sample_about(mean, noise)
        chance, draws_action, draws_choice = noise.uniform(obs.shape[1], 3).unbind(-1)
        new = torch.where((draws_action < epsilon).unsqueeze(-1), sample, mean)
        share = self.new_share(obs, old, new)
        takes_new = torch.where(draws_choice < epsilon, chance < share, share > 0.5)
        return torch.where(takes_new.unsqueeze(-1), new, old)

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        if self.phase == "offline":
            return super().explore(obs, noise)
        return self.composite(obs, noise)

    def act(self, obs: Tensor, noise: SeedStream) -> Tensor:
        if self.phase == "offline":
            return super().act(obs, noise)
        return self.composite(obs, noise, self.config.evaluation_epsilon)

    # -- learning

    def critic_loss(self, q: Tensor, q_target: Tensor, weight: Tensor) -> Tensor:
        return td_loss(q, q_target, weight) / q.shape[1]

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        terms, metrics, _ = self.value_terms(batch, noise)
        with torch.no_grad():
            action = self.composite(batch.obs, noise)
            q = self.critic_target(batch.obs, action)
            q_action = reduce_q(q, self.config.target_reduction, noise)
            advantage = q_action - self.value(batch.obs)
        weight = advantage_weight(advantage, self.config.beta)
        policy = -weight * self.policy.log_prob(batch.obs, action)
        metrics["awr_weight"] = weight.mean(1)
        return Losses(metrics, None, **terms, policy=policy)

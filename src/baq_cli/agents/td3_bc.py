"""TD3 with a behaviour-cloning term."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import frozen_copy, make_critics, per_seed, policy_net
from baq_cli.agents.interface import Batch, Experience, Group, Losses, Seen, Target
from baq_cli.agents.objectives import mean_abs, squared_distance, td_loss
from baq_cli.agents.parts.adaptable import Adaptable
from baq_cli.nets.critics import reduce_q
from baq_cli.nets.policies import DeterministicPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig


class TD3BC(Adaptable):
    """TD3+BC (Fujimoto, Gu 2021, arXiv 2106.06860): TD3 whose actor also clones the data.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over critics
              y = r + γ (1 − d) min_j Q̄_j(s', a'),  a' = clip(π̄(s') + clip(ε, ±c), ±1)
              ε ~ N(0, σ²),  σ = `target_noise`,  c = `target_noise_clip`
        π     −mean_B[Q_1(s, π(s))] / mean_B|Q_1(s, π(s))| + (1/α) mean_B mean_j (π(s)_j − a_j)²
    The policy steps on every second gradient step, and the targets with it.

    Online: the same losses. Actions have Gaussian noise of std `exploration_noise`.

    At the hand-over: the losses stay as they are; batches are drawn from the dataset and the online
    rows together, or with `online_share` in fixed parts.

    Departures: the policy's loss is divided by the paper's α (the same minimiser; Adam doesn't see
    the scale), so that the cloning term's weight is 1/α; critic and policy step on one backward
    pass, from the same parameters.
    """

    name = "td3_bc"
    title = "TD3+BC"
    family = "policy constraint"

    class Config(AgentConfig):
        former: ClassVar[dict[str, Any]] = AgentConfig.former | {
            "actor_q": "mean",
            "targets_move": "every_step",
        }

        normalize_observations: bool = True
        alpha: float = Field(2.5, gt=0, description="weight of the value against cloning")
        target_noise: float = Field(0.2, ge=0, description="std of target policy smoothing")
        target_noise_clip: float = Field(0.5, ge=0, description="bound of that noise")
        policy_every: int = Field(2, ge=1, description="gradient steps a policy step")
        actor_q: Literal["first", "mean", "min"] = Field(
            "first", description="the critics' value that the actor follows"
        )
        targets_move: Literal["every_step", "with_policy"] = Field(
            "with_policy", description="when target networks follow"
        )
        exploration_noise: float = Field(0.1, ge=0, description="std of online action noise")

    config: Config
    policy: DeterministicPolicy

    def build(self, init: SeedStream) -> None:
        config, spec = self.config, self.spec
        self.policy = DeterministicPolicy(init, spec.obs_dim, spec.action_dim, **policy_net(config))
        self.policy_target = frozen_copy(self.policy)
        self.critic, self.critic_target = make_critics(config, spec, init)
        self.bc_weight: Tensor
        self.register_buffer("bc_weight", per_seed(self.initial_bc_weight(), spec))
        self.every = {"policy": config.policy_every}

    def initial_bc_weight(self) -> float:
        return 1.0 / float(self.config.alpha)

    def groups(self) -> dict[str, Group]:
        return {
            "critic": Group((self.critic,), self.config.learning_rate),
            "policy": Group((self.policy,), self.config.policy_learning_rate),
        }

    def targets(self) -> list[Target]:
        follows = "policy" if self.config.targets_move == "with_policy" else None
        return [
            Target(self.critic, self.critic_target, follows),
            Target(self.policy, self.policy_target, follows),
        ]

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `y = r + γ (1 − d) reduce Q̄(s', clip(π̄(s') + clip(ε)))`, `[S, B]`."""
        config = self.config
        with torch.no_grad():
            eps = config.target_noise * noise.normal(*batch.action.shape[1:])
            eps = eps.clamp(-config.target_noise_clip, config.target_noise_clip)
            next_action = (self.policy_target.mode(batch.next_obs) + eps).clamp(-1.0, 1.0)
            next_q = self.critic_target(batch.next_obs, next_action)
            next_value = reduce_q(next_q, config.target_reduction, noise)
            return batch.reward + batch.discount * next_value

    def policy_loss(self, batch: Batch) -> tuple[Tensor, Seen]:
        """Return `mean_B[−Q(s, π)/mean|Q| + w_bc (π(s) − a)²]`, `[S]`; and π(s), Q_i(s, π(s)).

        Q is the first critic, the least, or every one, whose terms are then averaged.
        """
        action = self.policy.mode(batch.obs)
        q_policy = self.critic(batch.obs, action, frozen=True)
        followed = {
            "first": lambda q: q[:, :1],
            "min": lambda q: q.amin(1, keepdim=True),
            "mean": lambda q: q,
        }[self.config.actor_q](q_policy)
        value = -(followed.mean((1, 2)) / mean_abs(followed))
        cloning = (batch.constraint * squared_distance(action, batch.action)).mean(1)
        return value + self.bc_weight * cloning, Seen(action, q_policy)

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        q = self.critic(batch.obs, batch.action)
        critic = td_loss(q, self.q_target(batch, noise), batch.weight)
        metrics = {"q": q.mean((1, 2)), "bc_weight": self.bc_weight}
        if "policy" not in active:
            return Losses(metrics, critic=critic)
        policy, seen = self.policy_loss(batch)
        return Losses(metrics, seen, critic=critic, policy=policy)

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        action = self.policy.mode(obs)
        eps = self.config.exploration_noise * noise.normal(*action.shape[1:])
        return (action + eps).clamp(-1.0, 1.0)

    def hand_over(self, data: Experience) -> frozenset[str]:
        self.bc_weight.fill_(self.initial_bc_weight())
        return frozenset()

    def drop_constraint(self) -> None:
        self.bc_weight.zero_()

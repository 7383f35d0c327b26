"""TD3: what the methods that are written on it share."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import Agent, critic_start, frozen_copy, make_critics, policy_net
from baq_cli.agents.interface import Batch, Group, Target
from baq_cli.nets.critics import reduce_q
from baq_cli.nets.plain import Norm
from baq_cli.nets.policies import DeterministicPolicy
from baq_cli.nets.start import Start
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig


class TD3(Agent):
    """TD3 (Fujimoto, van Hoof, Meger 2018, arXiv 1802.09477), but for its losses.

    N critics, their target reduced as configured, at smoothed actions of the target policy. The
    policy steps on every `policy_every`-th gradient step, and the targets with it.
    """

    class Config(AgentConfig):
        target_noise: float = Field(0.2, ge=0, description="std of target policy smoothing")
        target_noise_clip: float = Field(0.5, ge=0, description="bound of that noise")
        policy_every: int = Field(2, ge=1, description="gradient steps a policy step")
        exploration_noise: float = Field(0.1, ge=0, description="std of online action noise")

    norm: ClassVar[Norm] = True
    """Where critics have their LayerNorm, if they have one: before the activation, or behind it."""

    config: Config
    policy: DeterministicPolicy

    def build(self, init: SeedStream) -> None:
        config, spec = self.config, self.spec
        of_policy, of_critics = self.starts()
        net = policy_net(config) | {"start": of_policy}
        self.policy = DeterministicPolicy(init, spec.obs_dim, spec.action_dim, **net)
        self.policy_target = frozen_copy(self.policy)
        self.critic, self.critic_target = make_critics(config, spec, init, of_critics, self.norm)
        self.every = {"policy": config.policy_every}

    def starts(self) -> tuple[Start, Start]:
        """Return how the weights of the policy and of the critics begin."""
        return policy_net(self.config)["start"], critic_start(self.config)

    def groups(self) -> dict[str, Group]:
        return {
            "critic": Group((self.critic,), self.config.learning_rate),
            "policy": Group((self.policy,), self.config.policy_learning_rate),
        }

    def targets(self) -> list[Target]:
        return [
            Target(self.critic, self.critic_target, "policy"),
            Target(self.policy, self.policy_target, "policy"),
        ]

    def in_training(self, policy: DeterministicPolicy, obs: Tensor, noise: SeedStream) -> Tensor:
        """Return π(s) or π̄(s) as losses see it, `[S, B, action_dim]`."""
        return policy.mode(obs)

    def target_action(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `clip(π̄(s') + clip(ε, ±c), ±1)`, `[S, B, action_dim]`."""
        config = self.config
        eps = config.target_noise * noise.normal(*batch.action.shape[1:])
        eps = eps.clamp(-config.target_noise_clip, config.target_noise_clip)
        next_action = self.in_training(self.policy_target, batch.next_obs, noise)
        return (next_action + eps).clamp(-1.0, 1.0)

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `y = r + γ (1 − d) reduce Q̄(s', a')` at the target's action, `[S, B]`."""
        with torch.no_grad():
            next_q = self.critic_target(batch.next_obs, self.target_action(batch, noise))
            next_value = reduce_q(next_q, self.config.target_reduction, noise)
            return batch.reward + batch.discount * next_value

    def candidates(self, obs: Tensor, count: int, noise: SeedStream) -> Tensor:
        """Return `π(s) + ε`, `[S, B, count, action_dim]`, which may lie beyond ±1."""
        action = self.policy.mode(obs).unsqueeze(2)
        eps = noise.normal(action.shape[1], count, action.shape[3])
        return action + self.config.exploration_noise * eps

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        action = self.policy.mode(obs)
        eps = self.config.exploration_noise * noise.normal(*action.shape[1:])
        return (action + eps).clamp(-1.0, 1.0)

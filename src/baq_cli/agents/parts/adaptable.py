"""The frame of a method that another may build on."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Losses
from baq_cli.nets.critics import QEnsemble
from baq_cli.nets.policies import GaussianPolicy
from baq_cli.nets.streams import SeedStream


class Adaptable(Agent):
    """A method with critics and an offline constraint, which a wrapper can see and switch off."""

    critic: QEnsemble

    def scale(self, losses: Losses, q_policy: Tensor) -> Tensor:
        """Return the size of the policy loss, `[S]`, given Q_i(s, π(s)) `[S, N, B]`.

        Terms that are added to a policy loss are multiplied by it. It is that of the value term,
        one where that is divided by its size.
        """
        return torch.ones_like(q_policy[:, 0, 0])

    def seen(self, losses: Losses, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return π(s) with its gradient and Q_i(s, π(s)), `[S, N, B]`, as the losses saw them.

        Where they didn't, π(s) is the mode, and its values have no gradient.
        """
        action, q_policy = losses.seen.action, losses.seen.q_policy
        action = self.policy.mode(obs) if action is None else action
        if q_policy is None:
            with torch.no_grad():
                q_policy = self.critic(obs, action)
        return action, q_policy

    def followed(self, q: Tensor) -> Tensor:
        """Return the value that the policy follows, `[S, B]`, given Q_i(s, a) `[S, N, B]`."""
        return q.amin(1)

    def candidates(self, obs: Tensor, count: int, noise: SeedStream) -> Tensor:
        """Return `count` actions a state to explore with, `[S, B, count, action_dim]`.

        They are drawn as those of `explore` are, but not clipped to their bounds.
        """
        states = obs.unsqueeze(2).expand(-1, -1, count, -1).flatten(1, 2)
        return self.explore(states, noise).unflatten(1, (-1, count))

    def reset_temperature(self) -> None:
        """Set a learned temperature back to where it begins; by default there is none."""

    @abstractmethod
    def drop_constraint(self) -> None:
        """Switch off the method's own offline constraint: once built, and again at a hand-over."""


class Regressed(Adaptable):
    """A method whose policy is regressed on the data's actions, by weights that are a metric."""

    policy: GaussianPolicy

    def scale(self, losses: Losses, q_policy: Tensor) -> Tensor:
        """Return the size of the pull to the data's actions, `[S]`: there is no value term."""
        return losses.metrics["awr_weight"] * self.policy.pull()

    def drop_constraint(self) -> None:
        """Do nothing: weighted regression is the policy's whole loss, not a term beside it."""

"""The frame of a method that another may build on."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.nets.critics import QEnsemble


class Adaptable(Agent):
    """A method with critics and an offline constraint, which a wrapper can see and switch off."""

    critic: QEnsemble

    def value_scale(self, q_policy: Tensor) -> Tensor:
        """Return the size of the policy loss's value term, `[S]`, given Q_i(s, π(s)) `[S, N, B]`.

        Terms that are added to a policy loss are multiplied by it.
        """
        return torch.ones_like(q_policy[:, 0, 0])

    @abstractmethod
    def drop_constraint(self) -> None:
        """Switch off the method's own offline constraint: once built, and again at a hand-over."""

"""The frame of a method whose policy can be told more than the observation."""

from __future__ import annotations

from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Batch


class Conditioned(Agent):
    """A method that says in one place what its policy sees and how far that follows values.

    As it stands the policy sees observations alone. A family of policies (`parts/family.py`) says
    otherwise, of any method that is written on this.
    """

    @property
    def policy_dim(self) -> int:
        """The size of what the policy sees."""
        return self.spec.obs_dim

    def policy_obs(self, batch: Batch) -> Tensor:
        """Return what the policy sees at s, `[S, B, policy_dim]`."""
        return batch.obs

    def policy_next_obs(self, batch: Batch) -> Tensor:
        """Return what the policy sees at s', `[S, B, policy_dim]`."""
        return batch.next_obs

    def improvement(self, batch: Batch) -> float | Tensor:
        """Return the weight of values against the rest of π's loss, one for all or `[S, B]`."""
        return 1.0

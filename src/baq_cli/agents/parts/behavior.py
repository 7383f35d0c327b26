"""A model of the behaviour: cloned beside another method, the best kept by held-out likelihood."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baq_cli.agents.base import frozen_copy, per_seed
from baq_cli.agents.interface import Batch, Experience, Spec
from baq_cli.agents.parts.keeping import keep_where
from baq_cli.nets.policies import GaussianPolicy
from baq_cli.nets.streams import SeedStream


class BehaviorModel(nn.Module):
    """π_BC: a Gaussian policy under maximum likelihood, which answers as its best so far.

    `learner` is what trains; `kept` holds, for each seed, its parameters when `loss [S]`, the
    negative log-likelihood of the rows held out, was lowest.
    """

    loss: Tensor

    def __init__(self, spec: Spec, hidden: tuple[int, ...]):
        super().__init__()
        own = SeedStream(spec.seeds, "init/behavior", spec.device)
        self.learner = GaussianPolicy(own, spec.obs_dim, spec.action_dim, hidden)
        self.kept = frozen_copy(self.learner)
        self.register_buffer("loss", per_seed(float("inf"), spec))

    def mode(self, obs: Tensor) -> Tensor:
        """Return the kept policy's mode, `[S, B, action_dim]`, without a gradient."""
        with torch.no_grad():
            return self.kept.mode(obs)

    def fit_loss(self, batch: Batch) -> Tensor:
        """Return the learner's negative log-likelihood of rows that are not held out, `[S]`."""
        used = 1.0 - batch.columns["held_out"]
        fit = -(used * self.learner.log_prob(batch.obs, batch.action)).sum(1)
        return fit / used.sum(1).clamp(min=1.0)

    @torch.no_grad()
    def keep_better(self, data: Experience) -> None:
        """Keep the learner of each seed whose held-out loss is the lowest so far."""
        total, count = torch.zeros_like(self.loss), 0
        for batch in data.chunks(held_out=True):
            total -= self.learner.log_prob(batch.obs, batch.action).sum(1)
            count += batch.obs.shape[1]
        better = total / count < self.loss  # [S]
        self.loss.copy_(torch.where(better, total / count, self.loss))
        keep_where(better, self.kept, self.learner)

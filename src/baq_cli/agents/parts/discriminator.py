"""A discriminator: which pairs of a state and an action are from data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baq_cli.agents.interface import Spec
from baq_cli.nets.mlp import MLP
from baq_cli.nets.streams import SeedStream

ATANH_LIMIT = 1.0 - 1e-7
"""Actions on the bound have no finite pre-image: they are taken for this one."""


class Pairs(NamedTuple):
    """States `[S, B, obs_dim]`, actions before their tanh, and which pairs count, `[S, B]`."""

    obs: Tensor
    raw: Tensor
    counts: Tensor

    @classmethod
    def of_data(cls, obs: Tensor, action: Tensor) -> Pairs:
        """Return the pairs of actions within ±1; all count."""
        raw = torch.atanh(action.clamp(-ATANH_LIMIT, ATANH_LIMIT))
        return cls(obs, raw, torch.ones_like(obs[..., 0]))


class Discriminator(nn.Module):
    """A network D(s, u) a seed that tells data from what a policy does (SDM-GAN, 2206.07166).

    Actions enter as u, what they are before the tanh: of a policy its network's output, of data
    `atanh(a)`. `forward` returns logits `[S, B]`, whose sigmoid is the odds of being data.
    """

    def __init__(self, init: SeedStream, spec: Spec, hidden: Sequence[int] = (400, 300)):
        super().__init__()
        n_in = spec.obs_dim + spec.action_dim
        self.net = MLP(init, 1, n_in, hidden, 1, activation="leaky_relu")

    def forward(self, pairs: Pairs, frozen: bool = False) -> Tensor:
        logits: Tensor = self.net(torch.cat([pairs.obs, pairs.raw], dim=-1), frozen)
        return logits.squeeze(-1).squeeze(1)

    def error(self, pairs: Pairs, label: Tensor | float, frozen: bool = False) -> Tensor:
        """Return the cross-entropy with labels from 0 to 1, over pairs that count, `[S]`."""
        logits = self(pairs, frozen)
        error = F.softplus(logits) - label * logits
        return (pairs.counts * error).sum(1) / pairs.counts.sum(1).clamp(min=1.0)

    def loss(self, data: Pairs, fakes: Pairs, least_label: float, noise: SeedStream) -> Tensor:
        """Return half the sum of both errors, `[S]`; labels of data are U[least_label, 1]."""
        label = least_label + (1 - least_label) * noise.uniform(data.obs.shape[1])
        fakes = fakes._replace(raw=fakes.raw.detach())
        return 0.5 * (self.error(data, label) + self.error(fakes, 0.0))

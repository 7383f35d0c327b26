"""How many times likelier something is in one set of data than in another, learned from both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from baq_cli.nets.mlp import MLP
from baq_cli.nets.start import Start
from baq_cli.nets.streams import SeedStream

EPS = 1e-10
"""Added inside logarithms, as Off2On's code does: a ratio of 0 has a finite loss."""


class DensityRatio(nn.Module):
    """w(x) = p(x) / q(x) of two densities that are known by samples, `[S, B, n_in]` to `[S, B]`.

    The output of a network with a ReLU behind it, which begins at about 1. It minimises a bound on
    the Jensen-Shannon divergence whose minimum is the ratio (Off2On, arXiv 2107.00591).
    """

    def __init__(self, init: SeedStream, n_in: int, hidden: Sequence[int]):
        super().__init__()
        self.net = MLP(init, 1, n_in, hidden, 1, start=Start(hidden_bias=0.0, last_bound=3e-3))
        last: Any = self.net.layers[-1]
        last.bias.data.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return torch.relu(out.squeeze(-1).squeeze(1))

    def loss(self, of_p: Tensor, of_q: Tensor) -> Tensor:
        """Return `−mean log(2 / (w(x_q) + 1)) − mean log(2 w(x_p) / (w(x_p) + 1))`, `[S]`.

        Shapes: samples of either density, `[S, B, n_in]`.
        """
        above, below = self(of_p), self(of_q)
        gain_below = torch.log(2 / (below + 1) + EPS).mean(1)
        return -gain_below - torch.log(2 * above / (above + 1) + EPS).mean(1)

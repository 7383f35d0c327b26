"""How the weights of a network begin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from baq_cli.nets.streams import SeedStream

Initialization = Literal["uniform", "orthogonal", "normal"]


@dataclass(frozen=True)
class Start:
    """The distribution of a network's first weights.

    `uniform`: weights and biases in ±1/√n_in, as torch.nn.Linear. `orthogonal`: orthogonal
    matrices times √2, biases 0. `normal`: std 1/(2√n_in), biases 0. With a `last_gain` the last
    layer is an orthogonal matrix times that, its bias 0.
    """

    how: Initialization = "uniform"
    last_gain: float | None = None

    def layer(
        self, init: SeedStream, members: int, n_in: int, n_out: int, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Draw a layer's weight `[S, N, n_in, n_out]` and bias `[S, N, 1, n_out]`."""
        bound = 1.0 / math.sqrt(n_in)
        if last and self.last_gain is not None:
            weight = self.last_gain * _orthogonal(init, members, n_in, n_out)
        elif self.how == "orthogonal":
            weight = math.sqrt(2) * _orthogonal(init, members, n_in, n_out)
        elif self.how == "normal":
            weight = 0.5 * bound * init.normal(members, n_in, n_out)
        else:
            weight = (2 * init.uniform(members, n_in, n_out) - 1) * bound
            return weight, (2 * init.uniform(members, 1, n_out) - 1) * bound
        return weight, torch.zeros(len(init.seeds), members, 1, n_out, device=init.device)


UNIFORM = Start()


def _orthogonal(init: SeedStream, members: int, n_in: int, n_out: int) -> Tensor:
    """Draw matrices with orthonormal columns, or rows where these are fewer.

    Decomposed in float64: how the machine does it then leaves no trace in float32 weights.
    """
    tall = init.normal(members, max(n_in, n_out), min(n_in, n_out)).double()
    q, r = torch.linalg.qr(tall)
    q = (q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).float()
    return q if n_in >= n_out else q.mT.contiguous()

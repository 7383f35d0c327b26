"""How the weights of a network begin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from baq_cli.nets.streams import SeedStream

Initialization = Literal["uniform", "orthogonal", "normal", "glorot"]


@dataclass(frozen=True)
class Start:
    """The distribution of a network's first weights.

    `uniform`: weights and biases in ±1/√n_in, as torch.nn.Linear. `orthogonal`: orthogonal
    matrices times √2, biases 0. `normal`: std 1/(2√n_in), biases 0. `glorot`: weights in
    ±√(6/(n_in + n_out)), biases 0. With a `hidden_bias` all biases but the last layer's are that.
    With a `last_gain` the last layer is an orthogonal matrix times that, its bias 0; with a
    `last_bound` its weights and biases are uniform in ± that.

    Raises ValueError for both of the latter.
    """

    how: Initialization = "uniform"
    last_gain: float | None = None
    hidden_bias: float | None = None
    last_bound: float | None = None

    def __post_init__(self) -> None:
        if self.last_gain is not None and self.last_bound is not None:
            raise ValueError("a last layer begins with a gain or within a bound, not both")

    def layer(
        self, init: SeedStream, members: int, n_in: int, n_out: int, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Draw a layer's weight `[S, N, n_in, n_out]` and bias `[S, N, 1, n_out]`.

        Where they have no memory, they have a shape alone: PyTorch would compute it in Python, and
        imports its compiler for that.
        """
        if init.device.type == "meta":
            sizes = [(len(init.seeds), members, rows, n_out) for rows in (n_in, 1)]
            return torch.empty(sizes[0], device="meta"), torch.empty(sizes[1], device="meta")
        if last and self.last_bound is not None:
            weight = _within(self.last_bound, init, members, n_in, n_out)
            return weight, _within(self.last_bound, init, members, 1, n_out)
        bound = 1.0 / math.sqrt(n_in)
        bias = torch.zeros(len(init.seeds), members, 1, n_out, device=init.device)
        if last and self.last_gain is not None:
            weight = self.last_gain * _orthogonal(init, members, n_in, n_out)
        elif self.how == "orthogonal":
            weight = math.sqrt(2) * _orthogonal(init, members, n_in, n_out)
        elif self.how == "normal":
            weight = 0.5 * bound * init.normal(members, n_in, n_out)
        elif self.how == "glorot":
            weight = _within(math.sqrt(6 / (n_in + n_out)), init, members, n_in, n_out)
        else:
            weight = _within(bound, init, members, n_in, n_out)
            bias = _within(bound, init, members, 1, n_out)
        if self.hidden_bias is not None and not last:
            bias = torch.full_like(bias, self.hidden_bias)
        return weight, bias


UNIFORM = Start()


def _within(bound: float, init: SeedStream, *shape: int) -> Tensor:
    """Draw numbers uniform in ±bound, `[S, *shape]`."""
    return (2 * init.uniform(*shape) - 1) * bound


def _orthogonal(init: SeedStream, members: int, n_in: int, n_out: int) -> Tensor:
    """Draw matrices with orthonormal columns, or rows where these are fewer.

    Decomposed in float64: how the machine does it then leaves no trace in float32 weights.
    """
    tall = init.normal(members, max(n_in, n_out), min(n_in, n_out)).double()
    q, r = torch.linalg.qr(tall)
    q = (q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).float()
    return q if n_in >= n_out else q.mT.contiguous()

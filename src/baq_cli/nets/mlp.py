"""Layers and perceptrons whose weights carry a seed axis S and a member axis N."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from baq_cli.nets.perceptron import perceptron
from baq_cli.nets.plain import Activation, Dropout, Norm, plain_perceptron
from baq_cli.nets.start import UNIFORM, Start
from baq_cli.nets.streams import SeedStream


class Linear(nn.Module):
    """The parameters of an affine layer for S seeds and N members.

    Shapes: weight `[S, N, n_in, n_out]`, bias `[S, N, 1, n_out]`.
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)


class LayerNorm(nn.Module):
    """The gain and offset `[S, N, 1, width]` of a layer normalisation."""

    def __init__(self, seeds: int, members: int, width: int, device: torch.device):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(seeds, members, 1, width, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, members, 1, width, device=device))


class MLP(nn.Module):
    """Perceptrons for S seeds and N members, with an optional LayerNorm in each hidden layer.

    A hidden layer is affine → LayerNorm → activation, or with `layer_norm="after"` affine →
    activation → LayerNorm, as in the code of ReBRAC, FQL and QC. The norm's epsilon is PyTorch's
    1e-5 in either place, where flax, and so their code, has 1e-6. See `plain.ACTIVATIONS`.
    Shapes: input `[S, B, n_in]`, shared by the members, or `[S, N, B, n_in]`; output
    `[S, N, B, n_out]`. With `each [S, B, K, m]`, K inputs a row of x: see `perceptron`.
    `frozen=True` treats the parameters as constants while gradients still reach the input.
    `twice=True` gives the same numbers by operations whose gradients have gradients again;
    `dropout` drops hidden units in this pass.
    """

    def __init__(
        self,
        init: SeedStream,
        members: int,
        n_in: int,
        hidden: Sequence[int],
        n_out: int,
        layer_norm: Norm = False,
        start: Start = UNIFORM,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.members, self.activation, self.layer_norm = members, activation, layer_norm
        sizes = [n_in, *hidden, n_out]
        self.layers = nn.ModuleList(
            Linear(*start.layer(init, members, a, b, last=number == len(hidden)))
            for number, (a, b) in enumerate(pairwise(sizes))
        )
        self.norms = nn.ModuleList(
            LayerNorm(len(init.seeds), members, width, init.device)
            for width in (hidden if layer_norm else ())
        )

        self._affine, self._norms = _parameters(self.layers), _parameters(self.norms)

    def forward(
        self,
        x: Tensor,
        frozen: bool = False,
        each: Tensor | None = None,
        twice: bool = False,
        dropout: Dropout | None = None,
    ) -> Tensor:
        after = self.layer_norm == "after"
        if self.activation == "relu" and not (after or twice or dropout):
            return perceptron(x, self._affine, self._norms, frozen, each)
        return plain_perceptron(
            x, self._affine, self._norms, frozen, each, self.activation, after, dropout
        )


def _parameters(layers: nn.ModuleList) -> list[Tensor]:
    """Return weight and bias of each layer; looking them up takes longer than a small product."""
    found: list[Any] = [p for layer in layers for p in (layer.weight, layer.bias)]
    return found

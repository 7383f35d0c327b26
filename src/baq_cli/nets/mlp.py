"""Layers and perceptrons whose weights carry a seed axis S and a member axis N."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baq_cli.nets.streams import SeedStream


class Linear(nn.Module):
    """An affine layer for S seeds and N members as one batched product.

    Shapes: weight `[S, N, n_in, n_out]`, bias `[S, N, 1, n_out]`; input `[S, N, B, n_in]`.
    Initialised as torch.nn.Linear: uniform in ±1/√n_in.
    """

    def __init__(self, init: SeedStream, members: int, n_in: int, n_out: int):
        super().__init__()
        bound = 1.0 / math.sqrt(n_in)
        self.weight = nn.Parameter((2 * init.uniform(members, n_in, n_out) - 1) * bound)
        self.bias = nn.Parameter((2 * init.uniform(members, 1, n_out) - 1) * bound)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        weight, bias = (p.detach() if frozen else p for p in (self.weight, self.bias))
        out = torch.baddbmm(bias.flatten(0, 1), x.flatten(0, 1), weight.flatten(0, 1))
        return out.unflatten(0, weight.shape[:2])


class LayerNorm(nn.Module):
    """Layer normalisation with a gain and an offset for each seed and member."""

    def __init__(self, seeds: int, members: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(seeds, members, 1, width))
        self.bias = nn.Parameter(torch.zeros(seeds, members, 1, width))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        weight, bias = (p.detach() if frozen else p for p in (self.weight, self.bias))
        return torch.addcmul(bias, F.layer_norm(x, x.shape[-1:]), weight)


class MLP(nn.Module):
    """ReLU perceptrons for S seeds and N members, with optional LayerNorm before each ReLU.

    Shapes: input `[S, B, n_in]`, shared by the members; output `[S, N, B, n_out]`.
    `frozen=True` treats the parameters as constants while gradients still reach the input.
    """

    def __init__(
        self,
        init: SeedStream,
        members: int,
        n_in: int,
        hidden: Sequence[int],
        n_out: int,
        layer_norm: bool = False,
    ):
        super().__init__()
        self.members = members
        sizes = [n_in, *hidden, n_out]
        self.layers = nn.ModuleList(Linear(init, members, a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(
            LayerNorm(len(init.seeds), members, width).to(init.device)
            for width in (hidden if layer_norm else ())
        )

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        h = x.unsqueeze(1).expand(-1, self.members, -1, -1)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            h = layer(h, frozen)
            if i < last:
                if self.norms:
                    h = self.norms[i](h, frozen)
                h = F.relu(h)
        return h

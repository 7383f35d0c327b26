"""A stack of layers as single autograd operations: any activation, gradients of any order.

The pass of `perceptron.py` is faster, knows ReLUs alone and is differentiable once. What needs
another activation, a LayerNorm behind it, dropout, or the gradient of a gradient comes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baq_cli.nets.perceptron import NORM_EPS, affine_layer, by_network, first_layer
from baq_cli.nets.streams import SeedStream

Activation = Literal["relu", "gelu", "silu", "tanh", "leaky_relu"]
Norm = bool | Literal["after"]
"""Whether hidden layers have a LayerNorm: False, True (before the activation), or behind it."""

ACTIVATIONS: dict[Activation, nn.Module] = {
    "relu": nn.ReLU(),
    "gelu": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "leaky_relu": nn.LeakyReLU(0.01),
}
"""The activations by name. `gelu` is the tanh approximation, JAX's and flax's default, which is
what FQL and QC train with; `silu` is also called swish; `leaky_relu` has the slope 0.01."""


class Dropout(NamedTuple):
    """A share of hidden units to drop, `0 <= rate < 1`, and the stream that chooses them."""

    rate: float
    noise: SeedStream


def plain_perceptron(
    x: Tensor,
    affine: Sequence[Tensor],
    norms: Sequence[Tensor],
    frozen: bool = False,
    each: Tensor | None = None,
    activation: Activation = "relu",
    norm_after: bool = False,
    dropout: Dropout | None = None,
) -> Tensor:
    """Return what `perceptron` does, of the same shapes, with more choice in between.

    Differentiable any number of times, in x, `each` and, unless frozen, the parameters. With ReLUs
    the numbers are those of `perceptron`, in every bit where that takes all rows as one block. With
    `dropout` a hidden unit is zeroed with its rate, and what stays is scaled up by as much.
    """
    seeds, members = affine[0].shape[:2]
    layers, gains = (
        [(p.detach() if frozen else p).flatten(0, 1) for p in parameters]
        for parameters in (affine, norms)
    )
    entering = [by_network(x, members)]
    if each is not None:
        entering.append(by_network(each.flatten(1, 2), members))
    h = first_layer(entering, layers[0], layers[1])
    for i in range(2, len(layers), 2):
        if gains and not norm_after:
            h = _normed(h, gains[i - 2], gains[i - 1])
        h = ACTIVATIONS[activation](h)
        if gains and norm_after:
            h = _normed(h, gains[i - 2], gains[i - 1])
        if dropout is not None:
            h = h * _kept(dropout, members, h)
        h = affine_layer(h, layers[i], layers[i + 1])
    return h.unflatten(0, (seeds, members))


def _normed(h: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    return torch.addcmul(offset, F.layer_norm(h, h.shape[-1:], eps=NORM_EPS), gain)


def _kept(dropout: Dropout, members: int, h: Tensor) -> Tensor:
    """Return 1/(1 − rate) for the units that stay and 0 for the others, in the shape of h."""
    drawn = dropout.noise.uniform(members, *h.shape[1:]).flatten(0, 1)
    return (drawn >= dropout.rate).to(h.dtype) / (1.0 - dropout.rate)

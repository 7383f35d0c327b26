"""A stack of layers as single autograd operations, which may be differentiated again and again.

The pass of `perceptron.py` is faster and is differentiable once. What needs the gradient of a
gradient comes here: the slope of a critic in the action, where it is part of a loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from baq_cli.nets.perceptron import NORM_EPS, affine_layer, by_network, first_layer


def plain_perceptron(
    x: Tensor,
    affine: Sequence[Tensor],
    norms: Sequence[Tensor],
    frozen: bool = False,
    each: Tensor | None = None,
) -> Tensor:
    """Return what `perceptron` does, of the same shapes, the same in every bit on few rows.

    Differentiable any number of times, in x, `each` and, unless frozen, the parameters.
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
        if gains:
            h = _normed(h, gains[i - 2], gains[i - 1])
        h = affine_layer(torch.relu(h), layers[i], layers[i + 1])
    return h.unflatten(0, (seeds, members))


def _normed(h: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    return torch.addcmul(offset, F.layer_norm(h, h.shape[-1:], eps=NORM_EPS), gain)

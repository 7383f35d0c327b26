"""The forward and backward pass of a stack of ReLU layers, as one node of the autograd graph.

Autograd over the single operations would do the same sums. This pass spends less around the
matrix products: ReLUs work in place, narrow output layers are computed transposed, which runs
several times faster in batched products, and the graph has one node instead of dozens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NORM_EPS = 1e-5
TALL = 64
"""Rows from which a narrow product is worth transposing."""
BLOCK_ROWS = 1024
"""Rows of one network at a time on a CPU: their activations fit its second-level cache."""
NO_INPUTS = 4
"""Arguments of the autograd function before the parameters."""


def perceptron(
    x: Tensor,
    affine: Sequence[Tensor],
    norms: Sequence[Tensor],
    frozen: bool = False,
    each: Tensor | None = None,
) -> Tensor:
    """Return the output of affine layers with a ReLU, and a LayerNorm before it, in between.

    Shapes, for S seeds and N members: x `[S, B, n_in]`, shared by the members, or a member's own,
    `[S, N, B, n_in]`; `affine` holds weight `[S, N, n_in, n_out]` and bias `[S, N, 1, n_out]` of
    each layer in turn; `norms` gain and offset `[S, N, 1, width]` of each hidden layer, or nothing;
    result `[S, N, B, n_out]`.
    With `each [S, B, K, m]` an input is a row of x followed by one of the K that belong to it, and
    the result is `[S, N, B · K, n_out]`: what x gives to the first layer is computed once.
    Differentiable once, in x, `each` and, unless frozen, the parameters; `plain.py` has no such
    limit.
    """
    parts = [(x, each)] if x.is_cuda else in_blocks(x, each)
    if torch.is_grad_enabled():
        apply: Any = _Perceptron.apply
        results = [apply(*part, len(affine), frozen, *affine, *norms) for part in parts]
    else:
        results = [_forward(*part, len(affine), [*affine, *norms])[0] for part in parts]
    return results[0] if len(results) == 1 else torch.cat(results, dim=2)


def in_blocks(x: Tensor, each: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    """Cut inputs of many rows into blocks whose activations stay in a processor's cache."""
    rows = max(1, BLOCK_ROWS // (1 if each is None else each.shape[2]))
    if x.shape[-2] < 2 * rows:
        return [(x, each)]
    blocks = x.split(rows, dim=-2)
    if each is None:
        return [(block, None) for block in blocks]
    return list(zip(blocks, each.split(rows, dim=1), strict=True))


class _Perceptron(torch.autograd.Function):
    """Inside, seeds and members are one axis of P = S · N networks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, each: Tensor | None, affine: int, frozen: bool, *parameters: Tensor
    ) -> Tensor:
        out, entering, hidden, standard = _forward(x, each, affine, parameters)
        ctx.counts = len(parameters), affine, len(entering), len(hidden)
        ctx.frozen, ctx.shared = frozen, x.ndim == 3
        ctx.save_for_backward(*parameters, *entering, *hidden, *standard)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count, affine, inputs, depth = ctx.counts
        saved, trains = ctx.saved_tensors, not ctx.frozen
        axes = saved[0].shape[:2]
        layers = [p.flatten(0, 1) for p in saved[:count]]
        entering, hidden = saved[count : count + inputs], saved[count + inputs :][:depth]
        standard = saved[count + inputs + depth :]
        found: list[Tensor | None] = [None] * count
        grad = grad.flatten(0, 1)
        for i in range(affine - 2, 0, -2):
            below = i // 2 - 1
            if trains:
                found[i] = _weight_grad(hidden[below], grad)
                found[i + 1] = grad.sum(1, keepdim=True)
            grad = _relu_backward(_input_grad(grad, layers[i]), hidden[below])
            if standard:
                at = affine + i - 2
                if trains:
                    found[at : at + 2] = _norm_weight_grads(grad, *standard[3 * below :][:3])
                grad = _norm_backward(grad * layers[at], *standard[3 * below :][:3])
        wanted = ctx.needs_input_grad[:2]
        first = _first_backward(grad, entering, layers[0], trains, wanted)
        found[:2] = first[:2]
        own = [None if g is None else g.unflatten(0, axes) for g in found]
        x_grad, each_grad = first[2:]
        if x_grad is not None:
            x_grad = x_grad.unflatten(0, axes)
            x_grad = x_grad.sum(1) if ctx.shared else x_grad
        if each_grad is not None:
            each_grad = each_grad.unflatten(0, axes).sum(1).unflatten(1, (entering[0].shape[1], -1))
        return (x_grad, each_grad, *[None] * (NO_INPUTS - 2), *own)


def _forward(
    x: Tensor, each: Tensor | None, affine: int, parameters: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """Return the output, and what a backward pass needs: inputs, hidden layers, norms' inputs."""
    seeds, members = parameters[0].shape[:2]
    layers = [p.flatten(0, 1) for p in parameters]
    norms = layers[affine:]
    entering = [by_network(x, members)]
    if each is not None:
        entering.append(by_network(each.flatten(1, 2), members))
    h = first_layer(entering, layers[0], layers[1])
    hidden: list[Tensor] = []
    standard: list[Tensor] = []
    for i in range(2, affine, 2):
        if norms:
            unit, mean, rstd = torch.native_layer_norm(h, h.shape[-1:], None, None, NORM_EPS)
            standard += [h, mean, rstd]
            h = torch.addcmul(norms[i - 1], unit, norms[i - 2])
        hidden.append(h.relu_())
        h = affine_layer(hidden[-1], layers[i], layers[i + 1])
    return h.unflatten(0, (seeds, members)), entering, hidden, standard


def by_network(x: Tensor, members: int) -> Tensor:
    """Return the inputs of each of P = S · N networks, `[P, B, n_in]`."""
    if x.ndim == 3:
        x = x.unsqueeze(1).expand(-1, members, -1, -1)
    return x.flatten(0, 1)


def affine_layer(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return `h W + b`, `[P, B, n_out]`, for h `[P, B, n_in]`."""
    if _is_narrow(h, weight.shape[2]):
        return torch.baddbmm(bias.mT, weight.mT, h.mT).mT
    return torch.baddbmm(bias, h, weight)


def _weight_grad(h: Tensor, grad: Tensor) -> Tensor:
    if _is_narrow(h, grad.shape[2]):
        return torch.bmm(grad.mT, h).mT
    return torch.bmm(h.mT, grad)


def _input_grad(grad: Tensor, weight: Tensor) -> Tensor:
    if grad.shape[2] == 1:
        return grad * weight.mT
    return torch.bmm(grad, weight.mT)


def _is_narrow(h: Tensor, n_out: int) -> bool:
    return h.shape[1] >= TALL and 4 * n_out <= h.shape[2]


def first_layer(entering: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """Return the first affine layer's output for x `[P, B, n_in]`, or for x and `each` of K a row.

    `each` is `[P, B · K, m]` then, and what x gives is computed once for the K.
    """
    if len(entering) == 1:
        return affine_layer(entering[0], weight, bias)
    x, each = entering
    split, repeats = x.shape[2], each.shape[1] // x.shape[1]
    shared = torch.baddbmm(bias, x, weight[:, :split])
    h = shared.unsqueeze(2).expand(-1, -1, repeats, -1).flatten(1, 2).contiguous()
    return h.baddbmm_(each, weight[:, split:])


def _first_backward(
    grad: Tensor, entering: Sequence[Tensor], weight: Tensor, trains: bool, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of the first weight and bias, and of x and `each` by network."""
    x, split = entering[0], entering[0].shape[2]
    shared = grad  # of what x gave: summed over the K that belong to a row
    parts, each_grad = [], None
    if len(entering) == 2:
        shared = grad.unflatten(1, (x.shape[1], -1)).sum(2)
        parts = [_weight_grad(entering[1], grad)] if trains else []
        each_grad = torch.bmm(grad, weight[:, split:].mT) if wanted[1] else None
    x_grad = torch.bmm(shared, weight[:, :split].mT) if wanted[0] else None
    if not trains:
        return None, None, x_grad, each_grad
    weight_grad = torch.cat([_weight_grad(x, shared), *parts], dim=1)
    return weight_grad, shared.sum(1, keepdim=True), x_grad, each_grad


def _relu_backward(grad: Tensor, output: Tensor) -> Tensor:
    """Zero the gradient where the ReLU's output is zero, in place: nobody else holds it."""
    return torch.ops.aten.threshold_backward.grad_input(grad, output, 0, grad_input=grad)


def _norm_weight_grads(grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> list[Tensor]:
    unit = (x - mean) * rstd
    return [(grad * unit).sum(1, keepdim=True), grad.sum(1, keepdim=True)]


def _norm_backward(grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    return torch.ops.aten.native_layer_norm_backward(
        grad, x, x.shape[-1:], mean, rstd, None, None, [True, False, False]
    )[0]

"""Loss mathematics that several methods share, each written once."""

from __future__ import annotations

import torch
from torch import Tensor


def td_loss(q: Tensor, q_target: Tensor, weight: Tensor) -> Tensor:
    """Return `Σ_i mean_B[w (Q_i − y)²]`, `[S]`.

    Shapes: q `[S, N, B]`; q_target `[S, B]`, or `[S, N, B]` for one target a critic; weight
    `[S, B]`.
    """
    if q_target.ndim == 2:
        q_target = q_target.unsqueeze(1)
    return (weight.unsqueeze(1) * (q - q_target).square()).mean(2).sum(1)


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Return `|τ − 1(u < 0)| u²` elementwise (IQL, equation 5)."""
    side = torch.where(difference < 0, 1 - expectile, expectile)
    return side * difference.square()


def advantage_weight(
    advantage: Tensor, inverse_temperature: float | Tensor, cap: float = 100.0
) -> Tensor:
    """Return `min(exp(β A), cap)`, detached: the weight of advantage-weighted regression.

    Shapes: advantage `[S, B]`; β one number, or `[S, B]`.
    """
    return torch.exp(inverse_temperature * advantage.detach()).clamp(max=cap)


def mean_abs(q: Tensor) -> Tensor:
    """Return `mean |Q|` over all axes but the seed's, detached, `[S]`, kept away from zero."""
    return q.detach().abs().flatten(1).mean(1).clamp(min=1e-6)


def softmax_draw(values: Tensor, uniform: Tensor) -> Tensor:
    """Draw indices of the last axis in proportion to exp(values), with replacement.

    Shapes: values `[…, K]`, uniform on [0, 1) `[…, M]`; returns `[…, M]` int64.
    """
    reached = torch.softmax(values, dim=-1).cumsum(-1)
    return torch.searchsorted(reached, (1 - uniform) * reached[..., -1:])  # never one without mass


def shortlist_draw(first: Tensor, then: Tensor, most: int, uniform: Tensor) -> Tensor:
    """Draw one in proportion to exp(`then`) of the `most` that are the largest by `first`.

    Shapes: both `[…, K]`, uniform on [0, 1) `[…, 1]`; returns an index below K, `[…, 1]`.
    """
    kept = first.topk(min(most, first.shape[-1]), dim=-1).indices
    return kept.gather(-1, softmax_draw(then.gather(-1, kept), uniform))


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return `mean_j (a_j − b_j)²` over action dimensions, `[S, B]`."""
    return (a - b).square().mean(-1)


def spread_by_store(online: Tensor, **values: Tensor) -> dict[str, Tensor]:
    """Return mean and quantiles of values `[S, B]` over offline and online rows apart, `[S]` each.

    `online` is 1 for online rows. A store without rows in the batch gives NaN.
    """
    found = {}
    for store, mask in (("offline", online == 0), ("online", online == 1)):
        for name, value in values.items():
            rows = value.masked_fill(~mask, float("nan"))
            found[f"{name}_{store}_mean"] = rows.nanmean(1)
            for q in (0.1, 0.5, 0.9):
                found[f"{name}_{store}_q{round(100 * q)}"] = rows.nanquantile(q, dim=1)
    return found

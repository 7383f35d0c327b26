"""The best parameters so far, kept for each seed or member without the host deciding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def keep_where(better: Tensor, kept: nn.Module, new: nn.Module) -> None:
    """Copy the parameters of `new` to those of `kept` where `better` is true.

    `better` has the axes that every parameter leads with: `[S]`, or `[S, N]` for each member.
    """
    for old, own in zip(kept.parameters(), new.parameters(), strict=True):
        mask = better.view(*better.shape, *[1] * (own.ndim - better.ndim))
        old.copy_(torch.where(mask, own, old))

"""A limit of a loss, beyond which an update isn't made, that follows the losses there were."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Spec

RATE, DEVIATIONS = 0.05, 3.0


class LossLimit(nn.Module):
    """L `[S]`, as SDM-GAN (2206.07166) limits its critics' losses.

    After `every` updates each, L ← .95 L + .05 (mean + 3 std of their losses), those of refused
    updates among them. `seen [S, 3]` holds their number, sum and sum of squares.
    """

    limit: Tensor
    seen: Tensor

    def __init__(self, spec: Spec, first: float, every: int):
        super().__init__()
        self.every = every
        self.register_buffer("limit", per_seed(first, spec))
        self.register_buffer("seen", torch.zeros(len(spec.seeds), 3, device=spec.device))

    def allows(self, loss: Tensor) -> Tensor:
        """Return in which seeds a loss `[S]` is below L, `[S]` bool."""
        return loss.detach() < self.limit

    def after(self, loss: Tensor) -> dict[str, Tensor]:
        """Return what the buffers are once a loss `[S]` has been seen, by name."""
        loss = loss.detach()
        seen = self.seen + torch.stack([torch.ones_like(loss), loss, loss.square()], dim=1)
        count, total, squares = seen.unbind(1)
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt()
        moved = torch.lerp(self.limit, mean + DEVIATIONS * std, RATE)
        over = count >= self.every
        return {
            "limit": torch.where(over, moved, self.limit),
            "seen": torch.where(over.unsqueeze(1), 0.0, seen),
        }

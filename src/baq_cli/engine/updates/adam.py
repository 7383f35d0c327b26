"""Adam over flat parameters: one fused call a group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam

STATE = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Settings:
    """What differs between groups: the decay of both moments, and of the weights (AdamW)."""

    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0


class Adam:
    """Adam (Kingma, Ba 2014, arXiv 1412.6980), one state a group; with a weight decay, AdamW.

    It calls PyTorch's own fused kernel. `torch.optim.Adam` spends several times the kernel's time
    around it, once for each group, on what flat parameters never need.
    """

    def __init__(self, flat: dict[str, Tensor], settings: Mapping[str, Settings]):
        self._flat, self._settings = flat, settings
        self.state = {
            name: {
                "exp_avg": torch.zeros_like(p, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(p, requires_grad=False),
                "step": torch.zeros((), device=p.device),
            }
            for name, p in flat.items()
        }

    @torch.no_grad()
    def step(self, names: Iterable[str], rates: Mapping[str, float | Tensor]) -> None:
        """Move the named groups by their gradients, each at its rate.

        A rate is read when the kernel runs, so that a captured or recorded step can be replayed
        with another.
        """
        for name in names:
            parameter, state = self._flat[name], self.state[name]
            settings = self._settings[name]
            assert parameter.grad is not None
            adam(
                [parameter],
                [parameter.grad],
                [state["exp_avg"]],
                [state["exp_avg_sq"]],
                [],
                [state["step"]],
                fused=True,
                capturable=parameter.is_cuda,
                amsgrad=False,
                beta1=settings.betas[0],
                beta2=settings.betas[1],
                lr=rates[name],
                weight_decay=settings.weight_decay,
                decoupled_weight_decay=settings.weight_decay > 0,
                eps=1e-8,
                maximize=False,
            )

"""Adam over flat parameters: one fused call for all groups that share a learning rate."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam

STATE = ("exp_avg", "exp_avg_sq", "step")


class Adam:
    """Adam (Kingma, Ba 2014, arXiv 1412.6980) with PyTorch's constants, one state a group.

    It calls PyTorch's own fused kernel. `torch.optim.Adam` spends several times the kernel's time
    around it, once for each group, on what flat parameters never need.
    """

    def __init__(self, flat: dict[str, Tensor]):
        self._flat = flat
        self.state = {
            name: {
                "exp_avg": torch.zeros_like(p, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(p, requires_grad=False),
                "step": torch.zeros((), device=p.device),
            }
            for name, p in flat.items()
        }

    @torch.no_grad()
    def step(self, names: Iterable[str], rates: dict[str, float | Tensor]) -> None:
        """Move the named groups by their gradients, each at its rate.

        A rate that is a tensor is read when the kernel runs, so that a captured step can be
        replayed with another; such a group takes a call of its own.
        """
        together: dict[float | int, list[str]] = {}
        for name in names:
            rate = rates[name]
            key = id(rate) if isinstance(rate, Tensor) else rate
            together.setdefault(key, []).append(name)
        for group in together.values():
            parameters = [self._flat[name] for name in group]
            moments = ([self.state[name][key] for name in group] for key in STATE)
            exp_avg, exp_avg_sq, step = moments
            adam(
                parameters,
                [p.grad for p in parameters],  # type: ignore[misc]
                exp_avg,
                exp_avg_sq,
                [],
                step,
                fused=True,
                capturable=parameters[0].is_cuda,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=rates[group[0]],
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )

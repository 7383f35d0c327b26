"""Adam over flat parameters: one fused call a group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

STATE = ("exp_avg", "exp_avg_sq", "step")
EPS = 1e-8
ON_CARD = """
template <typename T> void adam(
    T p, T grad, T m, T v, T step, T rate, T beta1, T beta2, T log_beta1, T log_beta2, T decay,
    T eps, T& new_p, T& new_m, T& new_v) {
  new_m = m + (grad - m) * (T(1) - beta1);
  new_v = beta2 * v + (T(1) - beta2) * grad * grad;
  T first = -expm1f(step * log_beta1), second = -expm1f(step * log_beta2);
  T size = sqrtf(new_v) / sqrtf(second) + eps;
  new_p = p * (T(1) - rate * decay) - rate / first * new_m / size;
}
"""
"""1 − β^t is −expm1(t log β): exact in float32 where a power of a rounded β would not be."""


@dataclass(frozen=True)
class Settings:
    """What differs between groups: the decay of both moments, and of the weights (AdamW)."""

    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0


class Adam:
    """Adam (Kingma, Ba 2014, arXiv 1412.6980), one state a group; with a weight decay, AdamW.

    On a CPU it calls PyTorch's own fused kernel. `torch.optim.Adam` spends several times the
    kernel's time around it, once for each group, on what flat parameters never need. On a card that
    kernel gives a thread block 65,536 numbers of a tensor, so one flat tensor leaves most of the
    card idle; `_on_card` computes the same with a thread for every few.
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

    def moments(self, name: str) -> tuple[Tensor, Tensor]:
        """Return both moments of a group, laid out as its parameters."""
        state = self.state[name]
        return state["exp_avg"], state["exp_avg_sq"]

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
            if parameter.is_cuda:
                _on_card(parameter, state, rates[name], settings)
                continue
            adam(
                [parameter],
                [parameter.grad],
                [state["exp_avg"]],
                [state["exp_avg_sq"]],
                [],
                [state["step"]],
                fused=True,
                capturable=False,
                amsgrad=False,
                beta1=settings.betas[0],
                beta2=settings.betas[1],
                lr=rates[name],
                weight_decay=settings.weight_decay,
                decoupled_weight_decay=settings.weight_decay > 0,
                eps=EPS,
                maximize=False,
            )


@cache
def _kernel() -> Callable[..., Any]:
    """Return PyTorch's elementwise kernel of such code; a card compiles it when it first runs."""
    from torch.cuda.jiterator import _create_multi_output_jit_fn

    names = ("beta1", "beta2", "log_beta1", "log_beta2", "decay", "eps")
    return _create_multi_output_jit_fn(ON_CARD, 3, **dict.fromkeys(names, 0.0))


def _on_card(
    parameter: Tensor, state: Mapping[str, Tensor], rate: float | Tensor, settings: Settings
) -> None:
    moments = state["exp_avg"], state["exp_avg_sq"]
    state["step"].add_(1)
    beta1, beta2 = settings.betas
    found = _kernel()(
        *(parameter, parameter.grad, *moments, state["step"], rate),
        beta1=beta1,
        beta2=beta2,
        log_beta1=log(beta1) if beta1 else -float("inf"),
        log_beta2=log(beta2),
        decay=settings.weight_decay,
        eps=EPS,
    )
    for held, new in zip((parameter, *moments), found, strict=True):
        held.copy_(new)

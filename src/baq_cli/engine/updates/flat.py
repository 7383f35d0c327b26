"""Parameters laid out in one flat tensor, so that one kernel updates all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class FlatParameters:
    """Move the parameters of `modules` into one flat tensor, and their gradients into another.

    The modules keep working: each of `parameters` becomes a view. `span(module)` is the part of the
    flat tensor that holds one module's parameters, in their own order.
    """

    def __init__(self, modules: Sequence[nn.Module | nn.Parameter]):
        ranges: dict[int, tuple[int, int]] = {}
        parameters: list[nn.Parameter] = []
        length = 0
        for module in modules:
            own = list(_parameters(module))
            size = sum(p.numel() for p in own)
            ranges[id(module)] = (length, length + size)
            parameters += own
            length += size
        first = parameters[0]
        self.flat = nn.Parameter(torch.empty(length, device=first.device, dtype=first.dtype))
        self.flat.requires_grad_(any(p.requires_grad for p in parameters))
        self.flat.grad = torch.zeros_like(self.flat) if self.flat.requires_grad else None
        self._ranges = ranges
        self._shapes = [tuple(p.shape) for p in parameters]
        self.parameters = tuple(parameters)
        self._adopt()

    @torch.no_grad()
    def _adopt(self) -> None:
        start = 0
        for p in self.parameters:
            view = slice(start, start + p.numel())
            self.flat.data[view] = p.data.reshape(-1)
            p.data = self.flat.data[view].view(p.shape)
            start = view.stop

    def take_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Write the parameters' gradients, in their order, into the flat one: one kernel."""
        torch.cat([gradient.reshape(-1) for gradient in gradients], out=self.flat.grad)

    def views(self, like: Tensor) -> list[Tensor]:
        """Return the parts of a tensor laid out as the flat one, in the parameters' shapes."""
        parts = like.split([math.prod(shape) for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def of_seeds(self, like: Tensor, seeds: int, rows: Sequence[int]) -> Tensor | None:
        """Return what a flat tensor of so many seeds holds of those at `rows`, laid out as this.

        None where it is of other parameters.
        """
        sizes = [seeds * math.prod(shape[1:]) for shape in self._shapes]
        if like.shape != (sum(sizes),):
            return None
        parts = [part.view(seeds, -1)[list(rows)].flatten() for part in like.split(sizes)]
        return torch.cat(parts)

    def span(self, module: nn.Module | nn.Parameter) -> Tensor:
        """Return the flat values of one of the modules, `[numel]`, a view."""
        start, stop = self._ranges[id(module)]
        return self.flat.data[start:stop]


def _parameters(module: nn.Module | nn.Parameter) -> Iterable[nn.Parameter]:
    return [module] if isinstance(module, nn.Parameter) else module.parameters()

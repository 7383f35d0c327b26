"""The machine's own limit: float32 matrix products, timed beside what is measured."""

from __future__ import annotations

import time

import torch
from torch import Tensor

LARGE = 2048


class Ceiling:
    """A batched product of square float32 matrices, in GFLOP/s.

    `batch` products of `width` at a time; buffers are reused, so that nothing but the product
    counts.
    """

    def __init__(self, batch: int, width: int, device: torch.device):
        self.operations = 2.0 * batch * width**3
        shape = (batch, width, width)
        self._a, self._b = (torch.rand(shape, device=device) for _ in range(2))
        self._out = torch.empty(shape, device=device)
        self._multiply()

    def _multiply(self) -> Tensor:
        return torch.bmm(self._a, self._b, out=self._out)

    def measure(self, seconds: float) -> float:
        """Return GFLOP/s over a window of this many seconds."""
        count, started = 0, _now(self._out.device)
        while True:
            for _ in range(4):
                self._multiply()
            count += 4
            spent = _now(self._out.device) - started
            if spent >= seconds:
                return count * self.operations / spent / 1e9


def _now(device: torch.device) -> float:
    """Return the time once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()

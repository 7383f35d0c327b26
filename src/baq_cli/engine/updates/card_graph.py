"""Work on a card, taken down once as a CUDA graph and replayed without Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
EAGER_FIRST = 3
"""Runs before a capture: libraries allocate and choose their kernels in the first ones."""


class SideStream:
    """Where work is done before it is captured, and while it is: PyTorch asks for one stream."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def run(self, work: Callable[[], T]) -> T:
        """Do the work now, after what was asked of the card before and before what comes."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = work()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def capture(self, work: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
        """Return a graph of the work, which is not done yet, and what every replay overwrites."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            result = work()
        return graph, result

"""Choosing and preparing the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from baq_cli.errors import UsageError


def prepare(device: str, threads: int | None) -> torch.device:
    """Return the device that `auto | cpu | cuda` means here, ready for training.

    Denormal numbers are flushed to zero: they slow a CPU down tenfold and mean nothing here.
    Raises UsageError when CUDA is asked for and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda, but PyTorch sees no CUDA device: use --device cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    return torch.device(device)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Use this many CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""The device: chosen, prepared and described."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from baq_cli.errors import UsageError
from baq_cli.machine import usable_cores

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
LARGEST_KEPT = 32 * 2**20


def prepare(device: str, threads: int | None, tf32: bool = False) -> torch.device:
    """Return the device that `auto | cpu | cuda` means here, ready for training.

    Without `threads`, PyTorch's own number stays, down to what this process may use: where a
    cgroup limits CPU time, PyTorch counts the machine's. Denormal numbers are flushed to zero: they
    slow a CPU down tenfold and mean nothing here.
    Raises UsageError when CUDA is asked for and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda, but PyTorch sees no CUDA device: use --device cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cores()))
    torch.set_flush_denormal(True)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    keep_freed_memory()
    return torch.device(device)


def keep_freed_memory() -> None:
    """Let the allocator reuse the pages of freed tensors instead of returning them to the system.

    By default glibc maps every tensor above some size anew, and each update then spends a tenth
    of its time and more on page faults. Another C library is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 2 * LARGEST_KEPT)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Use this many CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def hardware(device: str) -> dict[str, Any]:
    """Describe the machine, and what of it this process may use."""
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device == "cuda":
        found["card"] = torch.cuda.get_device_name()
        found["tf32"] = torch.backends.cuda.matmul.allow_tf32
    return found

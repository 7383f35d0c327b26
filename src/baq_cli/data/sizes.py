"""What the arrays of a file claim, against what the file and this machine could hold."""

from __future__ import annotations

import os
from pathlib import Path

from baq_cli.machine import memory_left_by_cgroups

MOST_EXPANSION = 2_000
"""A file whose arrays claim more than this many times its own size is taken for damaged."""
LARGE, MOST_EXPANSION_OF_LARGE = 1 << 28, 50
"""Of claims beyond a quarter of a gigabyte less is believed: no log compresses so well."""
MOST_OF_MEMORY = 0.8


def check_size(claimed_bytes: int, file_bytes: int) -> None:
    """Raise ValueError where arrays claim far more than the file, or more than memory, could hold.

    A claim of up to `MOST_EXPANSION_OF_LARGE` times the file is compared with memory alone.
    """
    most = MOST_EXPANSION if claimed_bytes <= LARGE else MOST_EXPANSION_OF_LARGE
    if claimed_bytes > most * file_bytes:
        raise ValueError(f"an array claims {claimed_bytes:,} bytes in a file of {file_bytes:,}")
    if claimed_bytes > LARGE and claimed_bytes > MOST_OF_MEMORY * free_memory():
        raise ValueError(
            f"its arrays claim {claimed_bytes:,} bytes, and {free_memory():,} are "
            "free here: import it in parts, or where there is more memory"
        )


class Claims:
    """What the arrays of a file claim, all together."""

    def __init__(self, file_bytes: int):
        self._file_bytes, self._claimed = file_bytes, 0

    def add(self, claimed_bytes: int) -> None:
        """Raise ValueError where it becomes far more than the file could hold."""
        self._claimed += claimed_bytes
        check_size(self._claimed, self._file_bytes)


def free_memory() -> int:
    """Return the bytes of memory that are available: the machine's, or what its cgroups allow."""
    allowed = memory_left_by_cgroups()
    return _machines_free() if allowed is None else min(_machines_free(), allowed)


def _machines_free() -> int:
    """Return what the machine has available: all there is, where nothing tells more."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if "MemAvailable" in line) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

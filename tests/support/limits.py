"""Little memory for what is read, so that a bomb is an error and not a dead machine."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def little_memory(gigabytes: float) -> Iterator[None]:
    """Let this process take so much more address space, where the system can say how much it has.

    Whoever asks for absurd sizes gets an error that is no word of ours.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        yield
        return
    used = next(line for line in status.read_text().splitlines() if line.startswith("VmSize"))
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = int(used.split()[1]) * 1024 + int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)

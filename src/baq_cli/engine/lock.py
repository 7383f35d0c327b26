"""One writer a folder."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baq_cli.errors import UsageError

FILE = ".lock"
POLL_SECONDS = 0.1


@contextmanager
def held(folder: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold a folder against other processes until the block ends; the system lets go of it when
    the process dies, however it dies.

    Raises UsageError, naming the holder, when another process holds it for `wait_seconds` more.
    Where the platform has no advisory locks, nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a+") as file:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    raise UsageError(
                        f"{folder} is in use by {holder}: wait until that has ended, or stop it"
                    ) from None
                time.sleep(POLL_SECONDS)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield

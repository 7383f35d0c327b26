"""One writer a folder."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from baq_cli.engine.files import disk_errors
from baq_cli.errors import UsageError
from baq_cli.plain_files import LOCK, marked, refuse_links, sweep_below

POLL_SECONDS = 0.1


@contextmanager
def held(folder: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold a folder against other processes until the block ends; the system lets go of it when
    the process dies, however it dies.

    What killed processes left half written in it is dropped.
    Raises UsageError, naming the holder, when another process holds it for `wait_seconds` more,
    and DataError when the folder can't be written to, or has a link in it.
    Where the platform has no advisory locks, nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with ExitStack() as closing:
        with disk_errors(f"hold {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            refuse_links(folder)
            file = closing.enter_context(marked(folder / LOCK))
            deadline = time.monotonic() + wait_seconds
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise _in_use(folder, file) from None
                    time.sleep(POLL_SECONDS)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            file.flush()
            sweep_below(folder)
        yield


def _in_use(folder: Path, file: IO[bytes]) -> UsageError:
    file.seek(0)
    holder = file.read(200).decode(errors="replace").strip() or "another process"
    return UsageError(f"{folder} is in use by {holder}: wait until that has ended, or stop it")

"""One writer a folder."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from baq_cli.errors import UsageError
from baq_cli.plain_files import (
    LOCK,
    UNSUPPORTED,
    make_folder,
    marked,
    refuse_links,
    sweep_below,
)
from baq_cli.runs.events import Note, Observer, ignore
from baq_cli.runs.files import disk_errors

POLL_SECONDS = 0.1
NO_LOCKS = (*UNSUPPORTED, errno.ENOLCK)
NO_LOCKS_SAID = "its file system has no locks; see to it that no second process works there"


@contextmanager
def held(folder: Path, wait_seconds: float = 0.0, observer: Observer = ignore) -> Iterator[None]:
    """Hold a folder against other processes until the block ends; the system lets go of it when
    the process dies, however it dies.

    What killed processes left half written in it is dropped.
    Raises UsageError, naming the holder, when another process holds it for `wait_seconds` more,
    and DataError when the folder can't be written to, or has a link in it.
    Where the platform or the file system has no advisory locks, nothing is held; of the second
    the observer is told.
    """
    if importlib.util.find_spec("fcntl") is None:
        yield
        return
    with ExitStack() as closing:
        with disk_errors(f"hold {folder}"):
            make_folder(folder)
            refuse_links(folder)
            file = closing.enter_context(marked(folder / LOCK))
            locked = _lock(file, folder, time.monotonic() + wait_seconds)
            if not locked:
                observer(Note(f"{folder}: {NO_LOCKS_SAID}"))
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            file.flush()
            if locked:
                sweep_below(folder)
        yield


def _lock(file: IO[bytes], folder: Path, deadline: float) -> bool:
    """Lock a file; return whether its file system has locks.

    Raises UsageError when another process has it until the deadline.
    """
    import fcntl

    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise _in_use(folder, file) from None
            time.sleep(POLL_SECONDS)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False


def _in_use(folder: Path, file: IO[bytes]) -> UsageError:
    file.seek(0)
    holder = file.read(200).decode(errors="replace").strip() or "another process"
    return UsageError(f"{folder} is in use by {holder}: wait until that has ended, or stop it")

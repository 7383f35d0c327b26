"""One writer a folder."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from baq_cli.engine.events import Note, Observer, ignore
from baq_cli.engine.files import UNSUPPORTED, disk_errors, make_folder
from baq_cli.errors import UsageError

FILE = ".lock"
POLL_SECONDS = 0.1
NO_LOCKS = (*UNSUPPORTED, errno.ENOLCK)
NO_LOCKS_SAID = "its file system has no locks; see to it that no second process works there"


@contextmanager
def held(folder: Path, wait_seconds: float = 0.0, observer: Observer = ignore) -> Iterator[None]:
    """Hold a folder against other processes until the block ends; the system lets go of it when
    the process dies, however it dies.

    Raises UsageError, naming the holder, when another process holds it for `wait_seconds` more,
    and DataError when the folder can't be written to.
    Where the platform or the file system has no advisory locks, nothing is held; of the second
    the observer is told.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with ExitStack() as closing:
        with disk_errors(f"hold {folder}"):
            make_folder(folder)
            file = closing.enter_context((folder / FILE).open("a+"))
            deadline = time.monotonic() + wait_seconds
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise _in_use(folder, file) from None
                    time.sleep(POLL_SECONDS)
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
                    observer(Note(f"{folder}: {NO_LOCKS_SAID}"))
                    break
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield


def _in_use(folder: Path, file: TextIO) -> UsageError:
    file.seek(0)
    holder = file.read().strip() or "another process"
    return UsageError(f"{folder} is in use by {holder}: wait until that has ended, or stop it")

"""A disk that fails at one call, or from one call on."""

from __future__ import annotations

import errno
import io
import os
import pathlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from baq_cli import plain_files

CALLS = ("open", "fsync", "rename", "replace", "link", "mkdir", "unlink", "rmdir")
"""What is asked of the disk through `os`; files are opened and written through `open`."""
NEEDS_ROOM = ("open", "write", "flush", "fsync", "link", "mkdir", "replace", "rename")
FAULTS = ("full", "broken", "short")
"""No room from then on; one failure of the device; half of a write, and no room from then on."""
WRITING = os.O_WRONLY | os.O_RDWR
BOUND_ONCE: Any = getattr(pathlib, "_NormalAccessor", type)
"""Where Python 3.10 keeps the functions of `os` for `Path`, from the import on."""
KILLED = "killed"
"""Half of a write, and the process is gone."""


class BadDisk:
    """Counts what is asked of the disk below a folder, and fails at the call number `at`."""

    def __init__(self, folder: Path, at: int | None, fault: str):
        self._folder, self._at, self._fault = str(folder), at, fault
        self.asked: list[str] = []
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def ask(self, call: str, *paths: Any) -> None:
        """Note a call; raise OSError where it fails."""
        if not any(str(path).startswith(self._folder) for path in paths):
            return
        self.asked.append(call)
        self.calls.append((call, tuple(map(str, paths))))
        if self._at is None or len(self.asked) < self._at:
            return
        if self._fault == KILLED and call != "write":
            os.kill(os.getpid(), signal.SIGKILL)
        if len(self.asked) == self._at or (self._fault != "broken" and call in NEEDS_ROOM):
            number = errno.EIO if self._fault == "broken" else errno.ENOSPC
            raise OSError(number, os.strerror(number))

    def open(self, path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not set("xwa+") & set(mode):
            return io.open(path, mode, *args, **kwargs)  # noqa: UP020
        if "opener" not in kwargs:  # which asks os.open
            self.ask("open", path)
        return _File(io.open(path, mode, *args, **kwargs), self, path)  # noqa: UP020

    def write(self, file: Any, path: Path, content: Any) -> None:
        """Write as much as there is room for."""
        try:
            self.ask("write", path)
        except OSError:
            if self._fault in ("short", KILLED):
                file.write(content[: len(content) // 2])
                file.flush()
            if self._fault == KILLED:
                os.kill(os.getpid(), signal.SIGKILL)
            raise
        file.write(content)


class _File:
    """A file that is written to a bad disk."""

    def __init__(self, file: Any, disk: BadDisk, path: Path):
        self._file, self._disk, self._path = file, disk, path

    def write(self, content: Any) -> None:
        self._disk.write(self._file, self._path, content)

    def flush(self) -> None:
        self._disk.ask("flush", self._path)
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()


@contextmanager
def bad_disk(folder: Path, at: int | None, fault: str = "full") -> Iterator[BadDisk]:
    """Let the disk fail at a call about something in a folder; at none, only count."""
    disk = BadDisk(folder, at, fault)

    def asking(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **kwargs: Any) -> Any:
            handle = args[0] if name == "fsync" else kwargs.get("dir_fd")
            paths = [a for a in args if isinstance(a, str | os.PathLike)]
            reading = name == "open" and handle is None and not args[1] & WRITING
            if reading and not os.path.isdir(args[0]):
                return function(*args, **kwargs)
            if handle is not None:
                paths = [os.readlink(f"/proc/self/fd/{handle}")]
            disk.ask(name, *paths)
            return function(*args, **kwargs)

        return asked

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            own = getattr(os, name)
            function = asking(name, own)
            patch.setattr(os, name, function)
            if getattr(BOUND_ONCE, name, None) is own:
                patch.setattr(BOUND_ONCE, name, staticmethod(function))
        patch.setattr(plain_files, "open", disk.open, raising=False)
        yield disk

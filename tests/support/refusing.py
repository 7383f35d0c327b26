"""A system that refuses one call about what lies below a folder, whichever library makes it.

Calls are seen where Python itself announces them (its audit events), so that those of libraries
count as ours do; those that it doesn't announce (stat, fsync, reading and writing, HDF5) are
wrapped.
"""

from __future__ import annotations

import errno
import io
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import pytest

from baq_cli import plain_files

ANNOUNCED = (
    *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"),
    *("os.scandir", "os.listdir", "os.truncate", "os.utime", "os.chmod"),
)
WRAPPED = ("stat", "lstat", "access", "fsync")
ABSENT = ("open", "os.scandir", "os.listdir", "os.remove", "os.rename")
"""Calls that may find that something has gone: of others, that would be a lie."""
LOOKING = ("stat", "lstat", "access")
BOUND_ONCE: Any = getattr(pathlib, "_NormalAccessor", type)
"""Where Python 3.10 keeps the functions of `os` for `Path`, from the import on."""
Fault = Callable[[str, str], BaseException]
"""What is raised of a call about a path."""


def os_error(number: int) -> Fault:
    """Return a system's refusal, with the path where a system tells it."""

    def fault(call: str, path: str) -> OSError:
        told = () if call in ("read", "write", "flush", "fsync") else (path,)
        return OSError(number, os.strerror(number), *told)

    return fault


FAULTS: dict[str, Fault] = {
    **{errno.errorcode[n]: os_error(n) for n in (errno.EACCES, errno.EIO, errno.EROFS)},
    **{errno.errorcode[n]: os_error(n) for n in (errno.ENOSPC, errno.EMFILE, errno.ENOENT)},
    "interrupt": lambda call, path: KeyboardInterrupt(),
    "unicode": lambda call, path: UnicodeEncodeError("utf-8", path, 0, 1, "surrogates not allowed"),
}


class Refusing:
    """Counts calls about what lies below a folder, and refuses the one with the number `at`."""

    active: Refusing | None = None

    def __init__(self, folder: Path, at: int | None, fault: str):
        self._folder, self._at, self._fault = os.path.realpath(folder), at, fault
        self.calls: list[tuple[str, str]] = []
        self.refused: tuple[str, str] | None = None

    def ask(self, call: str, *paths: Any) -> None:
        """Note a call; raise what it is refused with."""
        path = next(filter(None, map(self._inside, paths)), None)
        if path is None:
            return
        self.calls.append((call, path))
        lie = (self._fault == "ENOENT" and call not in ABSENT) or (
            self._fault == "unicode" and call in LOOKING  # for Path: it isn't there
        )
        if len(self.calls) != self._at or lie:
            return
        self.refused = (call, path)
        raise FAULTS[self._fault](call, path)

    def _inside(self, path: Any) -> str | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        found = os.path.abspath(os.fsdecode(path))
        return found if found.startswith(self._folder) else None


def _announce(event: str, arguments: tuple[Any, ...]) -> None:
    if Refusing.active is not None and event in ANNOUNCED:
        Refusing.active.ask(event, *arguments[: 1 if event == "open" else 2])


_hooked: list[bool] = []


@contextmanager
def refusing(folder: Path, at: int | None, fault: str = "EIO") -> Iterator[Refusing]:
    """Let the system refuse a call about what lies below a folder; with None, only count."""
    if not _hooked:  # a hook stays for ever
        sys.addaudithook(_announce)
        _hooked.append(True)
    system = Refusing(folder, at, fault)

    def asking(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def asked(path: Any, *args: Any, **kwargs: Any) -> Any:
            named = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path
            system.ask(name, named)
            return function(path, *args, **kwargs)

        return asked

    def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return _File(io.open(path, mode, *args, **kwargs), system, path)  # noqa: UP020

    with pytest.MonkeyPatch.context() as patch:
        for name in WRAPPED:
            function = asking(name, getattr(os, name))
            patch.setattr(os, name, function)
            if name in vars(BOUND_ONCE):
                patch.setattr(BOUND_ONCE, name, staticmethod(function))
        patch.setattr(plain_files, "open", opened, raising=False)
        h5_open = h5py.h5f.open

        def h5_opened(path: Any, *args: Any, **how: Any) -> Any:
            if isinstance(path, (str, bytes)):  # else it is in memory: nothing asks the system
                system.ask("h5open", path)
            return h5_open(path, *args, **how)

        patch.setattr(h5py.h5f, "open", h5_opened)
        Refusing.active = system
        try:
            yield system
        finally:
            Refusing.active = None


class _File:
    """A plain file, whose reads and writes are calls too."""

    def __init__(self, file: Any, system: Refusing, path: Any):
        self._file, self._system, self._path = file, system, path

    def read(self, *args: Any) -> Any:
        self._system.ask("read", self._path)
        return self._file.read(*args)

    def write(self, content: Any) -> Any:
        self._system.ask("write", self._path)
        return self._file.write(content)

    def flush(self) -> None:
        self._system.ask("flush", self._path)
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

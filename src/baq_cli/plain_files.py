"""Every file that is read or written here goes through this module.

Folders can come from anybody. What is read is a plain file, so that no pipe or device is waited
for. What is written is a new file with a name that nobody could know, or is opened without
following a link; so nothing is written but in the folder that was meant.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

MOST_DOCUMENT = 100_000_000
MOST_LOG = 1_000_000_000
"""Bytes of a JSON document, and of a run's log."""
LOCK = ".lock"
"""Marks a folder that has a writer of its own; see `runs/lock.py`."""
FOREIGN = ("wandb", "mlruns", "slurm")
"""Folders that other programs fill, with links of their own; nothing is written there by us."""
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""How some file systems refuse what they don't have."""
STALE_SECONDS = 3_600.0
_PARTIAL = re.compile(r"\.(.*)\.[0-9a-f]{16}\.partial", re.DOTALL)
_NAMED = 50
"""Letters of a file's name that its temporary one repeats: names have a limit."""
_EVERY = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


# -- reading


@contextmanager
def opened(path: Path, follow: bool = False) -> Iterator[IO[bytes]]:
    """Open a plain file for reading; with `follow`, a link to one as well.

    Raises OSError for anything else: links, folders, pipes, devices.
    """
    with _open(path, "rb", _NO_WAIT | (0 if follow else _NO_LINK)) as file:
        yield file


def read(path: Path, most_bytes: int | None = MOST_DOCUMENT, follow: bool = False) -> bytes:
    """Read a plain file; with `follow`, one that a link leads to.

    Raises OSError when it can't be read, is none, or has more than `most_bytes`.
    """
    with opened(path, follow) as file:
        size = os.fstat(file.fileno()).st_size
        if most_bytes is None:
            return file.read()
        content = file.read(min(size, most_bytes) + 1)
    if len(content) > most_bytes:
        raise OSError(f"it is larger than {most_bytes:,} bytes")
    return content


@contextmanager
def terminal(path: str) -> Iterator[TextIO]:
    """Open a terminal to read its keys, in a process that has another standard input.

    Raises OSError for anything else.
    """
    handle = os.open(path, os.O_RDONLY | _EVERY | getattr(os, "O_NOCTTY", 0))
    with open(handle, encoding="utf-8") as file:
        if not file.isatty():
            raise OSError(f"{path} is no terminal")
        yield file


def check_plain(path: Path, follow: bool = True) -> None:
    """Raise OSError unless a file that a library will open is a plain one."""
    with opened(path, follow):
        pass


# -- writing


@contextmanager
def replaced(path: Path, sync: bool = True) -> Iterator[IO[bytes]]:
    """Give a new file, called `.NAME.RANDOM.partial`, that takes the place of `path` at the end.

    Readers see the old file or the new one, never a part. When the block fails, the new one is
    dropped. With `sync`, the disk has its content before it takes its place.
    """
    sweep(path.parent, path.name)
    name = f".{path.name[:_NAMED]}.{os.urandom(8).hex()}.partial"
    temporary = path.with_name(name)
    try:
        with _open(temporary, "xb", _NO_LINK) as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def write_new(path: Path, content: bytes | memoryview) -> None:
    """Write a file that isn't there yet, and wait until the disk has it.

    Raises FileExistsError when something is there, a link to nothing included.
    """
    with _open(path, "xb", _NO_LINK) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def appended(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain file to write at its end; it is made where there is none.

    Raises OSError for anything else.
    """
    with _open(path, "ab", _NO_LINK | _NO_WAIT) as file:
        yield file


@contextmanager
def marked(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain file to read and write, as it is; it is made where there is none.

    Raises OSError for anything else.
    """
    with _open(path, "ab+", _NO_LINK | _NO_WAIT) as file:
        yield file


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and wait until the disk has the entry of each.

    Raises OSError for a link: what is written must not land where it leads.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        raise _leads_away(folder)
    for path in made:
        with suppress(PermissionError):  # it may be written to, and not read
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's entries, where the file system can say so."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)


@contextmanager
def _open(path: Path, mode: str, flags: int) -> Iterator[IO[bytes]]:
    def opener(name: str, asked: int) -> int:
        return os.open(name, asked | flags | _EVERY, 0o666)

    try:
        file: IO[Any] = open(path, mode, opener=opener)  # noqa: SIM115
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink() and flags & _NO_LINK:
            raise _leads_away(path) from error
        if error.errno == errno.ENXIO:  # a pipe that nobody reads
            raise _not_plain(path) from error
        raise
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _not_plain(path)
        yield file


def _leads_away(path: Path) -> OSError:
    return OSError(
        f"{path} is a link, and what it leads to is left alone. Remove it, or put what it stands "
        "for in its place"
    )


def _not_plain(path: Path) -> OSError:
    return OSError(f"{path} is not a plain file")


# -- folders that came from somewhere


def refuse_links(folder: Path) -> None:
    """Raise OSError where a link lies below a folder that will be written to."""
    for entry in _below(folder):
        if entry.is_symlink():
            raise _leads_away(Path(entry.path))


def sweep_below(folder: Path) -> None:
    """Drop what killed processes left half written below a folder, which this process holds.

    Folders in it that have a writer of their own are left to that.
    """
    folders = {Path(entry.path).parent for entry in _below(folder, others=False)}
    for each in folders:
        sweep(each, older_seconds=0.0)


def sweep(folder: Path, name: str | None = None, older_seconds: float = STALE_SECONDS) -> None:
    """Drop what was left half written in a folder, of one file or of any.

    Without a hold of the folder, another process may be writing: what is young is left.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _PARTIAL.fullmatch(entry.name)
            if found is None or (name is not None and found[1] != name[:_NAMED]):
                continue
            with suppress(OSError):
                age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if age >= older_seconds:
                    os.unlink(entry.path)


def _below(folder: Path, others: bool = True) -> Iterator[os.DirEntry[str]]:
    """Yield what lies below a folder; without `others`, not what another writer may hold.

    Nothing is kept in hidden folders: a user's own (`.git`) may have links, and those of unfinished
    checkpoints are removed without following any.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as scanned:
                entries = list(scanned)
        except FileNotFoundError:  # its own writer has just removed it
            continue
        for entry in entries:
            yield entry
            ours = entry.name not in FOREIGN and not entry.name.startswith(".")
            ours = ours and entry.is_dir(follow_symlinks=False)
            if ours and (others or not os.path.lexists(os.path.join(entry.path, LOCK))):
                waiting.append(entry.path)

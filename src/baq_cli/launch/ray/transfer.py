"""A cell's folder as bytes, for machines that don't share a disk."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from baq_cli.errors import DataError
from baq_cli.plain_files import read, replaced
from baq_cli.runs.files import disk_errors, replace_file

GONE = ".gone"
"""An entry that names the files that were sent and are no more."""

ARRIVED = ".arrived"
MOST_LATEST = 100
STORED = zipfile.ZIP_STORED
LAST = "state.json"
"""What says that a cell is finished is put in place after all else."""


def contents(folder: Path) -> list[str]:
    """Return the names of a cell's files, relative to its folder.

    Links, and the hidden files of locks and half-written things, don't count.
    """
    names = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(root, name) for name in files if not name.startswith(".")]
        names += [
            path.relative_to(folder).as_posix()
            for path in paths
            if path.is_file() and not path.is_symlink()
        ]
    return sorted(names)


def needed(folder: Path) -> list[str]:
    """Return the names of what it takes to continue a cell: of checkpoints, the newest."""
    latest = {
        path.parent: read(path, MOST_LATEST).decode(errors="replace").strip()
        for path in folder.glob("*/checkpoints/latest")
    }

    def is_needed(name: str) -> bool:
        phase, *rest = PurePosixPath(name).parts
        if len(rest) < 3 or rest[0] != "checkpoints":
            return True
        return latest.get(folder / phase / "checkpoints") == rest[1]

    return [name for name in contents(folder) if is_needed(name)]


def pack(folder: Path, names: Iterable[str], gone: Iterable[str] = ()) -> bytes:
    """Return files of a folder as bytes, and which names are gone from it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", strict_timestamps=False) as archive:
        archive.writestr(GONE, json.dumps(sorted(gone)))
        for name in names:
            archive.write(folder / name, name)
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> list[str]:
    """Put packed files into a folder, and remove what is gone; return the files' names.

    Each file is complete or as it was. Raises DataError, before anything is touched, for bytes
    that weren't packed here, and for a name that leads out of the folder.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            damaged = archive.testzip()
            if damaged:
                raise DataError(f"what came for {folder} is damaged: {damaged} is another file")
            gone = [str(name) for name in json.loads(archive.read(GONE))]
            entries = [entry for entry in archive.infolist() if entry.filename != GONE]
            _check(entries, gone, folder)
            entries.sort(key=lambda entry: entry.filename == LAST)
            for entry in entries:
                _place(folder / entry.filename, archive.read(entry))
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise DataError(f"what came for {folder} is damaged: {error}") from error
    for name in gone:
        _remove(folder / name, folder)
    return [entry.filename for entry in entries]


def receive(packed: bytes, folder: Path) -> None:
    """Put into a cell's folder what came back for it, whole: also if we die meanwhile.

    Raises DataError as `unpack` does; the folder is then as it was.
    """
    with disk_errors(f"put what came back into {folder}"):
        replace_file(folder / ARRIVED, packed)
        finish_receiving(folder)


def finish_receiving(folder: Path) -> None:
    """Put in place what had come back when an earlier process died."""
    arrived = folder / ARRIVED
    if arrived.is_symlink() or not arrived.is_file():
        return
    try:
        unpack(read(arrived, None), folder)
    except DataError:  # it won't get better; what a full disk refused may, and is kept
        arrived.unlink()
        raise
    arrived.unlink()


def _check(entries: list[zipfile.ZipInfo], gone: list[str], folder: Path) -> None:
    """Raise DataError for a name that leads out of the folder, or what isn't a plain file."""
    inside = folder.resolve()
    for name in [*(entry.filename for entry in entries), *gone]:
        parts = PurePosixPath(name).parts
        plain = bool(parts) and not any(p == ".." or set(p) & set("/\\:") for p in parts)
        if not plain or not (folder / name).parent.resolve().is_relative_to(inside):
            raise DataError(
                f"what came for {folder} has a file '{name}', which leads out of that folder: "
                "nothing was put in place"
            )
    for entry in entries:
        if not stat.S_ISREG(entry.external_attr >> 16) or entry.compress_type != STORED:
            raise DataError(
                f"what came for {folder} has '{entry.filename}', which isn't a plain file as it "
                "was packed: nothing was put in place"
            )


def _place(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        file.write(content)


def _remove(path: Path, folder: Path) -> None:
    """Remove a file, and the folders that it leaves empty."""
    path.unlink(missing_ok=True)
    for parent in path.parents:
        if parent == folder or not parent.is_dir() or any(parent.iterdir()):
            break
        parent.rmdir()

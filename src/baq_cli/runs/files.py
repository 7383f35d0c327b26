"""Files that are complete or absent, and say when they are no longer what was written.

A sealed file carries the SHA-256 of its own content: a JSON object in its last key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from baq_cli import plain_files, untrusted
from baq_cli.errors import DataError, Unreadable
from baq_cli.plain_files import sync_folder
from baq_cli.surroundings import refused

SEAL = "sha256"
"""The key of a sealed file's own hash."""
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file that isn't there yet, and wait until the disk has it."""
    plain_files.write_new(path, content)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file's content in one step: readers see the old or the new, never a part."""
    with plain_files.replaced(path) as file:
        file.write(content)
    sync_folder(path.parent)


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn what the disk refuses into a DataError that says what was being done."""
    try:
        yield
    except OSError as error:
        raise refused(doing, error) from error


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn a failed read into a DataError; into Unreadable where the file may be whole."""
    try:
        yield
    except ABSENT as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except OSError as error:
        if error.errno is None:  # not the disk's: it is a link, a pipe, or too large
            raise DataError(f"cannot read {path}: {error}") from error
        raise Unreadable(
            f"cannot read {path}: {error.strerror or error}. It may be whole: give the command "
            "again once the disk answers. If it never does, move that folder away, or use a copy."
        ) from error


def hash_of(content: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def broken_seal(path: Path) -> DataError:
    """Return what is said of a sealed file whose content is not what was written."""
    of_many = ", or use an earlier checkpoint" if "checkpoints" in path.parts else ""
    return DataError(
        f"{path} is damaged: its content is not what was written (its SHA-256 differs). Restore "
        f"it from a copy{of_many}."
    )


def json_bytes(content: dict[str, Any]) -> bytes:
    """Return an object as a sealed JSON file."""
    plain = json.loads(json.dumps(content))  # as it will be read: keys are words, tuples lists
    return json.dumps(plain | {SEAL: _json_digest(plain)}, indent=1).encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a sealed JSON file that holds an object.

    Raises DataError when it is missing or damaged, Unreadable when the disk doesn't give it.
    """
    try:
        with read_errors(path):
            raw = plain_files.read(path)
        content = parse_json(raw.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if content.pop(SEAL, None) != _json_digest(content):
        raise broken_seal(path)
    return content


def _json_digest(content: dict[str, Any]) -> str:
    return hash_of(json.dumps(content, sort_keys=True).encode())


def parse_json(text: str, path: Path) -> dict[str, Any]:
    """Return the JSON object in a file's text; raises DataError where it is none."""
    try:
        content = untrusted.parse_json(text)
    except ValueError as error:
        raise DataError(f"{path} is damaged: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: expected a JSON object")
    return content

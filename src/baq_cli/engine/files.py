"""Files that are complete or absent, and say when they are no longer what was written.

A sealed file carries the SHA-256 of its own content: a JSON object in its last key, a safetensors
file in its header, for its tensors and for its document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from baq_cli import plain_files, untrusted
from baq_cli.errors import DataError, Unreadable
from baq_cli.plain_files import sync_folder
from baq_cli.surroundings import in_utf8, refused

DOCUMENT, DOCUMENT_SEAL, SEAL = "baq", "baq.sha256", "sha256"
TYPES = (
    *(torch.float16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int32, torch.int64),
)
"""What tensors are made of here."""
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


def tensor_bytes(tensors: dict[str, Tensor], document: dict[str, Any] | None = None) -> bytes:
    """Return tensors, and a JSON document in the header, as a sealed safetensors file."""
    plain = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    header = {SEAL: _digest(plain)}
    if document is not None:
        text = json.dumps(document)
        header |= {DOCUMENT: text, DOCUMENT_SEAL: hash_of(text.encode())}
    return safetensors.torch.save(plain, metadata=header)


def read_tensors(path: Path, follow: bool = False) -> dict[str, Tensor]:
    """Read a sealed safetensors file into memory; with `follow`, one that a link leads to.

    It isn't mapped: whoever overwrites a mapped file changes numbers that were checked, and whoever
    shortens it ends the process that reads on.
    Raises DataError when it is missing or damaged, Unreadable when the disk doesn't give it.
    """
    header = _header(path, follow)
    try:
        with read_errors(path):
            content = plain_files.read(path, None, follow)
        found = safetensors.torch.load(content)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise DataError(f"cannot read {path}: {error}. Expected a safetensors file.") from error
    odd = [name for name, tensor in found.items() if tensor.dtype not in TYPES]
    if odd:
        raise DataError(f"{path}: '{odd[0]}' is of type {found[odd[0]].dtype}, which none is here")
    if header.get(SEAL) != _digest(found):
        raise _broken_seal(path)
    return found


def read_document(path: Path, follow: bool = False) -> dict[str, Any]:
    """Read the sealed JSON document in a safetensors file's header, without its tensors.

    With `follow`, the file may be a link to one.
    Raises DataError when there is none, or it is damaged, Unreadable when the disk doesn't give it.
    """
    header = _header(path, follow)
    text = header.get(DOCUMENT)
    if text is None:
        raise DataError(f"{path} was not written by baq: its header has no '{DOCUMENT}' entry")
    if header.get(DOCUMENT_SEAL) != hash_of(text.encode()):
        raise _broken_seal(path)
    return parse_json(text, path)


def _header(path: Path, follow: bool) -> dict[str, str]:
    try:
        with (
            read_errors(path),
            # Opened here: safe_open takes what it can't open for missing.
            plain_files.opened(path, follow) as content,
            safe_open(_name_of(path, content), framework="pt") as file,
        ):
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise DataError(
            f"cannot read {path}: {error}. Expected a safetensors file written by baq."
        ) from error


def _name_of(path: Path, file: IO[bytes]) -> str:
    """Return a name of an open file for libraries that take no other than UTF-8."""
    return str(path) if in_utf8(str(path)) == str(path) else f"/dev/fd/{file.fileno()}"


def hash_of(content: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _digest(tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _broken_seal(path: Path) -> DataError:
    return DataError(
        f"{path} is damaged: its content is not what was written (its SHA-256 differs). Restore "
        "it from a copy, or use an earlier checkpoint."
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
        raise _broken_seal(path)
    return content


def _json_digest(content: dict[str, Any]) -> str:
    return hash_of(json.dumps(content, sort_keys=True).encode())


def parse_json(text: str, path: Path) -> dict[str, Any]:
    try:
        content = untrusted.parse_json(text)
    except ValueError as error:
        raise DataError(f"{path} is damaged: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: expected a JSON object")
    return content

"""Files that are complete or absent, and safetensors with a JSON document in the header."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from baq_cli.errors import DataError

DOCUMENT = "baq"


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file's content in one step: readers see the old or the new, never a part."""
    temporary = path.with_name(f".{path.name}.partial")
    write_synced(temporary, content)
    os.replace(temporary, path)


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn a failed write into a DataError that says what was being done."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = (
            "Nothing that was complete is lost: make room, then run the command with --resume."
            if full
            else "Choose a folder that can be written to."
        )
        raise DataError(f"cannot {doing}: {error.strerror or error}. {mend}") from error


def tensor_bytes(tensors: dict[str, Tensor], document: dict[str, Any] | None = None) -> bytes:
    """Return tensors, and a JSON document in the header, as the bytes of a safetensors file."""
    plain = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    header = None if document is None else {DOCUMENT: json.dumps(document)}
    return safetensors.torch.save(plain, metadata=header)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises DataError when it is missing or damaged.
    """
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read {path}: {error}. Expected a safetensors file.") from error


def read_document(path: Path) -> dict[str, Any]:
    """Read the JSON document in a safetensors file's header, without its tensors.

    Raises DataError when there is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(DOCUMENT)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"cannot read {path}: {error}. Expected an agent.safetensors written by baq."
        ) from error
    if text is None:
        raise DataError(f"{path} was not written by baq: its header has no '{DOCUMENT}' entry")
    return parse_json(text, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises DataError when it is missing or damaged.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def parse_json(text: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is damaged: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: expected a JSON object")
    return content

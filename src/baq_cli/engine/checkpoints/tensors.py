"""Tensors as sealed safetensors files, with a document in the header.

The header carries the SHA-256 of the tensors, and that of the document.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from baq_cli import plain_files
from baq_cli.errors import DataError
from baq_cli.runs.files import SEAL, broken_seal, hash_of, parse_json, read_errors
from baq_cli.surroundings import in_utf8

DOCUMENT, DOCUMENT_SEAL = "baq", "baq.sha256"
TYPES = (
    *(torch.float16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int32, torch.int64),
)
"""What tensors are made of here."""


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
        raise broken_seal(path)
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
        raise broken_seal(path)
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


def _digest(tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()

"""What a dataset was when this program saved it: the hashes of its file and of what it says.

Minari has no such thing; without it, a number that changes on the disk would be trained on. The
seal is an entry of the metadata that other tools pass over. Where one of them has added episodes,
the file has another size, and is no longer compared.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from baq_cli.data.minari.older import FILE
from baq_cli.errors import DataError
from baq_cli.plain_files import opened
from baq_cli.surroundings import minari_folder

RESERVED = "baq/"
"""What the ids of reference datasets begin with."""
SEAL = "baq_sha256"
SAID = (
    *("observation_space", "action_space", "env_spec", "requirements", "data_format"),
    *("ref_min_score", "ref_max_score", "baq_reference"),
)
"""The entries that training or scores depend on."""
LATER = "eval_env_spec"
"""One that they have come to depend on: seals of before leave it out."""
BLOCK_BYTES = 1 << 20


def sealed(metadata: dict[str, Any], content: bytes | memoryview | None = None) -> dict[str, Any]:
    """Return metadata with their seal, and that of the file's content where it is given."""
    seal = dict(metadata.get(SEAL, {})) | {"said": _said(metadata)}
    if content is not None:
        seal[FILE] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {**metadata, SEAL: seal}


def unsealed(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata without their seal, which holds for this very dataset alone."""
    return {name: entry for name, entry in metadata.items() if name != SEAL}


def check_said(dataset_id: str, metadata: dict[str, Any]) -> None:
    """Raise DataError where sealed metadata are no longer what was saved."""
    seal = metadata.get(SEAL)
    if seal is None:
        return
    known = _said(metadata), _said({k: v for k, v in metadata.items() if k != LATER})
    if not isinstance(seal, dict) or seal.get("said") not in known:
        raise _changed(dataset_id, "metadata.json")


def check_file(dataset_id: str, metadata: dict[str, Any], data: Path) -> None:
    """Raise DataError where the file in a sealed dataset's folder `data` is no longer as saved.

    Raises OSError where it can't be read.
    """
    known = metadata.get(SEAL, {}).get(FILE)
    path = data / FILE
    if not isinstance(known, dict) or path.stat().st_size != known.get("bytes"):
        return
    if _hash_of(path) != known.get("sha256"):
        raise _changed(dataset_id, FILE)


def _said(metadata: dict[str, Any]) -> str:
    said = {name: metadata.get(name) for name in SAID}
    if LATER in metadata:
        said[LATER] = metadata[LATER]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with opened(path, follow=True) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def damaged(dataset_id: str, what: str, otherwise: str = "") -> DataError:
    """Return the error to raise when a dataset can't be read, with the ways to get it again."""
    again = f"'baq data suite build {dataset_id}'"
    if not dataset_id.startswith(RESERVED):
        again = f"import or collect it anew, or 'baq data download {dataset_id}' for a public one"
    return DataError(
        f"dataset '{dataset_id}' is damaged: {what}. Remove the folder "
        f"{minari_folder() / dataset_id}, then get it again: {again}{otherwise}."
    )


def _changed(dataset_id: str, name: str) -> DataError:
    return damaged(
        dataset_id,
        f"its {name} is not what was saved (its SHA-256 differs)",
        f"; if another tool changed it on purpose, take the entry '{SEAL}' out of its "
        "metadata.json",
    )

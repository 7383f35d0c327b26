"""Which folders of the Minari folder are datasets', by name alone. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MOST_DEPTH = 10
"""Folders inside each other in which datasets are looked for."""


def dataset_folders(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the folders below one that have `data` in them, as Minari's own list does.

    Raises OSError where a folder can't be read.
    """
    if not folder.is_dir() or depth > MOST_DEPTH:
        return
    if (folder / "data").exists():
        yield folder
        return
    for inner in folder.iterdir():
        if not inner.name.startswith("."):
            yield from dataset_folders(inner, depth + 1)

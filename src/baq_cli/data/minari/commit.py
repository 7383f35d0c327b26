"""Putting datasets into the Minari folder, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from baq_cli.data.minari.folder import dataset_path
from baq_cli.surroundings import MINARI, refused


def check_place(dataset_id: str) -> None:
    """Raise DataError where a dataset couldn't be saved, before the work that it takes is done."""
    try:
        with beside():
            pass
    except OSError as error:
        raise refused(f"save dataset '{dataset_id}' in {dataset_path()}", error, MINARI) from error


@contextlib.contextmanager
def beside() -> Iterator[Path]:
    """Yield a temporary folder from which can be renamed into the Minari folder.

    It is beside the Minari folder where it can be: a mounted folder can't be renamed into from
    there, and has it inside, hidden from Minari. What the disk doesn't let go of stays: by then
    the dataset is in its place.
    """
    root = dataset_path()
    root.mkdir(parents=True, exist_ok=True)
    parent = root.parent
    same_disk = parent.stat().st_dev == root.stat().st_dev
    place = parent if same_disk and os.access(parent, os.W_OK) else root
    with tempfile.TemporaryDirectory(
        dir=place, prefix=".baq-", ignore_cleanup_errors=True
    ) as partial:
        yield Path(partial)


@contextlib.contextmanager
def elsewhere() -> Iterator[Path]:
    """Yield a temporary folder that Minari takes for the user's Minari folder."""
    name = "MINARI_DATASETS_PATH"
    with beside() as folder:
        before = os.environ.get(name)
        os.environ[name] = str(folder)
        try:
            yield folder
        finally:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


def move(folder: Path, target: Path) -> bool:
    """Rename a folder into place, and return True, unless another process was faster."""
    root = dataset_path()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return False
        folder.rename(target)
        return True
    except OSError:
        for parent in target.parents:
            if parent in (root, root.parent):
                break
            with contextlib.suppress(OSError):  # not empty: it was there before
                parent.rmdir()
        raise


def describe_namespace(dataset_id: str) -> None:
    """Create the files by which Minari knows a dataset's namespace."""
    from minari.namespace import create_namespace, list_local_namespaces

    namespace = dataset_id.rpartition("/")[0]
    if namespace and namespace not in list_local_namespaces():
        with contextlib.suppress(ValueError):  # another process was faster
            create_namespace(namespace)

"""The user's Minari folder: what is in it, and what may be added."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baq_cli.data.minari.names import dataset_folders
from baq_cli.data.minari.older import older_dataset, way_over
from baq_cli.data.minari.seal import RESERVED, check_said, damaged
from baq_cli.data.minari.stored import StoredDataset
from baq_cli.errors import DataError, UsageError
from baq_cli.surroundings import MINARI, UNANSWERED, minari_folder, refused
from baq_cli.untrusted import MOST_NAME, is_dataset_id, parse_json, read_text

MOST_METADATA = 20_000_000
FOLDER = "$MINARI_DATASETS_PATH (by default ~/.minari/datasets)"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Minari and Gymnasium print and warn of off the terminal."""
    logging.getLogger("minari").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def local_datasets() -> list[str]:
    """Return the ids in the user's Minari folder, sorted.

    What doesn't say of itself what its folder is called is none, and stands in no other's way:
    Minari's own list would wait for a pipe, and end at a name.
    """
    return sorted(filter(_is_dataset, _folder_names()))


def older_datasets() -> dict[str, dict[str, Any]]:
    """Return the metadata of datasets that Minari before 0.5 wrote, by id, sorted."""
    found = {}
    for name in filter(is_dataset_id, sorted(_folder_names())):
        said = older_dataset(dataset_path(name) / "data")
        if said is not None:
            found[name] = said
    return found


def _folder_names() -> list[str]:
    root = dataset_path()
    try:
        return [path.relative_to(root).as_posix() for path in dataset_folders(root)]
    except OSError as error:
        raise refused(f"read the Minari folder {root}", error, MINARI) from error


def _is_dataset(name: str) -> bool:
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(name)
        return is_dataset_id(name) and _metadata_of(name).get("dataset_id") == name
    except (OSError, ValueError, TypeError):
        return False


def _metadata_of(dataset_id: str) -> dict[str, Any]:
    """Return a dataset's metadata; raises OSError and ValueError."""
    path = dataset_path(dataset_id) / "data" / "metadata.json"
    metadata = parse_json(read_text(path, MOST_METADATA, follow=True))
    if not isinstance(metadata, dict):
        raise ValueError("metadata.json holds no object")
    return metadata


def check_new_id(dataset_id: str) -> None:
    """Raise UsageError unless a dataset may be saved under this id."""
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        version = parse_dataset_id(dataset_id)[2] if is_dataset_id(dataset_id) else None
    except (ValueError, TypeError):  # the latter without a version
        version = None
    if version is None:
        raise UsageError(
            f"'{dataset_id}' can't be a dataset's id: expected a name and a version, with or "
            "without a namespace, each of two or more letters, as me/hopper/clumsy-v0."
        )
    if dataset_id.startswith(RESERVED):
        raise UsageError(
            f"ids below '{RESERVED}' are those of reference datasets ('baq data suite list'): "
            f"choose another for '{dataset_id}', as me/{dataset_id.removeprefix(RESERVED)}"
        )
    if dataset_id in local_datasets():
        raise UsageError(
            f"dataset '{dataset_id}' exists: choose another id (versions end in -v0, -v1, …) or "
            f"delete it with 'minari delete {dataset_id}'"
        )
    older = older_dataset(dataset_path(dataset_id) / "data")
    if older is not None:
        raise UsageError(
            f"the folder {dataset_path(dataset_id)} holds a dataset of Minari "
            f"{older['minari_version']}: choose another id, as me/{dataset_id}"
        )
    if dataset_path(dataset_id).exists():
        raise UsageError(
            f"the folder {dataset_path(dataset_id)} is there, but holds no whole dataset: remove "
            "it, or choose another id"
        )


def open_minari(dataset_id: str) -> StoredDataset:
    """Find a local Minari dataset, without reading its transitions.

    Raises DataError when it isn't there or its description can't be read.
    """
    data = dataset_path(dataset_id) / "data"
    if not data.exists():
        raise DataError(
            f"dataset '{dataset_id}' is not in the Minari folder {dataset_path()}. "
            "'baq data list' shows what is there, 'baq data suite list' what can be built; "
            f"'baq data download {dataset_id}' fetches a public one."
        )
    older = older_dataset(data)
    if older is not None:
        raise DataError(
            f"dataset '{dataset_id}' was written by Minari {older['minari_version']}, in a layout "
            "that Minari no longer reads (all of it in the HDF5 file, no metadata.json): "
            f"'{way_over(dataset_id, data)}' makes one of today of it."
        )
    try:
        metadata = _metadata_of(dataset_id)
    except OSError as error:
        if error.errno in UNANSWERED:
            raise refused(f"read dataset '{dataset_id}'", error) from error
        raise damaged(dataset_id, str(error)) from error
    except ValueError as error:
        raise damaged(dataset_id, str(error)) from error
    check_said(dataset_id, metadata)
    return StoredDataset(dataset_id, data, metadata)


def dataset_path(dataset_id: str | None = None) -> Path:
    """Return a dataset's folder, or the Minari folder itself, there or not.

    Raises DataError for an id that could lead out of it.
    """
    if dataset_id is not None and not is_dataset_id(dataset_id):
        raise DataError(
            f"'{dataset_id[:MOST_NAME]}' can't be a dataset's id: expected letters, digits, - and "
            "_, in parts divided by /, as me/task/name-v0"
        )
    return _root() / (dataset_id or "")


def _root() -> Path:
    """Return the Minari folder, there or not; raises DataError where it can be none."""
    root = minari_folder()
    try:
        odd = not root.is_dir() and os.path.lexists(root)
    except OSError as error:
        raise refused(f"use the Minari folder {root}", error, MINARI) from error
    if odd:
        raise DataError(
            f"the Minari folder {root} is a file, or a link that leads to no folder: name a folder "
            f"with {MINARI}"
        )
    return root

"""The user's Minari folder: what is in it, and what may be added."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from baq_cli.data.minari.names import dataset_folders
from baq_cli.data.minari.older import FILE, older_dataset, way_over
from baq_cli.data.minari.seal import RESERVED, SEAL, check_said, damaged, sealed
from baq_cli.envs.faults import let_go
from baq_cli.envs.making import make_env
from baq_cli.errors import DataError, UsageError
from baq_cli.plain_files import replaced
from baq_cli.surroundings import MINARI, UNANSWERED, minari_folder, refused
from baq_cli.untrusted import MOST_NAME, is_dataset_id, parse_json, read_text

MOST_METADATA = 20_000_000
NUMBER_TYPES = {np.dtype(code).name for code in np.typecodes["AllInteger"] + "efd?"}
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
            f"'{dataset_id}' can't be a dataset's id: expected a name of two or more letters and a "
            "version, with or without a namespace, as me/hopper/clumsy-v0."
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


@dataclass(frozen=True)
class StoredDataset:
    """A dataset in the Minari folder, its transitions not yet read.

    `file` is the name of its HDF5 file in the folder `data`.
    """

    dataset_id: str
    data: Path
    metadata: dict[str, Any]
    file: str = FILE

    @property
    def files(self) -> list[Path]:
        """The dataset's files, in an order that doesn't change."""
        return sorted(path for path in self.data.rglob("*") if path.is_file())

    @cached_property
    def env_spec(self) -> gym.envs.registration.EnvSpec | None:
        """The spec of the environment of the recording. Nothing is imported for it."""
        return self._spec("env_spec", "its environment")

    @cached_property
    def eval_env_spec(self) -> gym.envs.registration.EnvSpec | None:
        """The spec of the environment named for evaluation, where that is another."""
        return self._spec("eval_env_spec", "its environment for evaluation")

    def _spec(self, key: str, what: str) -> gym.envs.registration.EnvSpec | None:
        text = self.metadata.get(key)
        if text is None:
            return None
        try:
            return parse_spec(text)
        except ValueError as error:
            raise self.damaged(f"{what} can't be read: {error}") from error

    @cached_property
    def spaces(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        """The dataset's observation and action spaces; else its environment's."""
        texts = [self.metadata.get(name) for name in ("observation_space", "action_space")]
        try:
            if None not in texts:
                observation, action = (parse_space(str(text)) for text in texts)
                return observation, action
        except ValueError as error:
            raise self.damaged(f"its spaces can't be read: {error}") from error
        if self.env_spec is None:
            raise self.damaged("it records neither its spaces nor its environment")
        env = make_env(self.env_spec.id)
        spaces = env.observation_space, env.action_space
        let_go(env)
        return spaces

    def damaged(self, what: str) -> DataError:
        """Return the error to raise when the dataset can't be read."""
        return damaged(self.dataset_id, what)


def parse_space(text: str) -> gym.Space[Any]:
    """Read a space that Minari wrote, the parts of a `Dict` in the order they have there.

    Minari's own reader sorts them, and the environment's flattened observations follow its order.
    Raises ValueError for anything that isn't one.
    """
    from minari.serialization import deserialize_space

    try:
        fields = parse_json(text)
        _check_space(fields)
        if fields["type"] != "Dict":
            return deserialize_space(text)
        parts = fields["subspaces"].items()
        return gym.spaces.Dict(OrderedDict((k, parse_space(json.dumps(v))) for k, v in parts))
    except Exception as error:  # Gymnasium and Minari assert and raise many kinds here
        raise ValueError(f"not a space: {error}") from error


def _check_space(fields: dict[str, Any]) -> None:
    """Raise ValueError for a space that would take more memory than its text."""
    if fields.get("dtype", "float32") not in NUMBER_TYPES:
        raise ValueError(f"numbers of the type {fields['dtype']!r}")
    if fields["type"] == "Box":
        shape = tuple(fields["shape"])
        for name in ("low", "high"):
            if np.asarray(fields[name], fields["dtype"]).shape != shape:
                raise ValueError(f"its {name} has not the shape {list(shape)}")
    parts = fields.get("subspaces", ())
    for part in parts.values() if isinstance(parts, dict) else parts:
        _check_space(part)


def parse_spec(text: str) -> gym.envs.registration.EnvSpec:
    """Read an environment's spec. Nothing is imported for it.

    Raises ValueError for anything that isn't one.
    """
    try:
        fields = parse_json(text)
        dropped = ("apply_api_compatibility", "autoreset")  # of Gymnasium before 1.0
        kept = json.dumps({k: v for k, v in fields.items() if k not in dropped})
        spec = gym.envs.registration.EnvSpec.from_json(kept)
    except Exception as error:  # Gymnasium raises many kinds here
        raise ValueError(f"not an environment's spec: {error}") from error
    limit = spec.max_episode_steps
    if not (isinstance(spec.id, str) and isinstance(spec.kwargs, dict)):
        raise ValueError("not an environment's spec: its id or keyword arguments")
    if not (limit is None or (type(limit) is int and limit > 0)):
        raise ValueError(f"not an environment's spec: max_episode_steps {limit!r}")
    return spec


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


def update_metadata(stored: StoredDataset, entries: dict[str, Any]) -> None:
    """Add entries to a dataset's metadata, in one step; a seal is made anew."""
    path = stored.data / "metadata.json"
    try:
        metadata = {**stored.metadata, **entries}
        metadata = sealed(metadata) if SEAL in metadata else metadata
        with replaced(path) as file:
            file.write(json.dumps(metadata).encode())
    except OSError as error:
        raise refused(f"write {path}", error, MINARI) from error

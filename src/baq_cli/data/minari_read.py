"""Reading Minari datasets whole: for training as flat float32 arrays, for export as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from baq_cli.data import cache
from baq_cli.data.checks import content_findings, refuse
from baq_cli.data.episodes import Episodes
from baq_cli.data.minari_folder import StoredDataset, open_minari, quiet
from baq_cli.data.recording import Recording, origin_of
from baq_cli.envs.spaces import Spaces, observation_parts
from baq_cli.errors import DataError

Array = npt.NDArray[Any]
STRUCTURE_BYTES = 1 << 16
Convert = Callable[[Array], Array]
MOST_EXPANSION = 2_000
"""A file whose arrays claim more than this many times its own size is taken for damaged."""


def load_episodes(dataset_id: str) -> Episodes:
    """Return a local Minari dataset, checked, from the cache where it is there.

    Raises DataError when it is missing or damaged, has spaces that are not supported, or when a
    check found an error.
    """
    stored = open_minari(dataset_id)
    mark = cache.fingerprint(stored.files)
    found = cache.find(mark)
    if found is not None:
        return found
    episodes = read_episodes(stored)
    try:
        episodes = refuse(episodes, content_findings(episodes))
    except DataError as error:
        raise DataError(f"{error} 'baq data check {dataset_id}' shows every finding.") from error
    cache.keep(mark, episodes)
    return episodes


def read_episodes(stored: StoredDataset) -> Episodes:
    """Read a dataset in the units of training, unchecked.

    Every array is read whole, an episode at a time, into its place: at no moment is there more
    than one copy of the data.
    """
    if stored.metadata.get("data_format", "hdf5") != "hdf5":
        return _read_otherwise(stored).episodes(stored.dataset_id)
    observation_space, action_space = stored.spaces
    spaces = Spaces.of(observation_space, action_space)
    with _reading(stored) as source:
        steps, count = source.steps, len(source.lengths)
        observations = np.empty((steps + count, spaces.obs_dim), dtype=np.float32)
        left = 0
        for name, box in observation_parts(observation_space).items():
            right = left + int(np.prod(box.shape))
            flat = observations[:, left:right]
            source.fill(_path("observations", name), flat, box.shape, 1)
            left = right
        action = np.empty((steps, spaces.action_dim), dtype=np.float32)
        source.fill("actions", action, (spaces.action_dim,), 0, spaces.from_env)
        reward = np.empty(steps, dtype=np.float32)
        source.fill("rewards", reward, (), 0)
        flags = np.empty((2, steps), dtype=np.bool_)
        source.fill("terminations", flags[0], (), 0)
        source.fill("truncations", flags[1], (), 0)
        origin = origin_of(stored.env_spec, stored.metadata, source.seeds)
        return Episodes(
            dataset_id=stored.dataset_id,
            spaces=spaces,
            observations=observations,
            action=action,
            reward=reward,
            terminated=flags[0],
            truncated=flags[1],
            lengths=source.lengths,
            origin=origin,
        )


def read_recording(stored: StoredDataset) -> Recording:
    """Read a dataset as it was given, in its own dtypes and with its infos."""
    if stored.metadata.get("data_format", "hdf5") != "hdf5":
        return _read_otherwise(stored)
    observation_space, action_space = stored.spaces
    with _reading(stored) as source:
        parts = {
            name: source.native(_path("observations", name), 1)
            for name in observation_parts(observation_space)
        }
        return Recording(
            observation_space=observation_space,
            action_space=action_space,
            observations=parts,
            actions=source.native("actions", 0),
            rewards=source.native("rewards", 0),
            terminated=source.native("terminations", 0),
            truncated=source.native("truncations", 0),
            lengths=source.lengths,
            seeds=source.seeds,
            infos=source.infos(),
            env_spec=stored.env_spec,
            about=stored.metadata,
        )


def _path(*names: str) -> str:
    return "/".join(name for name in names if name)


@contextmanager
def _reading(stored: StoredDataset) -> Iterator[_Hdf5]:
    """Open a dataset's file; what goes wrong while reading it becomes one DataError."""
    try:
        with h5py.File(_open_lean(stored.data / "main_data.hdf5")) as file:
            yield _Hdf5(stored, file)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise stored.damaged(str(error.args[0] if error.args else error)) from error


def _open_lean(path: Path) -> h5py.h5f.FileID:
    """Open a file for reading with little kept of its structure.

    HDF5 would keep all it has seen of a file with thousands of small arrays, more than their data.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    settings = access.get_mdc_config()
    settings.set_initial_size = True
    settings.initial_size = settings.min_size = settings.max_size = STRUCTURE_BYTES
    access.set_mdc_config(settings)
    return h5py.h5f.open(str(path).encode(), h5py.h5f.ACC_RDONLY, access)


class _Hdf5:
    """The episodes of a Minari HDF5 file, read array by array.

    h5py's low-level calls take half the time of its dictionaries where episodes are many.
    """

    def __init__(self, stored: StoredDataset, file: h5py.File):
        self.stored, self.file = stored, file
        count = len(file)
        if not count:
            raise DataError(f"dataset '{stored.dataset_id}' holds no episodes")
        self.lengths = np.empty(count, dtype=np.int64)
        seeds = []
        for number in range(count):
            group = self._group(number)
            self.lengths[number] = int(np.prod(_open(group, "rewards").shape))
            seeds.append(_seed(group))
        self.seeds = tuple(seeds)
        if (self.lengths < 1).any():
            number = int((self.lengths < 1).argmax())
            raise DataError(f"dataset '{stored.dataset_id}': episode {number} has no steps")
        self.steps = int(self.lengths.sum())
        check_size(self.steps, file.id.get_filesize())  # a step takes a byte at the least

    def fill(
        self,
        key: str,
        out: Array,
        shape: tuple[int, ...],
        extra: int,
        convert: Convert | None = None,
    ) -> None:
        """Read an array of every episode into the rows of `out`, flattened beyond the first axis.

        `shape` is that of a row; episodes have `extra` rows more than steps.
        """
        start = 0
        for number, length in enumerate(self.lengths):
            dataset = _open(self._group(number), key)
            self._check_rows(key, number, dataset, shape, int(length) + extra)
            values = np.empty(dataset.shape, dataset.dtype)
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
            stop = start + int(length) + extra
            values = values.reshape(stop - start, *out.shape[1:])
            out[start:stop] = values if convert is None else convert(values)
            start = stop

    def native(self, key: str, extra: int) -> Array:
        """Return an array of every episode end to end, in its own dtype."""
        first = _open(self._group(0), key)
        shape = tuple(first.shape[1:])
        out = np.empty((self.steps + extra * len(self.lengths), *shape), first.dtype)
        self.fill(key, out, shape, extra)
        return out

    def infos(self) -> dict[str, Array]:
        """Return the numeric infos that every episode has, by path below `infos`."""
        found: dict[str, Array] = {}
        group = self.file["episode_0"]
        names: list[str] = []
        if isinstance(group.get("infos"), h5py.Group):
            group["infos"].visititems(
                lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
            )
        for name in names:
            dataset = group["infos"][name]
            extra = len(dataset) - int(self.lengths[0]) if dataset.shape else -1
            if extra in (0, 1) and dataset.dtype.kind in "fiub":
                with contextlib.suppress(KeyError, ValueError, DataError):  # not in every episode
                    found[name] = self.native(f"infos/{name}", extra)
        return found

    def _group(self, number: int) -> h5py.h5g.GroupID:
        return h5py.h5g.open(self.file.id, f"episode_{number}".encode())

    def _check_rows(
        self,
        key: str,
        number: int,
        dataset: h5py.h5d.DatasetID,
        shape: tuple[int, ...],
        rows: int,
    ) -> None:
        if not dataset.shape:
            raise ValueError(f"{key} of episode {number} are a single value")
        if dataset.dtype.kind not in "fiub":
            raise ValueError(f"{key} of episode {number} are of type {dataset.dtype}, not numbers")
        if dataset.shape[1:] != shape:
            raise ValueError(
                f"{key} of episode {number} have rows of shape {list(dataset.shape[1:])}; "
                f"expected {list(shape)}, as the recorded space and the other episodes"
            )
        if dataset.shape[0] != rows:
            wanted = "one more than steps" if rows != self.lengths[number] else "one a step"
            raise DataError(
                f"dataset '{self.stored.dataset_id}': episode {number} has {dataset.shape[0]} "
                f"{key} for {self.lengths[number]} steps; expected {wanted}."
            )


def _seed(group: h5py.h5g.GroupID) -> int | None:
    """Return the start seed of an episode, None where it isn't recorded."""
    if not h5py.h5a.exists(group, b"seed"):
        return None
    attribute = h5py.h5a.open(group, b"seed")
    value = np.empty(attribute.shape, attribute.dtype)
    attribute.read(value)
    return int(value)


def _open(group: h5py.h5g.GroupID, key: str) -> h5py.h5d.DatasetID:
    opened = h5py.h5o.open(group, key.encode())
    if not isinstance(opened, h5py.h5d.DatasetID):
        raise ValueError(f"'{key}' is not an array")
    return opened


def check_size(claimed_bytes: int, file_bytes: int) -> None:
    """Raise ValueError where an array claims far more than the file could hold."""
    if claimed_bytes > MOST_EXPANSION * file_bytes:
        raise ValueError(f"an array claims {claimed_bytes:,} bytes in a file of {file_bytes:,}")


def _read_otherwise(stored: StoredDataset) -> Recording:
    """Read a dataset of another storage format (Arrow) through Minari's own reader."""
    from minari.dataset._storages import get_minari_storage

    observation_space, action_space = stored.spaces
    names = observation_parts(observation_space)
    try:
        with quiet():
            storage = get_minari_storage(stored.metadata["data_format"])(
                stored.data, observation_space, action_space
            )
            logged = list(storage.get_episodes(range(storage.total_episodes)))
            seeds = [m.get("seed") for m in storage.get_episode_metadata(range(len(logged)))]
        if not logged:
            raise DataError(f"dataset '{stored.dataset_id}' holds no episodes")

        def column(key: str) -> Array:
            return np.concatenate([np.asarray(episode[key]) for episode in logged])

        return Recording(
            observation_space=observation_space,
            action_space=action_space,
            observations={
                name: np.concatenate([_part(e["observations"], name) for e in logged])
                for name in names
            },
            actions=column("actions"),
            rewards=column("rewards"),
            terminated=column("terminations"),
            truncated=column("truncations"),
            lengths=np.asarray([len(episode["rewards"]) for episode in logged], dtype=np.int64),
            seeds=tuple(None if seed is None else int(seed) for seed in seeds),
            env_spec=stored.env_spec,
            about=stored.metadata,
        )
    except DataError:
        raise
    except Exception as error:  # Arrow has its own kinds of error
        raise stored.damaged(str(error)) from error


def _part(observations: Any, name: str) -> Array:
    for key in filter(None, name.split("/")):
        observations = observations[key]
    return np.asarray(observations)

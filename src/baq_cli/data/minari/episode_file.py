"""Reading Minari's HDF5 files: thousands of small arrays, each read whole into its place."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from baq_cli.data.hdf5 import check_links, open_inside
from baq_cli.data.minari.stored import StoredDataset
from baq_cli.data.seeds import seed_of
from baq_cli.data.sizes import Claims
from baq_cli.errors import DataError
from baq_cli.plain_files import check_plain

Array = npt.NDArray[Any]
STRUCTURE_BYTES = 1 << 16
Convert = Callable[[Array], Array]


def open_lean(path: Path) -> h5py.h5f.FileID:
    """Open a file for reading with little kept of its structure.

    HDF5 would keep all it has seen of a file with thousands of small arrays, more than their data.
    """
    check_plain(path)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    settings = access.get_mdc_config()
    settings.set_initial_size = True
    settings.initial_size = settings.min_size = settings.max_size = STRUCTURE_BYTES
    access.set_mdc_config(settings)
    return h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, access)


class EpisodeFile:
    """The episodes of a Minari HDF5 file, read array by array.

    h5py's low-level calls take half the time of its dictionaries where episodes are many.
    """

    def __init__(self, stored: StoredDataset, file: h5py.File):
        self.stored, self.file = stored, file
        self.claims = Claims(file.id.get_filesize())
        self._root = h5py.h5g.open(file.id, b"/")
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
        self.claims.add(self.steps)  # a step takes a byte at the least

    def fill(
        self,
        key: str,
        out: Array,
        shape: tuple[int, ...],
        extra: int,
        convert: Convert | None = None,
        watch: Callable[[Array, Array], None] | None = None,
    ) -> None:
        """Read an array of every episode into the rows of `out`, flattened beyond the first axis.

        `shape` is that of a row; episodes have `extra` rows more than steps. `convert` makes rows
        of `out` of those that are stored; `watch` sees both.
        """
        start = 0
        for number, length in enumerate(self.lengths):
            dataset = _open(self._group(number), key)
            self._check_rows(key, number, dataset, shape, int(length) + extra)
            values = np.empty(dataset.shape, dataset.dtype)
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
            stop = start + int(length) + extra
            with np.errstate(over="ignore"):  # what float32 can't hold is found by the checks
                made = values if convert is None else convert(values)
                out[start:stop] = made.reshape(stop - start, *out.shape[1:])
            if watch is not None:
                watch(values, out[start:stop])
            start = stop

    def column(self, key: str, number: int, shape: tuple[int, ...], extra: int) -> Array:
        """Return one number of every row of an array, in its own dtype, `[N]`."""
        out = np.empty(self.steps + extra * len(self.lengths), self._widest(key))
        self.fill(key, out, shape, extra, lambda rows: rows.reshape(len(rows), -1)[:, number])
        return out

    def native(self, key: str, extra: int) -> Array:
        """Return an array of every episode end to end, in its own dtype.

        Where episodes have different ones, it is the one that holds them all.
        """
        shape = tuple(_open(self._group(0), key).shape[1:])
        rows = self.steps + extra * len(self.lengths)
        widest = self._widest(key)
        self.claims.add(rows * math.prod(shape) * widest.itemsize)
        out = np.empty((rows, *shape), widest)
        self.fill(key, out, shape, extra)
        return out

    def _widest(self, key: str) -> np.dtype[Any]:
        """Return the type that holds an array's numbers in every episode: nothing is cut."""
        types = {_open(self._group(k), key).dtype for k in range(len(self.lengths))}
        return np.result_type(*types)

    def infos(self, wanted: Collection[str] | None = None) -> dict[str, Array]:
        """Return the numeric infos that every episode has, by path below `infos`.

        Of `wanted` ones alone, where that is given.
        """
        found: dict[str, Array] = {}
        check_links(self._group(0))
        group = self.file["episode_0"]
        names: list[str] = []
        if isinstance(group.get("infos"), h5py.Group):
            group["infos"].visititems(
                lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
            )
        for name in names if wanted is None else sorted({*names} & {*wanted}):
            dataset = group["infos"][name]
            extra = len(dataset) - int(self.lengths[0]) if dataset.shape else -1
            if extra in (0, 1) and dataset.dtype.kind in "fiub":
                with contextlib.suppress(KeyError, ValueError, DataError):  # not in every episode
                    found[name] = self.native(f"infos/{name}", extra)
        return found

    def _group(self, number: int) -> h5py.h5g.GroupID:
        group = open_inside(self._root, f"episode_{number}")
        if not isinstance(group, h5py.h5g.GroupID):
            raise ValueError(f"episode {number} is no group")
        return group

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
    if attribute.dtype.kind not in "iu":  # words: rare, and slower
        return seed_of(h5py.Group(group).attrs["seed"])
    value = np.empty(attribute.shape, attribute.dtype)
    attribute.read(value)
    return seed_of(value)


def _open(group: h5py.h5g.GroupID, key: str) -> h5py.h5d.DatasetID:
    opened = open_inside(group, key)
    if not isinstance(opened, h5py.h5d.DatasetID):
        raise ValueError(f"'{key}' is not an array")
    return opened

"""A robomimic file as it lies in HDF5: its demonstrations, filter keys and attributes.

Format: ARISE-Initiative/robomimic, docs/datasets/overview.md: `data/demo_i/{obs/*, next_obs/*,
actions, rewards, dones, states}`, `mask/*` with names of demonstrations, and an attribute
`env_args` of JSON, which is text here and nothing more.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from baq_cli.data.hdf5 import look_inside, open_inside
from baq_cli.data.logs.by_name import MOST_LETTERS, check_names
from baq_cli.data.logs.files import natural
from baq_cli.data.sizes import Claims
from baq_cli.errors import DataError, UsageError, nearest
from baq_cli.untrusted import parse_json

Array = npt.NDArray[Any]
DATA, MASK, STATES = "data", "mask", "states"
LONGEST_TEXT = 10_000


def is_robomimic(file: h5py.File) -> bool:
    """Tell whether a file has demonstrations below data/, each with its actions, and none above."""
    try:
        group = open_inside(file.id, DATA)
        if "actions" in file or not isinstance(group, h5py.h5g.GroupID):
            return False
        inner = [look_inside(group, name) for name in _below(group)]
    except (KeyError, ValueError, DataError):
        return False
    return any(isinstance(g, h5py.h5g.GroupID) and "actions" in _below(g, True) for g in inner)


def _demos(file: h5py.File) -> list[str]:
    """Return the names of the demonstrations, demo_2 before demo_10."""
    group = open_inside(file.id, DATA)
    if not isinstance(group, h5py.h5g.GroupID):
        raise ValueError(f"'{DATA}' is an array, not a group")
    found = []
    for name in _below(group, links=True):
        inner = look_inside(group, name)
        if isinstance(inner, h5py.h5g.GroupID) and "actions" in _below(inner, links=True):
            found.append(name)
    return sorted(found, key=lambda name: natural(Path(name)))


def _below(group: h5py.h5g.GroupID, links: bool = False) -> list[str]:
    """Return the names in a group that are words; those of links too, where that is asked for."""
    names: list[str] = []

    def seen(name: bytes, info: h5py.h5l.LinkInfo) -> None:
        if links or info.type == h5py.h5l.TYPE_HARD:
            with suppress(UnicodeDecodeError):
                names.append(name.decode("utf-8"))

    group.links.iterate(seen, info=True)
    check_names(names)
    return names


class RobomimicFile:
    """An open file, whose arrays are read one by one, their sizes checked before.

    Raises ValueError or KeyError for what isn't there, lies behind a link, or claims too much.
    """

    def __init__(self, file: h5py.File):
        self._file, self._claims = file, Claims(file.id.get_filesize())
        self.demos = _demos(file)
        if not self.demos:
            raise ValueError("it has no demonstrations: groups below data/ that hold actions")

    def keys(self, demo: str) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return the observations of a demonstration: each key's shape and kind of numbers."""
        try:
            group = open_inside(self._file.id, f"{DATA}/{demo}/obs")
        except KeyError:
            return {}
        found = {}
        for name in _below(group, links=True) if isinstance(group, h5py.h5g.GroupID) else []:
            inner = look_inside(group, name)
            if isinstance(inner, h5py.h5d.DatasetID) and inner.shape is not None:
                found[name] = (inner.shape, inner.dtype.kind)
        return found

    def has(self, demo: str, path: str) -> bool:
        """Tell whether a demonstration has an array at a path below it."""
        try:
            return isinstance(
                open_inside(self._file.id, f"{DATA}/{demo}/{path}"), h5py.h5d.DatasetID
            )
        except KeyError:
            return False

    def others(self, demo: str) -> list[str]:
        """Return what lies in a demonstration's group."""
        group = open_inside(self._file.id, f"{DATA}/{demo}")
        return _below(group) if isinstance(group, h5py.h5g.GroupID) else []

    def array(self, demo: str, path: str) -> Array:
        """Return a demonstration's array of numbers `[N, ...]`."""
        place = f"{DATA}/{demo}/{path}"
        found = open_inside(self._file.id, place)
        if not isinstance(found, h5py.h5d.DatasetID):
            raise ValueError(f"'{place}' is a group, not an array")
        dataset = h5py.Dataset(found)
        if dataset.dtype.kind not in "fiub" or not dataset.shape:
            raise ValueError(f"'{place}' is of type {dataset.dtype}; expected a row a step")
        self._claims.add(dataset.nbytes)
        return np.asarray(dataset[()])

    def masks(self) -> list[str]:
        """Return the filter keys."""
        try:
            group = open_inside(self._file.id, MASK)
        except KeyError:
            return []
        return _below(group) if isinstance(group, h5py.h5g.GroupID) else []

    def chosen(self, mask: str) -> list[str]:
        """Return the demonstrations that a filter key names, in the order of their numbers.

        Raises UsageError for a key that isn't there.
        """
        if mask not in self.masks():
            known = self.masks()
            has = nearest(mask, known) if known else "it has no filter keys"
            raise UsageError(f"--mask {mask}: {has}")
        named = self._words(f"{MASK}/{mask}")
        lacking = sorted(named - set(self.demos))
        if lacking:
            raise ValueError(f"'{MASK}/{mask}' names '{lacking[0]}', which isn't below data/")
        if not named:
            raise ValueError(f"'{MASK}/{mask}' names no demonstration")
        return [demo for demo in self.demos if demo in named]

    def _words(self, place: str) -> set[str]:
        """Return an array's words, one by one: a file may repeat a long one for nothing."""
        found = open_inside(self._file.id, place)
        if not isinstance(found, h5py.h5d.DatasetID):
            raise ValueError(f"'{place}' is a group, not an array")
        dataset = h5py.Dataset(found)
        fits = dataset.ndim == 1 and len(dataset) <= len(self.demos)
        if not fits or dataset.dtype.kind not in "SO" or dataset.dtype.itemsize > MOST_LETTERS:
            raise ValueError(f"'{place}' is no list of demonstrations")
        words = set()
        for row in range(len(dataset)):
            word = dataset[row]
            if not isinstance(word, bytes | str) or len(word) > MOST_LETTERS:
                raise ValueError(f"'{place}' is no list of demonstrations")
            words.add(word.decode("utf-8", errors="replace") if isinstance(word, bytes) else word)
        return words

    def count(self, demo: str | None, name: str) -> int | None:
        """Return a whole number among a demonstration's attributes, or those of data/ (None)."""
        attributes = self._attributes(demo)
        if name not in attributes:
            return None
        stored = attributes.get_id(name)
        if stored.dtype.kind not in "iu" or stored.shape not in ((), (1,)):
            return None
        return int(np.asarray(attributes[name]).reshape(-1)[0])

    def env_args(self) -> str | None:
        """Return what the file says of its environment: text, cut where it is too long."""
        attributes = self._attributes(None)
        if "env_args" not in attributes:
            return None
        stored = attributes.get_id("env_args")
        if stored.dtype.kind not in "OS" or stored.shape not in ((), (1,)):
            return None
        value = np.asarray(attributes["env_args"]).reshape(-1)[0]
        text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
        return text[:LONGEST_TEXT] if isinstance(text, str) else None

    def _attributes(self, demo: str | None) -> h5py.AttributeManager:
        return self._file[DATA if demo is None else f"{DATA}/{demo}"].attrs


def env_facts(text: str | None) -> tuple[str | None, Any]:
    """Return the environment's name and its control rate in Hz, out of `env_args`.

    The name is for people, nothing is made by it. None for either where it doesn't say it.
    """
    try:
        content = parse_json(text or "")
    except ValueError:
        return None, None
    if not isinstance(content, dict):
        return None, None
    name, arguments = content.get("env_name"), content.get("env_kwargs")
    rate = arguments.get("control_freq") if isinstance(arguments, dict) else None
    return name if isinstance(name, str) else None, rate

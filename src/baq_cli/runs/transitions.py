"""What environments did in a run, one record a step, in a file that only grows.

The file is a line of JSON that says what its records hold, and records of one size, each with a
checksum of its own. Whatever kills the process that writes it, the records before are whole; what
was half written last is dropped when the file is opened.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from baq_cli.errors import DataError
from baq_cli.plain_files import marked, opened, replaced, sync_folder
from baq_cli.runs.checked import Checked, check_content
from baq_cli.runs.files import disk_errors, parse_json, read_errors

Array = npt.NDArray[Any]
NAME = "transitions.bin"
POLICY, SOMEBODY, LIMIT = range(3)
"""Who decided on an action (`intervention`): the policy, somebody else, a limit of `safety`."""
FAILURE, UNMARKED, SUCCESS = -1, 0, 1
"""What somebody said of an episode (`success`)."""
VERSION = 1
MOST_NUMBERS = 10**6
"""Of an observation or an action, far above any robot's."""
MOST_HEADER_BYTES = 10**6
BLOCK_BYTES = 2**22
"""Read at once, or one record where that is more."""
MOST_TORN = 4_096
"""Records at the end that a failure of power may have torn; more are damage."""
CHECKSUM = "checksum"


class _Header(Checked):
    """The first line of a file."""

    format: Literal["baq-transitions"]
    version: Literal[1]
    obs_dim: int = Field(ge=1, le=MOST_NUMBERS)
    action_dim: int = Field(ge=1, le=MOST_NUMBERS)
    seeds: list[int] = Field(min_length=1, max_length=10_000)
    record_bytes: int
    fields: list[list[Any]]


@dataclass(frozen=True)
class Layout:
    """What a record holds: numbers of an observation and an action, and of which seeds it is.

    Counts begin at 0. `action` is what was done and `proposed` what the policy asked for, in
    [−1, 1]; `executed` is
    what was done in the environment's own digits and units, where it said that it did other than it
    was asked to, else NaN.
    """

    obs_dim: int
    action_dim: int
    seeds: tuple[int, ...]

    @property
    def fields(self) -> list[tuple[str, str, int]]:
        """The fields of a record: name, type and how many numbers, 0 for one that is no array."""
        obs, action = self.obs_dim, self.action_dim
        return [
            ("seed_index", "<i4", 0),
            ("env_step", "<i8", 0),
            ("episode", "<i8", 0),
            ("step_in_episode", "<i8", 0),
            ("start_seed", "<i8", 0),
            ("obs", "<f8", obs),
            ("action", "<f4", action),
            ("executed", "<f8", action),
            ("proposed", "<f4", action),
            ("reward", "<f8", 0),
            ("next_obs", "<f8", obs),
            ("terminated", "|u1", 0),
            ("truncated", "|u1", 0),
            ("intervention", "|u1", 0),
            ("success", "|i1", 0),
            ("policy_version", "<i8", 0),
            ("time_ns", "<i8", 0),
            ("late_ns", "<i8", 0),
        ]

    @property
    def block(self) -> int:
        """How many records are read at once."""
        return max(1, BLOCK_BYTES // self.record.itemsize)

    @cached_property
    def record(self) -> np.dtype[np.void]:
        """The type of a record as it lies in the file, its checksum last."""
        named = [(n, kind, (count,)) if count else (n, kind) for n, kind, count in self.fields]
        return np.dtype([*named, (CHECKSUM, "<u4")])

    def header(self) -> bytes:
        """Return the first line of a file of such records."""
        said = {
            "format": "baq-transitions",
            "version": VERSION,
            "obs_dim": self.obs_dim,
            "action_dim": self.action_dim,
            "seeds": list(self.seeds),
            "record_bytes": self.record.itemsize,
            "fields": [list(field) for field in self.fields],
        }
        return json.dumps(said).encode() + b"\n"


class TransitionLog:
    """A file of transitions that grows at its end.

    `count` is how many whole records there are.
    """

    def __init__(self, path: Path, layout: Layout):
        self.path, self.layout = path, layout
        self._record = np.zeros((), layout.record)
        self._known = tuple(name for name, _, _ in layout.fields)
        self._start = len(layout.header())
        self._closing = ExitStack()
        self._file = self._closing.enter_context(_writing(path))
        self.count = 0

    @classmethod
    def create(cls, path: Path, layout: Layout) -> TransitionLog:
        """Start a file without records, in place of one that may be there."""
        with _disk(path), replaced(path) as file:
            file.write(layout.header())
        sync_folder(path.parent)
        return cls(path, layout)

    @classmethod
    def open(cls, path: Path, layout: Layout) -> TransitionLog:
        """Go on with a file; what was half written last is dropped.

        Raises DataError when it is damaged, or its records hold something else.
        """
        found, count = scan(path)
        if found != layout:
            raise DataError(f"{path} holds transitions of {found}, expected {layout}")
        log = cls(path, layout)
        log.count = count
        log.cut(count)
        return log

    def append(self, **fields: Any) -> None:
        """Add a record, by its fields; those that aren't given are 0, and `executed` is NaN.

        It is the system's when this returns, so that no end of this process can lose it; the disk
        has it after `sync`.
        """
        record = self._record
        record[()] = np.zeros((), record.dtype)
        record["executed"] = np.nan
        for name, value in fields.items():
            record[name] = value
        record[CHECKSUM] = _checksum(record.tobytes(), self.count)
        with _disk(self.path):
            self._file.write(record.tobytes())
            self._file.flush()
        self.count += 1

    def extend(self, records: Array) -> None:
        """Add records `[N]` of the layout's type together, as `append` does one.

        Their checksums are filled in.
        """
        size, raw = self.layout.record.itemsize, memoryview(records.tobytes())
        records[CHECKSUM] = [
            _checksum(raw[i * size : (i + 1) * size], self.count + i) for i in range(len(records))
        ]
        with _disk(self.path):
            self._file.write(records.tobytes())
            self._file.flush()
        self.count += len(records)

    def cut(self, count: int) -> None:
        """Drop all records but the first `count`, and what was half written after them."""
        if count > self.count:
            raise DataError(
                f"{self.path} has {self.count:,} transitions, and a checkpoint knows of {count:,}: "
                "it is not what was written. Restore it from a copy."
            )
        with _disk(self.path):
            self._file.truncate(self._start + count * self.layout.record.itemsize)
        self.count = count

    def sync(self) -> None:
        """Wait until the disk has every record."""
        with _disk(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._closing.close()


class Tail:
    """Records of a file that another process may be adding to, in their order, each once."""

    def __init__(self, path: Path, first: int = 0):
        self.layout, self._start = _layout(path)
        self._closing = ExitStack()
        self._file = self._closing.enter_context(_reading(path))
        self.path, self.count = path, first
        """The file, and how many of its records were returned or passed over."""

    def new(self, most: int | None = None) -> Array:
        """Return the whole records, `[N]`, that were added since; at most so many."""
        size = self.layout.record.itemsize
        with read_errors(self.path):
            here = os.fstat(self._file.fileno()).st_size
            count = max(0, (here - self._start) // size - self.count)
            count = min(count, self.layout.block if most is None else most)
            self._file.seek(self._start + self.count * size)
            raw = self._file.read(count * size)
        found = np.frombuffer(raw[: len(raw) // size * size], self.layout.record)
        found = found[: _first_bad(found, self.count)]
        self.count += len(found)
        return found

    def sync(self) -> None:
        """Wait until the disk has what another process has written."""
        with _disk(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._closing.close()


@dataclass(frozen=True)
class Transitions:
    """The records of a file, `[N]`: each field of the layout is an attribute, `[N]` or `[N, dim]`.

    `records` are all of them, as a structured array.
    """

    layout: Layout
    records: Array

    def __len__(self) -> int:
        return len(self.records)

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_") or name not in (self.records.dtype.names or ()):
            raise AttributeError(name)
        return np.asarray(self.records[name])

    def of_seed(self, index: int) -> Transitions:
        """Return those of one seed, by its place among the seeds, in their order."""
        return Transitions(self.layout, self.records[self.records["seed_index"] == index])


def read(path: Path) -> Transitions:
    """Read a file of transitions; what was half written last doesn't count.

    Memory is asked for block by block, for records whose checksums are right.
    Raises DataError when it is missing or damaged.
    """
    layout, blocks = _blocks(path)
    found = list(blocks)
    if not found:
        return Transitions(layout, np.zeros(0, layout.record))
    return Transitions(layout, np.concatenate(found))


def scan(path: Path) -> tuple[Layout, int]:
    """Return what a file's records hold and how many whole ones there are; raise as `read`."""
    layout, blocks = _blocks(path)
    return layout, sum(len(block) for block in blocks)


def _blocks(path: Path) -> tuple[Layout, Iterator[Array]]:
    layout, start = _layout(path)
    return layout, _whole(path, layout, start)


def _whole(path: Path, layout: Layout, start: int) -> Iterator[Array]:
    """Yield the records of a file in blocks, up to a torn end."""
    size, count, torn = layout.record.itemsize, 0, 0
    with _reading(path) as file:
        file.seek(start)
        while True:
            with read_errors(path):
                raw = file.read(layout.block * size)
            records = np.frombuffer(raw[: len(raw) // size * size], layout.record)
            if not len(records):
                return
            good = 0 if torn else _first_bad(records, count)
            rest = records[good:]
            torn += len(rest)
            if torn > MOST_TORN or _any_good(rest, count + good):
                raise DataError(
                    f"{path} is damaged: record {count + good + 1:,} is not what was written (its "
                    "checksum differs). Restore the file from a copy."
                )
            if good:
                yield records[:good]
            count += len(records)


def _layout(path: Path) -> tuple[Layout, int]:
    """Return what a file says that its records hold, checked, and where the first one begins."""
    with _reading(path) as file, read_errors(path):
        line = file.readline(MOST_HEADER_BYTES)
    if not line.endswith(b"\n"):
        raise DataError(f"{path} is damaged: its first line doesn't say what it holds")
    try:
        said = parse_json(line.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    check_content(_Header, said, path)
    layout = Layout(said["obs_dim"], said["action_dim"], tuple(said["seeds"]))
    if line != layout.header():
        raise DataError(
            f"{path} is damaged, or of another version: its records have other fields than "
            f"{', '.join(name for name, _, _ in layout.fields)}"
        )
    return layout, len(line)


def _first_bad(records: Array, first: int) -> int:
    """Return how many records, numbered from `first`, have the right checksum before one hasn't."""
    for i, record in enumerate(records):
        if record[CHECKSUM] != _checksum(record.tobytes(), first + i):
            return i
    return len(records)


def _any_good(records: Array, first: int) -> bool:
    return any(r[CHECKSUM] == _checksum(r.tobytes(), first + i) for i, r in enumerate(records))


def _checksum(record: bytes | memoryview, number: int) -> int:
    """Return the CRC-32 of a record without its own, begun with its number in the file."""
    return zlib.crc32(record[:-4], number & 0xFFFFFFFF)


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    with ExitStack() as closing:
        with read_errors(path):
            file = closing.enter_context(opened(path))
        yield file


@contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    with ExitStack() as closing:
        with _disk(path):
            file = closing.enter_context(marked(path))
        yield file


def _disk(path: Path) -> Any:
    return disk_errors(f"write {path}")

"""A file that only grows: a line of JSON that says what it holds, and records of one size.

Each record has a checksum of its own. Whatever kills the process that writes them, the records
before are whole; what was half written last is dropped when the file is opened.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from baq_cli.errors import DataError
from baq_cli.plain_files import marked, opened, replaced, sync_folder
from baq_cli.runs.files import disk_errors, parse_json, read_errors

Array = npt.NDArray[Any]
Kind = np.dtype[np.void]
MOST_HEADER_BYTES = 10**6
BLOCK_BYTES = 2**22
"""Read at once, or one record where that is more."""
MOST_TORN = 4_096
"""Records at the end that a failure of power may have torn; more are damage."""
CHECKSUM = "checksum"


def record_of(fields: list[tuple[str, str, int]]) -> Kind:
    """Return the type of a record as it lies in a file, its checksum last.

    Fields are named, with their type and how many numbers, 0 for one that is no array.
    """
    named = [(name, kind, (count,)) if count else (name, kind) for name, kind, count in fields]
    return np.dtype([*named, (CHECKSUM, "<u4")])


class RecordFile:
    """A file of records that grows at its end; `count` is how many whole ones there are."""

    def __init__(self, path: Path, header: bytes, record: Kind, count: int = 0):
        self.path, self.count = path, count
        self._start, self._empty = len(header), np.zeros((), record)
        self._record = self._empty.copy()
        self._closing = ExitStack()
        with _disk(path):
            self._file = self._closing.enter_context(marked(path))

    @staticmethod
    def begin(path: Path, header: bytes) -> None:
        """Write a file without records, in place of one that may be there."""
        with _disk(path), replaced(path) as file:
            file.write(header)
        with _disk(path):
            sync_folder(path.parent)

    def append(self, **fields: Any) -> None:
        """Add a record, by its fields; those that aren't given are 0.

        It is the system's when this returns, so that no end of this process can lose it; the disk
        has it after `sync`.
        """
        record = self._record
        record[()] = self._empty
        for name, value in fields.items():
            record[name] = value
        record[CHECKSUM] = _checksum(record.tobytes(), self.count)
        with _disk(self.path):
            self._file.write(record.tobytes())
            self._file.flush()
        self.count += 1

    def extend(self, records: Array) -> None:
        """Add records `[N]` of the file's type together, as `append` does one.

        Their checksums are filled in.
        """
        size, raw = records.itemsize, memoryview(records.tobytes())
        records[CHECKSUM] = [
            _checksum(raw[i * size : (i + 1) * size], self.count + i) for i in range(len(records))
        ]
        with _disk(self.path):
            self._file.write(records.tobytes())
            self._file.flush()
        self.count += len(records)

    def cut(self, count: int) -> None:
        """Drop all records but the first `count`, and what was half written after them.

        Raises DataError when there are fewer.
        """
        if count > self.count:
            raise DataError(
                f"{self.path} has {self.count:,} records, and a checkpoint knows of {count:,}: it "
                "is not what was written. Restore it from a copy."
            )
        with _disk(self.path):
            self._file.truncate(self._start + count * self._record.itemsize)
        self.count = count

    def sync(self) -> None:
        """Wait until the disk has every record."""
        with _disk(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._closing.close()


class RecordTail:
    """Records of a file that another process may be adding to, in their order, each once.

    `count` is how many were returned or passed over.
    """

    def __init__(self, path: Path, header: bytes, record: Kind, first: int = 0):
        self.path, self.count = path, first
        self._start, self._record = len(header), record
        self._closing = ExitStack()
        with read_errors(path):
            self._file = self._closing.enter_context(opened(path))

    def new(self, most: int | None = None) -> Array:
        """Return the whole records, `[N]`, that were added since; at most so many."""
        size = self._record.itemsize
        with read_errors(self.path):
            here = os.fstat(self._file.fileno()).st_size
            count = max(0, (here - self._start) // size - self.count)
            count = min(count, _block(self._record) if most is None else most)
            if not count:
                return np.zeros(0, self._record)
            self._file.seek(self._start + self.count * size)
            raw = self._file.read(count * size)
        found = np.frombuffer(raw[: len(raw) // size * size], self._record)
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


def read_header(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the first line of a file, and what it says; raises DataError where it is none."""
    with read_errors(path), opened(path) as file:
        line = file.readline(MOST_HEADER_BYTES)
    if not line.endswith(b"\n"):
        raise DataError(f"{path} is damaged: its first line doesn't say what it holds")
    try:
        return line, parse_json(line.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: {error}") from error


def whole_records(path: Path, header: bytes, record: Kind) -> Iterator[Array]:
    """Yield the records of a file in blocks, up to a torn end.

    Memory is asked for block by block, for records whose checksums are right.
    Raises DataError when it is missing or damaged.
    """
    count = torn = 0
    with _reading(path) as file:
        file.seek(len(header))
        while len(records := _next(file, path, record)):
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


def _next(file: IO[bytes], path: Path, record: Kind) -> Array:
    with read_errors(path):
        raw = file.read(_block(record) * record.itemsize)
    return np.frombuffer(raw[: len(raw) // record.itemsize * record.itemsize], record)


def _block(record: Kind) -> int:
    """Return how many records are read at once."""
    return max(1, BLOCK_BYTES // record.itemsize)


def _first_bad(records: Array, first: int) -> int:
    """Return how many records, numbered from `first`, have the right checksum before one hasn't."""
    for i, right in enumerate(_right(records, first)):
        if not right:
            return i
    return len(records)


def _any_good(records: Array, first: int) -> bool:
    return any(_right(records, first))


def _right(records: Array, first: int) -> Iterator[bool]:
    """Yield for each record, numbered from `first`, whether its checksum is right."""
    raw, size = memoryview(records.tobytes()), records.itemsize
    for i, said in enumerate(records[CHECKSUM].tolist()):
        yield said == _checksum(raw[i * size : (i + 1) * size], first + i)


def _checksum(record: bytes | memoryview, number: int) -> int:
    """Return the CRC-32 of a record without its own, begun with its number in the file."""
    return zlib.crc32(record[:-4], number & 0xFFFFFFFF)


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    with ExitStack() as closing:
        with read_errors(path):
            file = closing.enter_context(opened(path))
        yield file


def _disk(path: Path) -> AbstractContextManager[None]:
    return disk_errors(f"write {path}")

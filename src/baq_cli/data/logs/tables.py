"""Logs as arrays by name: .npz and .csv, their columns named by a mapping or by custom."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.columns import Columns, check_names, to_columns, to_log_file, wanted
from baq_cli.data.logs.filecard import parse_card
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import Mapping
from baq_cli.data.sizes import Claims
from baq_cli.errors import DataError, clipped
from baq_cli.plain_files import opened

Array = npt.NDArray[Any]
CARD = "baq"
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, NotImplementedError),
    *(RuntimeError, zlib.error, zipfile.BadZipFile),
)
"""What NumPy and pyarrow raise for files that are damaged."""


def read_npz(path: Path, mapping: Mapping | None) -> LogFile:
    """Read an .npz archive of arrays `[N]` or `[N, D]`. Nothing is unpickled.

    Raises DataError when it is damaged.
    """
    try:
        _check_archive(path)
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        with archive:
            names = [name for name in archive.files if name != CARD]
            arrays = {name: archive[name] for name in wanted(names, mapping)}
            card = parse_card(str(archive[CARD])) if CARD in archive.files else None
    except UNREADABLE as error:
        raise DataError(f"can't be read as an .npz archive: {error}") from error
    return to_log_file(Columns(dict.fromkeys(names) | arrays), mapping, card)


def _check_archive(path: Path) -> None:
    """Raise ValueError where arrays claim far more than the archive, or their entry, could hold."""
    claims = Claims(path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            claims.add(entry.file_size)
            with archive.open(entry) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
            if dtype.hasobject or not dtype.itemsize:
                raise ValueError(f"'{entry.filename}' holds objects, or nothing: {dtype}")
            if math.prod(shape) * dtype.itemsize > entry.file_size:
                raise ValueError(f"'{entry.filename}' claims the shape {list(shape)}, and is short")


def read_csv(path: Path, mapping: Mapping | None) -> LogFile:
    """Read a .csv file with a header. Empty cells are NaN; true and false are 1 and 0.

    Raises DataError for rows of another length than the header's, and for words among numbers.
    """
    rows, lines = [], []
    try:
        with (
            opened(path, follow=True) as plain,
            io.TextIOWrapper(plain, newline="", encoding="utf-8-sig") as file,
        ):
            reader = csv.reader(file)
            header = next(reader, [])
            check_names(header)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"can't be read as a .csv file: {error}") from error
    if not header or not rows:
        raise DataError("it holds no rows; expected a header and a row a step")
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise DataError(f"the header has '{twice[0]}' twice")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise DataError(f"line {line} has {len(row)} cells, the header has {len(header)}")
    words = dict(zip(header, zip(*rows, strict=True), strict=True))
    columns = Columns(words, lambda name, cells: _csv_column(name, cells, lines), _csv_numbered)
    return to_log_file(columns, mapping, None)


_WORDS = {"": np.nan, "true": 1.0, "false": 0.0}
MOST_DIGITS = 1_000
"""Letters of a cell that is a number; reading longer ones takes time."""


def _csv_column(name: str, cells: tuple[str, ...], lines: list[int]) -> Array:
    """Return cells as numbers, one by one: an array of words is as wide as the longest of them."""
    out = np.empty(len(cells))
    for number, cell in enumerate(cells):
        word = cell if len(cell) <= MOST_DIGITS else "long"
        try:
            out[number] = float(word)
        except ValueError:
            word = word.strip().lower()
            if word not in _WORDS:
                raise DataError(
                    f"column '{name}' has '{clipped(cell)}' in line {lines[number]}; expected a "
                    "number"
                ) from None
            out[number] = _WORDS[word]
    return out


def _csv_numbered(name: str, cells: tuple[str, ...]) -> Array:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(cell, len(numbers)) for cell in cells])


# -- a log to a file


def write_npz(file: LogFile, card: dict[str, Any], out: IO[bytes]) -> None:
    """Write rows as an .npz archive of one array a field, compressed."""
    resets = {f"reset_infos/{name}": info for name, info in file.reset_infos.items()}
    text = np.asarray(json.dumps(card))
    arrays: dict[str, Any] = {**to_columns(file), **resets, CARD: text}
    np.savez_compressed(out, **arrays)

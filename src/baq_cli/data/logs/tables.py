"""Logs as arrays by name: .npz archives, their columns named by a mapping or by custom."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.by_name import Columns, check_names
from baq_cli.data.logs.columns import beside, is_info, to_columns, to_log_file, wanted
from baq_cli.data.logs.filecard import parse_card
from baq_cli.data.logs.layouts import with_own_rewards
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import Mapping
from baq_cli.data.sizes import Claims
from baq_cli.errors import DataError

Array = npt.NDArray[Any]
CARD = "baq"
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, NotImplementedError),
    *(RuntimeError, zlib.error, zipfile.BadZipFile),
)
"""What NumPy and pyarrow raise for files that are damaged."""


def read_npz(path: Path, mapping: Mapping | None) -> LogFile:
    """Read an .npz archive of arrays `[N]` or `[N, D]`. Nothing is unpickled.

    What isn't needed isn't read, and may hold anything.
    Raises DataError when it is damaged.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        with archive:
            names = [name for name in archive.files if name != CARD]
            check_names(names)
            mapping = with_own_rewards(mapping, names)
            needed = _readable(path, wanted(names, mapping))
            card = parse_card(str(archive[CARD])) if CARD in archive.files else None
            clues = [name for name in beside(names, mapping, card) if name not in needed]
            needed += _readable(path, clues, may_be_odd=True)
            arrays = {name: archive[name] for name in needed}
    except UNREADABLE as error:
        raise DataError(f"can't be read as an .npz archive: {error}") from error
    return to_log_file(Columns(dict.fromkeys(names) | arrays), mapping, card)


def read_arrays(path: Path, names: list[str]) -> dict[str, Array]:
    """Return the arrays of an .npz archive that have these names, as far as it has them.

    Nothing else in it is read, and nothing is unpickled. Raises DataError when it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in _readable(path, names)}
    except UNREADABLE as error:
        raise DataError(f"{path} can't be read as an .npz archive: {error}") from error
    return found


def _readable(path: Path, needed: list[str], may_be_odd: bool = False) -> list[str]:
    """Return the names of arrays that can be read: without infos that are no numbers.

    `may_be_odd`: nothing asks for the others either; theirs may be words.

    Raises ValueError where arrays claim far more than the archive, or their entry, could hold.
    """
    claims = Claims(path.stat().st_size)
    found = []
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        for name in [*needed, CARD]:
            same = [e for e in entries if e.filename in (name, f"{name}.npy")]
            if len(same) > 1 and may_be_odd:
                continue
            if len(same) > 1:
                raise ValueError(f"it has '{name}' twice")
            odd = "fiubUS" if may_be_odd else "fiub" if is_info(name) else None
            if not same or not _check_entry(archive, same[0], claims, odd):
                continue
            found.append(name)
    return [name for name in found if name != CARD]


def _check_entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, claims: Claims, kinds: str | None
) -> bool:
    """Return whether an array can be read; see `_readable`.

    `kinds` are the types that one may have which nothing asks for; None: it is asked for.
    """
    try:
        with archive.open(entry) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, _, dtype = read(member)
    except UNREADABLE:
        if kinds is not None:
            return False
        raise
    if dtype.hasobject or not dtype.itemsize or (kinds is not None and dtype.kind not in kinds):
        if kinds is not None:
            return False
        raise ValueError(f"'{entry.filename}' holds objects, or nothing: {dtype}")
    claims.add(entry.file_size)
    if math.prod(shape) * dtype.itemsize > entry.file_size:
        raise ValueError(f"'{entry.filename}' claims the shape {list(shape)}, and is short")
    return True


# -- a log to a file


def write_npz(file: LogFile, card: dict[str, Any], out: IO[bytes]) -> None:
    """Write rows as an .npz archive of one array a field, compressed."""
    resets = {f"reset_infos/{name}": info for name, info in file.reset_infos.items()}
    text = np.asarray(json.dumps(card))
    arrays: dict[str, Any] = {**to_columns(file), **resets, CARD: text}
    np.savez_compressed(out, **arrays)

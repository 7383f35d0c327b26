"""Logs as tables: .npz, .parquet and .csv, their columns named by a mapping or by custom."""

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

from baq_cli.data.hdf5 import Claims
from baq_cli.data.logs.columns import Columns, to_columns, to_log_file
from baq_cli.data.logs.filecard import Card, parse_card
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import Mapping
from baq_cli.errors import DataError, UsageError
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
            arrays = {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise DataError(f"can't be read as an .npz archive: {error}") from error
    card = parse_card(str(arrays.pop(CARD))) if CARD in arrays else None
    return to_log_file(Columns(arrays), mapping, card)


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
            if math.prod(shape) * dtype.itemsize > entry.file_size:
                raise ValueError(f"'{entry.filename}' claims the shape {list(shape)}, and is short")


def _check_table(metadata: Any, path: Path) -> None:
    """Raise ValueError where columns claim far more than the file could hold."""
    claims = Claims(path.stat().st_size)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(k) for k in range(group.num_columns)]
        flat = group.num_rows * len(columns)
        claims.add(max(flat, sum(column.total_uncompressed_size for column in columns)))


def read_parquet(path: Path, mapping: Mapping | None) -> LogFile:
    """Read a .parquet table of columns of numbers, or of lists of as many numbers in each row.

    Raises DataError when it is damaged, UsageError when pyarrow is missing.
    """
    parquet = _pyarrow()
    import pyarrow

    try:
        _check_table(parquet.ParquetFile(path).metadata, path)
        table = parquet.read_table(path)
        values = {name: table.column(name) for name in table.column_names}
        card_text = (table.schema.metadata or {}).get(CARD.encode())
    except (*UNREADABLE, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0].replace(f" '{path}'", "")
        raise DataError(f"can't be read as a .parquet table: {reason}") from error
    if card_text is None:
        return to_log_file(Columns(values, _arrow_column), mapping, None)
    card = parse_card(card_text.decode("utf-8", errors="replace"))
    arrays = {name: _arrow_column(name, value) for name, value in values.items()}
    return to_log_file(Columns(_gathered(arrays, card)), mapping, card)


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
    columns = Columns(words, lambda name, cells: _csv_column(name, cells, lines))
    return to_log_file(columns, mapping, None)


_WORDS = {"": np.nan, "true": 1.0, "false": 0.0}


def _csv_column(name: str, cells: tuple[str, ...], lines: list[int]) -> Array:
    try:
        return np.asarray(cells).astype(np.float64)
    except ValueError:
        pass
    out = np.empty(len(cells))
    for number, cell in enumerate(cells):
        try:
            word = cell.strip().lower()
            out[number] = _WORDS[word] if word in _WORDS else float(word)
        except ValueError as error:
            raise DataError(
                f"column '{name}' has '{cell}' in line {lines[number]}; expected a number"
            ) from error
    return out


def _arrow_column(name: str, column: Any) -> Array:
    """Return an Arrow column as numbers; what is null is NaN."""
    from pyarrow import types

    if any(is_list(column.type) for is_list in (types.is_fixed_size_list, types.is_list)) or (
        types.is_large_list(column.type)
    ):
        lists = column.to_pylist()
        if len({len(values) if values is not None else -1 for values in lists}) != 1:
            raise DataError(f"column '{name}' has lists of different lengths")
        return np.asarray(lists)
    if types.is_boolean(column.type) and column.null_count:
        return np.asarray([np.nan if v is None else float(v) for v in column.to_pylist()])
    return np.asarray(column.to_numpy())


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(".parquet files need pyarrow: pip install 'baq-cli[parquet]'") from error
    return pyarrow.parquet


# -- a log to a file


def write_npz(file: LogFile, card: dict[str, Any], out: IO[bytes]) -> None:
    """Write rows as an .npz archive of one array a field, compressed."""
    resets = {f"reset_infos/{name}": info for name, info in file.reset_infos.items()}
    text = np.asarray(json.dumps(card))
    arrays: dict[str, Any] = {**to_columns(file), **resets, CARD: text}
    np.savez_compressed(out, **arrays)


def write_parquet(file: LogFile, card: dict[str, Any], out: IO[bytes]) -> None:
    """Write rows as a .parquet table: a column a number, `observations.0` and so on."""
    parquet = _pyarrow()
    import pyarrow

    log = file.log
    assert log.episode is not None
    columns = {
        **to_columns(file),
        **{f"reset_infos/{name}": info[log.episode] for name, info in file.reset_infos.items()},
    }
    single = {name: column for name, column in columns.items() if column.ndim == 1}
    spread = {}
    for name, column in columns.items():
        if column.ndim > 1:
            flat = column.reshape(len(column), -1)
            names = [_unused(f"{name}.{k}", {*columns, *single}) for k in range(flat.shape[1])]
            single.update(zip(names, flat.T, strict=True))
            spread[name] = {"shape": list(column.shape[1:]), "columns": names}
    table = pyarrow.table(single)
    text = json.dumps({**card, "spread": spread})
    parquet.write_table(table.replace_schema_metadata({CARD: text}), out)


def _unused(name: str, taken: set[str]) -> str:
    """Return the name, lengthened where an array of its own is called so."""
    while name in taken:
        name += "_"
    return name


def _gathered(columns: dict[str, Array], card: Card) -> dict[str, Array]:
    """Put the columns of an exported array together again."""
    rest = dict(columns)
    try:
        for name, place in card.spread.items():
            flat = np.stack([rest.pop(column) for column in place.columns], axis=1)
            rest[name] = flat.reshape(len(flat), *place.shape)
    except (KeyError, ValueError) as error:
        raise DataError(f"the table and its card don't fit each other: {error}") from error
    return rest

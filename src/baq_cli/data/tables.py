"""Logs as tables: .npz, .parquet and .csv, their columns named by a mapping or by custom."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.columns import Columns, to_columns, to_log_file
from baq_cli.data.logfile import LogFile, parse_card
from baq_cli.data.mapping import Mapping
from baq_cli.errors import DataError, UsageError

Array = npt.NDArray[Any]
CARD = "baq"


def read_npz(path: Path, mapping: Mapping | None) -> LogFile:
    """Read an .npz archive of arrays `[N]` or `[N, D]`. Nothing is unpickled.

    Raises DataError when it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path} as an .npz archive: {error}") from error
    card = parse_card(str(arrays.pop(CARD))) if CARD in arrays else {}
    return to_log_file(path, arrays, mapping, card)


def read_parquet(path: Path, mapping: Mapping | None) -> LogFile:
    """Read a .parquet table of columns of numbers, or of lists of as many numbers in each row.

    Raises DataError when it is damaged, UsageError when pyarrow is missing.
    """
    parquet = _pyarrow()
    import pyarrow

    try:
        table = parquet.read_table(path)
        arrays = {name: _arrow_column(table.column(name)) for name in table.column_names}
        card_text = (table.schema.metadata or {}).get(CARD.encode())
    except (OSError, ValueError, TypeError, MemoryError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"cannot read {path} as a .parquet table: {reason}") from error
    card = {} if card_text is None else parse_card(card_text.decode("utf-8", errors="replace"))
    return to_log_file(path, _gathered(arrays, card), mapping, card)


def read_csv(path: Path, mapping: Mapping | None) -> LogFile:
    """Read a .csv file with a header. Empty cells are NaN; true and false are 1 and 0.

    Raises DataError for rows of another length than the header's, and for words among numbers.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [row for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path} as a .csv file: {error}") from error
    if not header or not rows:
        raise DataError(f"{path} holds no rows; expected a header and a row a step")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(
                f"{path}: line {number} has {len(row)} cells, the header has {len(header)}"
            )
    words = dict(zip(header, zip(*rows, strict=True), strict=True))
    arrays = _Lazy(words, lambda name: _csv_column(path, name, words[name]))
    return to_log_file(path, arrays, mapping, {})


class _Lazy(dict[str, Any]):
    """Columns that are turned into numbers when they are asked for: others may hold words."""

    def __init__(self, words: dict[str, Any], convert: Callable[[str], Array]):
        super().__init__(words)
        self._convert = convert

    def __getitem__(self, name: str) -> Array:
        return self._convert(name)


_WORDS = {"": np.nan, "true": 1.0, "false": 0.0}


def _csv_column(path: Path, name: str, cells: tuple[str, ...]) -> Array:
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
                f"{path}: column '{name}' has '{cell}' in line {number + 2}; expected a number"
            ) from error
    return out


def _arrow_column(column: Any) -> Array:
    import pyarrow

    if pyarrow.types.is_fixed_size_list(column.type) or pyarrow.types.is_list(column.type):
        lists = column.to_pylist()
        if len({len(values) if values is not None else -1 for values in lists}) != 1:
            raise ValueError("a column of lists has lists of different lengths")
        return np.asarray(lists)
    return np.asarray(column.to_numpy())


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(".parquet files need pyarrow: pip install 'baq-cli[parquet]'") from error
    return pyarrow.parquet


# -- a log to a file


def write_npz(file: LogFile, path: Path) -> None:
    """Write rows as an .npz archive of one array a field, compressed."""
    resets = {f"reset_infos/{name}": info for name, info in file.reset_infos.items()}
    card = np.asarray(json.dumps(file.card))
    arrays: dict[str, Any] = {**to_columns(file), **resets, CARD: card}
    with path.open("wb") as out:
        np.savez_compressed(out, **arrays)


def write_parquet(file: LogFile, path: Path) -> None:
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
    card = json.dumps({**file.card, "spread": spread})
    parquet.write_table(table.replace_schema_metadata({CARD: card}), path)


def _unused(name: str, taken: set[str]) -> str:
    """Return the name, lengthened where an array of its own is called so."""
    while name in taken:
        name += "_"
    return name


def _gathered(columns: Columns, card: dict[str, Any]) -> Columns:
    """Put the columns of an exported array together again."""
    rest = dict(columns)
    try:
        for name, place in card.get("spread", {}).items():
            flat = np.stack([rest.pop(column) for column in place["columns"]], axis=1)
            rest[name] = flat.reshape(len(flat), *place["shape"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"the table and its card don't fit each other: {error}") from error
    return rest

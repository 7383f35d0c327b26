"""Logs as .parquet tables: columns of numbers, or of lists of as many numbers in each row."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.by_name import Columns, check_names, check_numbered, label_of, named_alike
from baq_cli.data.logs.columns import (
    beside,
    episode_column,
    is_info,
    to_columns,
    to_log_file,
    wanted,
)
from baq_cli.data.logs.ends.clues import as_number, may_be_words
from baq_cli.data.logs.filecard import Card, parse_card
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import Mapping
from baq_cli.data.logs.parquet_claims import check_claims
from baq_cli.data.logs.tables import CARD, UNREADABLE
from baq_cli.data.sizes import Claims
from baq_cli.errors import DataError, UsageError
from baq_cli.plain_files import opened

Array = npt.NDArray[Any]
MOST_DIGITS = 20
"""Of a number in a table's metadata."""


def read_parquet(path: Path, mapping: Mapping | None) -> LogFile:
    """Read a .parquet table of columns of numbers, or of lists of as many numbers in each row.

    What isn't needed isn't read. A column of words is read as one of numbers, with a dictionary.
    Raises DataError when it is damaged, UsageError when pyarrow is missing.
    """
    parquet = _pyarrow()
    import pyarrow

    try:
        with opened(path, follow=True) as source, parquet.ParquetFile(source) as file:
            schema = file.schema_arrow
            text = (schema.metadata or {}).get(CARD.encode())
            card = None if text is None else parse_card(text.decode("utf-8", errors="replace"))
            needed, number = _needed(schema.names, mapping, card)
            needed = [name for name in needed if _is_readable(schema, name, name == number)]
            said = {} if mapping is None else mapping.said
            words = [n for n in schema.names if n == number or may_be_words(n, said)]
            clues = [n for n in beside(schema.names, mapping, card) if n not in needed]
            needed += [name for name in clues if _is_clue(schema, name, name in words)]
            check_claims(file.metadata, needed, path)
            numbers = _counts(schema.metadata or {})
        with (
            opened(path, follow=True) as source,
            parquet.ParquetFile(source, read_dictionary=words or None) as file,
        ):
            table = file.read(columns=needed, use_threads=False)
            values = {name: table.column(name) for name in needed}
    except (*UNREADABLE, pyarrow.ArrowException) as error:
        raise _unreadable(error, path) from error
    if card is None:
        every = dict.fromkeys(schema.names) | values
        return to_log_file(Columns(every, _numbers, _numbered, _label), mapping, None, numbers)
    arrays = {name: _numbers(name, value) for name, value in values.items()}
    return to_log_file(Columns(_gathered(arrays, card)), mapping, card)


def read_columns(
    path: Path, needed: Sequence[str], claims: Claims | None = None
) -> dict[str, Array]:
    """Read columns of numbers `[N, ...]` by their names, and no others.

    `claims` are those of all the tables that this one is read with.

    Raises DataError when one isn't there or is damaged, UsageError when pyarrow is missing.
    """
    parquet = _pyarrow()
    import pyarrow

    try:
        with opened(path, follow=True) as source, parquet.ParquetFile(source) as file:
            check_names(file.schema_arrow.names)
            missing = [name for name in needed if name not in file.schema_arrow.names]
            if missing:
                raise ValueError(f"it has no column '{missing[0]}'")
            for name in needed:
                _is_readable(file.schema_arrow, name, may_be_words=False)
            check_claims(file.metadata, list(needed), path, claims)
            table = file.read(columns=list(needed), use_threads=False)
            return {name: _numbers(name, table.column(name)) for name in needed}
    except (*UNREADABLE, pyarrow.ArrowException) as error:
        raise _unreadable(error, path) from error


def _unreadable(error: Exception, path: Path) -> DataError:
    reason = str(error).splitlines()[0].replace(f" '{path}'", "")
    return DataError(f"can't be read as a .parquet table: {reason}")


def _is_clue(schema: Any, name: str, may_be_words: bool) -> bool:
    """Return whether a column that nothing asks for can be read."""
    with contextlib.suppress(ValueError):
        return _is_readable(schema, name, may_be_words)
    return False


def _counts(metadata: dict[bytes, bytes]) -> dict[str, int]:
    """Return the numbers in a table's metadata that count episodes or steps."""
    found = {}
    for key, value in metadata.items():
        name = key.decode("utf-8", errors="replace")
        number = as_number(name, value) if len(value) <= MOST_DIGITS else None
        if number is not None:
            found[name] = number
    return found


def _needed(
    names: list[str], mapping: Mapping | None, card: Card | None
) -> tuple[list[str], str | None]:
    """Return which columns are read, and which of them may hold words: that of the episodes."""
    check_names(names)
    if card is None:
        number = episode_column(names, mapping)
        return wanted(names, mapping), number
    spread = {column for place in card.spread.values() for column in place.columns}
    missing = sorted(spread - set(names))
    if missing:
        raise DataError(f"the table and its card don't fit each other: there is no '{missing[0]}'")
    whole = [name for name in names if name not in spread]
    return [*sorted(spread), *wanted(whole, mapping)], None


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_readable(schema: Any, name: str, may_be_words: bool) -> bool:
    """Return whether a column can be read; infos that can't are left out.

    Raises ValueError for what is neither numbers nor, where they will do, words, and for a name
    that several columns have.
    """
    from pyarrow import types

    if len(schema.get_all_field_indices(name)) > 1:
        raise ValueError(f"the table has '{name}' twice, and it is asked for")
    kind = schema.field(name).type
    inner = _stored(kind)
    while _is_list(inner):
        inner = _stored(inner.value_type)
    if types.is_dictionary(inner):
        inner = inner.value_type
    numeric = types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)
    words = may_be_words and not types.is_nested(inner)
    if not (numeric or words or is_info(name)):
        raise ValueError(f"column '{name}' is of type {kind}; expected numbers")
    return numeric or words


def _stored(kind: Any) -> Any:
    """Return the type that a type of Arrow's extensions (a tensor's) is stored in."""
    import pyarrow

    return kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind


def _numbers(name: str, column: Any) -> Array:
    """Return an Arrow column as numbers; what is null is NaN."""
    import pyarrow
    from pyarrow import compute, types

    shape: list[int] | None = None
    if isinstance(column.type, pyarrow.FixedShapeTensorType):
        if column.type.permutation not in (None, list(range(len(column.type.shape)))):
            raise DataError(f"column '{name}' has tensors whose axes are turned: store them as is")
        shape = column.type.shape
    if isinstance(column.type, pyarrow.BaseExtensionType):
        stored = [chunk.storage for chunk in column.chunks]
        column = pyarrow.chunked_array(stored, column.type.storage_type)
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not _is_list(column.type):
        if types.is_boolean(column.type) and column.null_count:
            column = column.cast("float64")
        return np.asarray(column.to_numpy())
    lengths = compute.min_max(compute.list_value_length(column)).as_py()
    if column.null_count or lengths["min"] != lengths["max"]:
        raise DataError(f"column '{name}' has lists of different lengths")
    inner = _numbers(name, compute.list_flatten(column))
    return inner.reshape(len(column), *(shape or (lengths["max"] or 0, *inner.shape[1:])))


def _label(name: str, column: Any, row: int) -> str:
    return label_of(column[row if row >= 0 else len(column) + row].as_py())


def _numbered(name: str, column: Any) -> Array:
    """Return a number for each value of an Arrow column, the same for the same value."""
    import pyarrow

    if _is_list(column.type):
        return _numbers(name, column)
    if column.null_count:
        check_numbered(name, np.asarray(column.is_null()))
    if not pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    parts = column.unify_dictionaries().chunks
    if not parts:
        return np.empty(0, np.int64)
    words = parts[0].dictionary.to_pylist()
    return named_alike(words, np.concatenate([part.indices.to_numpy() for part in parts]))


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(".parquet files need pyarrow: pip install 'baq-cli[parquet]'") from error
    return pyarrow.parquet


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

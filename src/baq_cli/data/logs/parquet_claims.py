"""What the columns of a Parquet file claim, read from its footer before any of them is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from baq_cli.data.sizes import Claims

SIZES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a value, by Parquet's names."""
INDEX_BYTES = 4
"""Of a word, beside the dictionary."""


def check_claims(
    metadata: Any, needed: list[str], path: Path, claims: Claims | None = None
) -> None:
    """Raise ValueError where columns that are read claim far more than the file could hold.

    Arrow reads a column with every one whose name goes on behind a dot.
    """
    claims = claims or Claims(path.stat().st_size)
    read = set(needed)
    leaves = [metadata.schema.column(k) for k in range(metadata.num_columns)]
    sizes = {k: _size_of(leaf) for k, leaf in enumerate(leaves) if read & _above(leaf.path)}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for k, size in sizes.items():
            column = group.column(k)
            claims.add(
                max(
                    group.num_rows,
                    column.num_values * (size or INDEX_BYTES),
                    column.total_uncompressed_size,
                )
            )


def _above(path: str) -> set[str]:
    """Return a leaf's path and every beginning of it that ends before a dot."""
    parts = path.split(".")
    return {".".join(parts[: k + 1]) for k in range(len(parts))}


def _size_of(column: Any) -> int:
    kind = column.physical_type
    return int(column.length) if kind == "FIXED_LEN_BYTE_ARRAY" else SIZES.get(kind, 0)

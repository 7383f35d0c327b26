"""The CSVs of a run: what is in them, and whether it is still what was written."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from baq_cli.plain_files import MOST_LOG, appended, opened, read
from baq_cli.runs.files import disk_errors, replace_file
from baq_cli.units import UNITS

METRICS = (
    "phase",
    "seed",
    "gradient_steps",
    "env_steps",
    "episodes",
    "return_mean",
    "return_std",
    "length_env_steps",
    "evaluation_episodes",
    "wall_seconds",
)
LENGTH = "length_env_steps"
COUNTERS = ("seed", "gradient_steps", "env_steps", "episodes", "evaluation_episodes")
DIAGNOSTICS = ("phase", "seed", "gradient_steps", "env_steps", "name", "value")
Source = Literal["evaluation", "estimate"]
SOURCE, SOURCES = "source", get_args(Source)
"""The column of metrics that says where a return is from: episodes that were played, or an estimate
from the dataset (discounted, and without a length). A row without it is of an evaluation."""
Log = Literal["metrics", "diagnostics"]
LOGS: dict[Log, tuple[str, ...]] = {"metrics": (*METRICS, SOURCE), "diagnostics": DIAGNOSTICS}
MOST_SCORE = 1e30
"""The size of a return: whatever is computed of smaller ones is finite."""

Row = dict[str, Any]
Seal = dict[str, Any]
"""A file as it once was: its length in `bytes`, and its `sha256` up to there."""


class RunLog:
    """A CSV that grows at its end and knows what it was given, whatever becomes of the file."""

    def __init__(self, path: Path, header: Sequence[str]):
        self.path = path
        self._header = header
        self._bytes = 0
        self._digest = hashlib.sha256()
        self._seals: list[Seal] = []

    def begin(self) -> None:
        """Start the file, with a header alone."""
        self._write(_csv_bytes([self._header]))

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        content = _rows_bytes(self._header, rows)
        with disk_errors(f"write {self.path}"), appended(self.path) as file:
            file.write(content)
        self._note(content)

    def synced(self) -> Seal:
        """Wait until the disk has the file; return its seal."""
        with disk_errors(f"write {self.path}"), opened(self.path) as file:
            os.fsync(file.fileno())
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def seal(self) -> Seal:
        """Return the seal of the synced file for a checkpoint to remember.

        With it go, as `earlier`, those at the checkpoints before.
        """
        seal = self.synced()
        earlier = [before for before in self._seals if before["bytes"] < self._bytes]
        self._seals = [*earlier, seal]
        return seal | {"earlier": earlier}

    def restore(self, known: dict[str, Any], rows: Sequence[Row] = ()) -> str | None:
        """Take the file back to where it was at a checkpoint, which knows its seals.

        Where it is no longer what was written, it is written anew from `rows`; without any, what a
        checkpoint before knew is kept. Returns what was done then, in words. The columns stay those
        that the file was begun with: an earlier version may have had fewer.
        """
        content, mended = _as_it_was(self.path, known), None
        if len(content) < known["bytes"]:
            mended = "written anew from the checkpoint" if rows else "begun anew"
            if content and not rows:
                mended = f"{len(content.splitlines()) - 1} lines are kept"
            else:
                content = _csv_bytes([self._header]) + _rows_bytes(self._header, rows)
        self._header = next(csv.reader([content.partition(b"\n")[0].decode()]), self._header)
        self._write(content)
        self._seals = [seal for seal in _seals(known) if seal["bytes"] <= len(content)]
        return mended

    def _write(self, content: bytes) -> None:
        replace_file(self.path, content)
        self._bytes, self._digest = 0, hashlib.sha256()
        self._note(content)

    def _note(self, content: bytes) -> None:
        self._bytes += len(content)
        self._digest.update(content)


def _as_it_was(path: Path, known: dict[str, Any]) -> bytes:
    """Return a CSV's content at a checkpoint, or as much of it as one before knew."""
    try:
        content = read(path, MOST_LOG)
    except FileNotFoundError:
        return b""
    digest, hashed, good = hashlib.sha256(), 0, 0
    for seal in _seals(known):
        digest.update(content[hashed : seal["bytes"]])
        hashed = seal["bytes"]
        if digest.hexdigest() == seal["sha256"]:
            good = hashed
    return content[:good]


def _seals(known: dict[str, Any]) -> list[Seal]:
    """Return what a checkpoint knows of a CSV, the shortest first."""
    seal = {key: known[key] for key in ("bytes", "sha256")}
    return sorted([*known.get("earlier", ()), seal], key=lambda each: int(each["bytes"]))


def parse_metrics(content: bytes, ended: bool) -> list[Row]:
    """Return the rows of a metrics.csv, numbers as numbers.

    Of a run that goes on, or was killed, a last line that is half written doesn't count.
    Raises ValueError when it has other columns or values.
    """
    if not ended:
        content = content[: content.rfind(b"\n") + 1]
    try:
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)
        if not set(METRICS) <= set(rows.fieldnames or ()):
            raise ValueError(f"its columns are {rows.fieldnames}")
        return [_numbers(row) for row in rows]
    except (TypeError, csv.Error) as error:
        raise ValueError(str(error)) from error


def _numbers(row: dict[str, Any]) -> Row:
    if None in row or None in row.values():
        raise ValueError(f"a line has more or fewer cells than the header: {list(row.values())}")
    if row["phase"] not in UNITS:
        raise ValueError(f"a phase is '{row['phase']}', expected one of {', '.join(UNITS)}")
    source = row.get(SOURCE, SOURCES[0])
    if source not in SOURCES:
        raise ValueError(f"a {SOURCE} is '{source}', expected one of {', '.join(SOURCES)}")
    played = source == SOURCES[0]
    numbers = [key for key in METRICS if key != "phase" and (played or key != LENGTH)]
    found = {"phase": row["phase"], LENGTH: None, SOURCE: source}
    found |= {key: float(row[key]) for key in numbers}
    if not abs(found["return_mean"]) <= MOST_SCORE:
        raise ValueError(f"a return is {row['return_mean']}, expected a number")
    for key in COUNTERS:
        if not (found[key].is_integer() and 0 <= found[key] < 2**63):
            raise ValueError(f"{key} is '{row[key]}', expected a whole number")
    return found


def _cell(value: Any) -> Any:
    return repr(value) if isinstance(value, float) else value


def _rows_bytes(header: Sequence[str], rows: Iterable[Row]) -> bytes:
    return _csv_bytes(
        [
            [_cell(row.get(key, SOURCES[0]) if key == SOURCE else row[key]) for key in header]
            for row in rows
        ]
    )


def _csv_bytes(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()

"""When a robot's run learned: after which of its transitions how many updates were made.

With the transitions it says all that the training depended on, so that it can be repeated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.errors import DataError
from baq_cli.runs.records import RecordFile, read_header, record_of, whole_records

Array = npt.NDArray[Any]
NAME = "interleaving.bin"
FIELDS = [("transitions", "<i8", 0), ("updates", "<i8", 0), ("version", "<i8", 0)]
"""Of the log, the transitions that were stored; the main updates made in the phase; and the number
of the parameters that were last published, all so far."""
RECORD = record_of(FIELDS)
HEADER = json.dumps({"format": "baq-interleaving", "version": 1}).encode() + b"\n"


class Interleaving(RecordFile):
    """A file of turns: in each, transitions are stored, then updates made, then one published."""

    def __init__(self, path: Path, count: int = 0):
        super().__init__(path, HEADER, RECORD, count)

    @classmethod
    def create(cls, path: Path) -> Interleaving:
        """Start a file without turns, in place of one that may be there."""
        cls.begin(path, HEADER)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Interleaving:
        """Go on with a file; what was half written last is dropped."""
        count = len(read(path))
        journal = cls(path, count)
        journal.cut(count)
        return journal


def read(path: Path) -> Array:
    """Read the turns of a file, `[N]`, with the fields of FIELDS.

    Raises DataError when it is missing or damaged: its counts never fall.
    """
    line, _ = read_header(path)
    if line != HEADER:
        raise DataError(f"{path} is damaged, or of another version: it begins with other words")
    turns = np.concatenate([np.zeros(0, RECORD), *whole_records(path, HEADER, RECORD)])
    for name, _, _ in FIELDS:
        if (turns[name] < 0).any() or (np.diff(turns[name]) < 0).any():
            raise DataError(f"{path} is damaged: its {name} become fewer")
    return turns

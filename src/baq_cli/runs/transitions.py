"""What environments did in a run, one record a step, in a file that only grows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from baq_cli.errors import DataError
from baq_cli.runs.checked import Checked, check_content
from baq_cli.runs.records import (
    Kind,
    RecordFile,
    RecordTail,
    read_header,
    record_of,
    whole_records,
)

Array = npt.NDArray[Any]
NAME = "transitions.bin"
POLICY, SOMEBODY, LIMIT = range(3)
"""Who decided on an action (`intervention`): the policy, somebody else, a limit of `safety`."""
VERSION = 2
MOST_NUMBERS = 10**6
"""Of an observation or an action, far above any robot's."""


class _Header(Checked):
    """The first line of a file."""

    format: Literal["baq-transitions"]
    version: Literal[2]
    obs_dim: int = Field(ge=1, le=MOST_NUMBERS)
    action_dim: int = Field(ge=1, le=MOST_NUMBERS)
    seeds: list[int] = Field(min_length=1, max_length=10_000)
    record_bytes: int
    fields: list[list[Any]]


@dataclass(frozen=True)
class Layout:
    """What a record holds: numbers of an observation and an action, and of which seeds it is."""

    obs_dim: int
    action_dim: int
    seeds: tuple[int, ...]

    @property
    def fields(self) -> list[tuple[str, str, int]]:
        """The fields of a record: name, type and how many numbers, 0 for one that is no array.

        `obs` and `next_obs` are as the environment gave them; `action` is what was done and
        `proposed` what the policy asked for, in [−1, 1]; `executed` is what was done in the
        environment's own digits and units, where it said that it did other than it was asked to,
        else NaN. `limits` says which limits acted (`StepRecord.limits_acted`). Counts begin at 0.
        `time_ns` passed since the run's first record, `late_ns` since the moment at which the
        action was due.
        """
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
            ("limits", "|u1", 0),
            ("policy_version", "<i8", 0),
            ("time_ns", "<i8", 0),
            ("late_ns", "<i8", 0),
        ]

    @cached_property
    def record(self) -> Kind:
        """The type of a record."""
        return record_of(self.fields)

    @cached_property
    def header(self) -> bytes:
        """The first line of a file of such records."""
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


class TransitionLog(RecordFile):
    """A file of transitions that grows at its end; `count` is how many whole ones there are."""

    def __init__(self, path: Path, layout: Layout, count: int = 0):
        super().__init__(path, layout.header, layout.record, count)
        self.layout = layout
        self._empty["executed"] = np.nan

    @classmethod
    def create(cls, path: Path, layout: Layout) -> TransitionLog:
        """Start a file without records, in place of one that may be there."""
        cls.begin(path, layout.header)
        return cls(path, layout)

    @classmethod
    def open(cls, path: Path, layout: Layout) -> TransitionLog:
        """Go on with a file; what was half written last is dropped.

        Raises DataError when it is damaged, or its records hold something else.
        """
        found, count = scan(path)
        if found != layout:
            raise DataError(f"{path} holds transitions of {found}, expected {layout}")
        log = cls(path, layout, count)
        log.cut(count)
        return log


class Tail(RecordTail):
    """Transitions that another process may be adding to a file, in their order, each once."""

    def __init__(self, path: Path, first: int = 0):
        self.layout = layout_of(path)
        super().__init__(path, self.layout.header, self.layout.record, first)


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

    Raises DataError when it is missing or damaged.
    """
    layout = layout_of(path)
    blocks = list(whole_records(path, layout.header, layout.record))
    return Transitions(layout, np.concatenate([np.zeros(0, layout.record), *blocks]))


def scan(path: Path) -> tuple[Layout, int]:
    """Return what a file's records hold and how many whole ones there are; raise as `read`."""
    layout = layout_of(path)
    return layout, sum(len(b) for b in whole_records(path, layout.header, layout.record))


def layout_of(path: Path) -> Layout:
    """Return what a file says that its records hold.

    Raises DataError when it is missing, or says something that can't be.
    """
    line, said = read_header(path)
    check_content(_Header, said, path)
    layout = Layout(said["obs_dim"], said["action_dim"], tuple(said["seeds"]))
    if line != layout.header:
        raise DataError(
            f"{path} is damaged, or of another version: its records have other fields than "
            f"{', '.join(name for name, _, _ in layout.fields)}"
        )
    return layout

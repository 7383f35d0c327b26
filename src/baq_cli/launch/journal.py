"""What happens in a cell, on disk: whoever can read its folder can watch it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from baq_cli.errors import DataError, ExitStatus
from baq_cli.plain_files import appended, opened, replaced
from baq_cli.runs.checked import Checked, Name, check_content
from baq_cli.runs.events import Acting, Evaluated, Event, Limited, Note, Progress
from baq_cli.runs.files import disk_errors, json_bytes, read_json, replace_file
from baq_cli.runs.provenance import now
from baq_cli.surroundings import in_utf8
from baq_cli.units import UNITS, Phase
from baq_cli.untrusted import parse_json, read_text

STATE, EVENTS, PROGRESS = "state.json", "events.jsonl", "progress.json"
PROGRESS_SECONDS = 1.0
MOST_PROGRESS = 10_000

Stage = Literal["waiting", "running", "done", "failed", "stopped", "pruned"]


@dataclass(frozen=True)
class State:
    """Where a cell stands. `status` is its exit status, `error` what to tell the user.

    `host` and `pid` are of the process that runs it, or ran it last; `at` is when this was noted.
    """

    stage: Stage
    error: str | None = None
    status: int | None = None
    host: str | None = None
    pid: int | None = None
    at: str | None = None


class _StateFields(Checked):
    stage: Stage
    error: str | None = None
    status: Annotated[int, AfterValidator(ExitStatus)] | None = None
    host: str | None = None
    pid: int | None = Field(None, ge=1, lt=2**31)


class _ProgressFields(Checked):
    phase: Phase
    done: int
    total: int
    gradient_steps: int
    updates_per_second: float
    seconds_left: float
    stage: Name = ""
    taken_over: float | None = None


def read_state(folder: Path) -> State:
    """Return a cell's state; one that was never started is waiting."""
    if not (folder / STATE).exists():
        return State("waiting")
    content = read_json(folder / STATE)
    check_content(_StateFields, content, folder / STATE)
    try:
        return State(**content)
    except TypeError as error:
        raise DataError(f"{folder / STATE} is damaged: {error}") from error


def state_of(folder: Path) -> State:
    """Return a cell's state; one that can't be read is waiting, and its error says why."""
    try:
        return read_state(folder)
    except DataError as error:
        return State("waiting", str(error))


def write_state(
    folder: Path, stage: Stage, error: str | None = None, status: int | None = None
) -> None:
    """Note where a cell stands, as of now and by this process."""
    state = State(stage, error and in_utf8(error), status, socket.gethostname(), os.getpid(), now())
    with disk_errors(f"write {folder / STATE}"):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / STATE, json_bytes(asdict(state)))


class Journal:
    """An observer that writes a cell's events into its folder.

    Notes and evaluations are appended to a file; progress is a file of its own, replaced once a
    second at most. Both serve those who watch: no run reads them, so they aren't synced.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._progress_at = float("-inf")

    def __call__(self, event: Event) -> None:
        if isinstance(event, Acting | Limited):
            return  # nobody is at a cell, and no robot
        if isinstance(event, Progress):
            self._note_progress(event)
            return
        path = self.folder / EVENTS
        with disk_errors(f"write {path}"), appended(path) as file:
            file.write((json.dumps(_encode(event)) + "\n").encode())

    def _note_progress(self, event: Progress) -> None:
        at = time.monotonic()
        if at - self._progress_at < PROGRESS_SECONDS and event.done < event.total:
            return
        self._progress_at = at
        path = self.folder / PROGRESS
        with disk_errors(f"write {path}"), replaced(path, sync=False) as file:
            file.write(json.dumps(asdict(event)).encode())


class Reader:
    """Reads what a journal has added since the last look."""

    def __init__(self, folder: Path):
        """Begin at the end of what is there."""
        self.folder = folder
        self._offset = 0
        self._progress: Progress | None = None
        for _ in self.new():
            continue

    def new(self) -> Iterator[Event]:
        """Yield the events since the last call; a line that is still being written comes later."""
        path = self.folder / EVENTS
        if path.is_file():
            with opened(path) as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    event = _decode(line)
                    if event is not None:
                        yield event
        progress = read_progress(self.folder)
        if progress is not None and progress != self._progress:
            self._progress = progress
            yield progress


def read_progress(folder: Path) -> Progress | None:
    """Return how far a cell's phase has come, or None when nothing is known."""
    try:
        said = parse_json(read_text(folder / PROGRESS, MOST_PROGRESS))
        check_content(_ProgressFields, said, folder / PROGRESS)
        return Progress(**said)
    except (OSError, ValueError, TypeError, DataError):
        return None


def _encode(event: Note | Evaluated) -> dict[str, Any]:
    if isinstance(event, Note):
        return {"note": in_utf8(event.text)}
    said = {"phase": event.phase, "done": event.done, "returns": event.returns.tolist()}
    return said | ({"estimated": True} if event.estimated else {})


def _decode(line: bytes) -> Event | None:
    """Return the event of a line, None for a damaged one: nothing depends on it."""
    try:
        record = parse_json(line.decode())
        if "note" in record:
            return Note(str(record["note"]))
        returns = np.asarray(record["returns"], dtype=np.float64)
        if record["phase"] not in UNITS or returns.ndim != 2:
            return None
        estimated = record.get("estimated") is True
        return Evaluated(record["phase"], int(record["done"]), returns, estimated)
    except (ValueError, LookupError, TypeError):
        return None

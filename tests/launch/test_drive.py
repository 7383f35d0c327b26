"""Cells through any launcher: lost ones start again, failed ones don't stop the rest."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baq_cli.errors import DataError, ExitStatus, Interrupted
from baq_cli.launch import drive, worker
from baq_cli.launch.cells import Cell
from baq_cli.launch.child import Child
from baq_cli.launch.drive import ATTEMPTS, Watcher, run_cells
from baq_cli.launch.journal import EVENTS, Journal, Reader, Stage, read_state, write_state
from baq_cli.runs.events import Evaluated, Event, Note, Progress
from baq_cli.signals import STOPPING, raised
from support.bad_disk import bad_disk


class Scripted:
    """A launcher whose jobs end at once, each start of a cell as its script says.

    A stage is what the cell's folder says by then; None leaves it as a killed process does.
    """

    def __init__(self, slots: int, script: dict[str, list[Stage | None]], advances: bool = False):
        self.slots, self.script, self.advances = slots, script, advances
        self.started: list[str] = []
        self.under_way = self.most = 0
        self.closed = False

    def start(self, cell: Cell, watch: Watcher) -> ScriptedJob:
        self.started.append(cell.method)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return ScriptedJob(self, cell, self.script[cell.method].pop(0))

    def close(self) -> None:
        self.closed = True


class ScriptedJob:
    def __init__(self, launcher: Scripted, cell: Cell, stage: Stage | None):
        self.launcher, self.cell, self.stage = launcher, cell, stage
        write_state(cell.folder, "running")

    def events(self) -> Iterable[Event]:
        return ()

    def ended(self) -> str | None:
        self.launcher.under_way -= 1
        if self.launcher.advances:
            done = len(self.launcher.started)
            Journal(self.cell.folder)(Progress("offline", done, 100, done, 1.0, 1.0))
        if self.stage is not None:
            write_state(self.cell.folder, self.stage, "out of luck", ExitStatus.DATA)
        return "killed"

    def stop(self) -> None:
        raise AssertionError("nothing asked to stop")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.0)


def cells(folder: Path, *methods: str) -> list[Cell]:
    return [Cell("task", name, folder / name, {}, "baq compare …") for name in methods]


def test_a_lost_cell_starts_again_and_a_failed_one_does_not(tmp_path: Path) -> None:
    launcher = Scripted(2, {"a": [None, "done"], "b": ["failed"], "c": ["done"]})
    said: list[str] = []
    failures = run_cells(
        cells(tmp_path, "a", "b", "c"), launcher, lambda name, event: said.append(str(event))
    )
    assert launcher.started == ["a", "b", "c", "a"]
    assert launcher.most == 2
    assert launcher.closed
    assert list(failures) == ["task: b"]
    assert failures["task: b"].status == ExitStatus.DATA
    assert "out of luck" in str(failures["task: b"])
    assert any("lost (killed)" in line for line in said)


def test_a_cell_that_is_lost_every_time_fails_after_some_attempts(tmp_path: Path) -> None:
    launcher = Scripted(1, {"a": [None] * 9, "b": ["done"]})
    failures = run_cells(cells(tmp_path, "a", "b"), launcher, lambda name, event: None)
    assert launcher.started.count("a") == ATTEMPTS
    assert read_state(tmp_path / "b").stage == "done"
    assert "killed" in str(failures["task: a"])
    assert read_state(tmp_path / "a").stage == "failed"


def test_a_machine_that_stops_its_cells_is_not_a_cell_that_fails(tmp_path: Path) -> None:
    """A preempted cell has saved: it goes on as often as it is preempted, if it gets further."""
    launcher = Scripted(1, {"a": ["stopped"] * (2 * ATTEMPTS) + ["done"]}, advances=True)
    assert not run_cells(cells(tmp_path, "a"), launcher, lambda name, event: None)
    assert read_state(tmp_path / "a").stage == "done"
    launcher = Scripted(1, {"b": ["stopped"] * (2 * ATTEMPTS)})
    assert list(run_cells(cells(tmp_path, "b"), launcher, lambda name, event: None)) == ["task: b"]
    assert len(launcher.started) == ATTEMPTS


def test_what_an_earlier_command_left_behind_is_not_taken_for_an_outcome(tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, "a")
    write_state(cell.folder, "failed", "of yesterday", 3)
    launcher = Scripted(1, {"a": [None, "done"]})
    assert not run_cells([cell], launcher, lambda name, event: None)


class Endless(Scripted):
    """Its jobs end when they are asked to; each start comes with a signal to this process."""

    number = signal.SIGINT

    def start(self, cell: Cell, watch: Watcher) -> EndlessJob:
        self.started.append(cell.method)
        os.kill(os.getpid(), self.number)
        return EndlessJob(self, cell, None)


class EndlessJob(ScriptedJob):
    def ended(self) -> str | None:
        return None if self.stage is None else "stopped"

    def stop(self) -> None:
        self.stage = "stopped"
        write_state(self.cell.folder, "stopped")


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_saves_what_runs_and_starts_nothing_more(
    number: signal.Signals, tmp_path: Path
) -> None:
    launcher = Endless(1, {})
    launcher.number = number
    with pytest.raises(Interrupted, match=number.name) as stopped:
        run_cells(cells(tmp_path, "a", "b"), launcher, lambda name, event: None)
    assert "baq compare …" in str(stopped.value), "how to continue"
    assert launcher.started == ["a"]
    assert launcher.closed
    assert read_state(tmp_path / "a").stage == "stopped"
    assert read_state(tmp_path / "b").stage == "waiting"


class Grouped(Scripted):
    """Signals go to the whole group: the job is saved and gone before its driver looks."""

    def start(self, cell: Cell, watch: Watcher) -> ScriptedJob:
        os.kill(os.getpid(), signal.SIGUSR1)
        return super().start(cell, watch)


def test_a_cell_that_heard_of_the_signal_first_is_not_called_lost(tmp_path: Path) -> None:
    notes: list[str] = []
    with pytest.raises(Interrupted, match="SIGUSR1"):
        run_cells(
            cells(tmp_path, "a", "b"),
            Grouped(1, {"a": ["stopped"]}),
            lambda name, event: notes.append(str(event)),
        )
    assert notes == []
    assert read_state(tmp_path / "a").stage == "stopped"


@pytest.mark.parametrize("moment", ["says that it runs", "looks at its trial"])
def test_a_signal_before_a_cell_trains_is_no_cell_that_runs_for_ever(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it reads its state, which nobody else will write."""
    (cell,) = cells(tmp_path, "a")
    cell.folder.mkdir()
    said = worker.write_state

    def writes(folder: Path, stage: Stage, *more: Any, **named: Any) -> None:
        said(folder, stage, *more, **named)
        if stage == "running" and moment == "says that it runs":
            signal.raise_signal(signal.SIGTERM)

    def pruned(cell: Cell) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return False

    monkeypatch.setattr(Cell, "load", lambda folder: cell)
    monkeypatch.setattr(worker, "write_state", writes)
    if moment == "looks at its trial":
        monkeypatch.setattr(Cell, "is_pruned", pruned)
    monkeypatch.setattr(worker, "run_cell", lambda *arguments: pytest.fail("it trained"))
    with raised():
        assert worker.work(cell.folder) == ExitStatus.INTERRUPTED
    assert read_state(cell.folder).stage == "stopped"


# -- the journal


@pytest.mark.parametrize("status", ExitStatus)
def test_whatever_a_command_can_end_with_a_cells_state_can_say(
    status: ExitStatus, tmp_path: Path
) -> None:
    write_state(tmp_path, "failed", "a limit, or worse", status)
    assert read_state(tmp_path).status == status


def test_a_reader_sees_every_event_once_and_none_in_half(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal(Note("before"))
    reader = Reader(tmp_path)
    assert list(reader.new()) == [], "what was there is not news"
    returns = np.array([[1.0, 2.5], [3.0, -4.0]])
    journal(Note("tab\tand\nline"))
    journal(Evaluated("online", 30, returns))
    note, evaluated = reader.new()
    assert note == Note("tab\tand\nline")
    assert isinstance(evaluated, Evaluated)
    assert (evaluated.phase, evaluated.done) == ("online", 30)
    np.testing.assert_array_equal(evaluated.returns, returns)
    with (tmp_path / EVENTS).open("a") as file:
        file.write('{"note": "ha')
        file.flush()
        assert list(reader.new()) == []
        file.write('lf"}\n')
        file.flush()
        assert list(reader.new()) == [Note("half")]
    assert list(reader.new()) == []


def test_progress_is_told_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path), Reader(tmp_path)
    steps = [Progress("offline", done, 100, done, 10.0, 1.0) for done in (1, 2, 100)]
    seen = []
    for step in steps:
        journal(step)
        seen.append(list(reader.new()))
    assert seen == [[steps[0]], [], [steps[2]]]


def test_a_full_disk_where_a_cells_process_would_start_is_named_with_the_cell(
    tmp_path: Path,
) -> None:
    with (
        bad_disk(tmp_path, 1),
        pytest.raises(DataError, match=f"the process of {tmp_path}: No space"),
    ):
        Child(tmp_path, 1)

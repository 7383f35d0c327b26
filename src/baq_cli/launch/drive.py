"""Running cells by any launcher: starting, watching, trying again, stopping."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from baq_cli.errors import BaqError, ExitStatus, Interrupted
from baq_cli.launch.cells import Cell
from baq_cli.launch.journal import State, read_progress, read_state, state_of, write_state
from baq_cli.runs.events import Event, Note, Progress
from baq_cli.runs.interrupt import Interruption, listen

POLL_SECONDS = 0.2
ATTEMPTS = 3
"""How often a cell is started whose process is lost (killed, out of memory, its machine gone), or
stopped before it got any further."""

Watcher = Callable[[str, Event], None]
"""Sees a cell's name and what happened in it."""


class Job(Protocol):
    """A cell under way."""

    def events(self) -> Iterable[Event]:
        """Return what has happened since the last call."""

    def ended(self) -> str | None:
        """Return None while it goes on, then how its process ended, in words."""

    def stop(self) -> None:
        """Ask it to save and stop."""


class Launcher(Protocol):
    """A place where cells run. A cell that has ended says in its folder what came of it.

    `start` raises Interrupted when it has run the cell itself and a signal asked to stop.
    """

    slots: int
    """How many cells are handed over at once."""

    def start(self, cell: Cell, watch: Watcher) -> Job:
        """Start a cell. What the job's `events` won't tell is told to `watch`."""

    def close(self) -> None:
        """Let go of what the launcher holds."""


class CellFailure(BaqError):
    """A cell that failed, with the exit status of its failure."""

    def __init__(self, message: str, status: int | None):
        super().__init__(message)
        self.status = ExitStatus(status or ExitStatus.FAULT)


def run_cells(cells: Sequence[Cell], launcher: Launcher, watch: Watcher) -> dict[str, CellFailure]:
    """Run cells; return those that failed, by name. A cell that fails doesn't stop the others.

    Raises Interrupted when a signal asked to stop: cells that were running are saved, the others
    don't start.
    """
    with listen() as interruption:
        try:
            return _Drive(cells, launcher, watch, interruption).run()
        finally:
            launcher.close()


class _Drive:
    def __init__(
        self,
        cells: Sequence[Cell],
        launcher: Launcher,
        watch: Watcher,
        interruption: Interruption,
    ):
        self.launcher, self.watch, self.interruption = launcher, watch, interruption
        self.command = cells[0].command if cells else ""
        self.waiting = deque(cells)
        self.running: dict[str, tuple[Cell, Job]] = {}
        self.started: dict[str, int] = {}
        self.progress: dict[str, Progress | None] = {}
        self.failures: dict[str, CellFailure] = {}
        self.stopping = False

    def run(self) -> dict[str, CellFailure]:
        for cell in self.waiting:
            cell.save()
            if state_of(cell.folder).stage != "running":  # a Slurm job may outlive its driver
                write_state(cell.folder, "waiting")
        while self.waiting or self.running:
            self._start_some()
            for cell, job in list(self.running.values()):
                self._look(cell, job)
            if self.interruption.requested and not self.stopping:
                self._stop()
            if self.running:
                time.sleep(POLL_SECONDS)
        if self.stopping:
            raise Interrupted(
                f"stopped by {self.interruption.requested}; finished and half-finished methods "
                f"are saved. Continue with the same command:\n  {self.command}"
            )
        return self.failures

    def _start_some(self) -> None:
        while self.waiting and len(self.running) < self.launcher.slots and not self.stopping:
            cell = self.waiting.popleft()
            self.started[cell.name] = self.started.get(cell.name, 0) + 1
            self.running[cell.name] = (cell, self.launcher.start(cell, self.watch))

    def _look(self, cell: Cell, job: Job) -> None:
        how = job.ended()  # asked first: what it wrote before it ended is read now
        for event in job.events():
            self.watch(cell.name, event)
        if how is not None:
            del self.running[cell.name]
            self._settle(cell, read_state(cell.folder), how)

    def _settle(self, cell: Cell, state: State, how: str) -> None:
        if state.stage in ("done", "pruned"):
            return
        if self.stopping or self.interruption.requested:  # which may have gone to the cell as well
            return
        if state.stage == "failed":
            self._fail(cell, state.error or how, state.status)
            return
        if state.stage == "stopped" and self._has_moved(cell):
            self.started[cell.name] -= 1  # by somebody else, as preemptible machines do
        if self.started[cell.name] < ATTEMPTS:
            self.watch(cell.name, Note(f"{cell.name}: lost ({how}); starting it again"))
            self.waiting.append(cell)
        else:
            text = f"lost {ATTEMPTS} times; the last time: {how}"
            write_state(cell.folder, "failed", text, ExitStatus.FAULT)
            self._fail(cell, text, ExitStatus.FAULT)

    def _has_moved(self, cell: Cell) -> bool:
        """Whether a cell got any further since it was last asked."""
        progress = read_progress(cell.folder)
        before, self.progress[cell.name] = self.progress.get(cell.name), progress
        return progress != before

    def _fail(self, cell: Cell, error: str, status: int | None) -> None:
        failure = CellFailure(f"{cell.name}: {error}", status)
        self.failures[cell.name] = failure
        self.watch(cell.name, Note(f"failed: {failure}"))

    def _stop(self) -> None:
        """Start nothing more, and have what runs saved."""
        self.stopping = True
        self.waiting.clear()
        for _, job in self.running.values():
            job.stop()

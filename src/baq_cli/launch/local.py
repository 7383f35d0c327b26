"""Running cells on this machine: in this process, or in a few at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from baq_cli.errors import ExitStatus, Interrupted
from baq_cli.launch.cells import Cell
from baq_cli.launch.child import Child
from baq_cli.launch.drive import Launcher, Watcher
from baq_cli.launch.journal import Reader, read_state
from baq_cli.launch.worker import work
from baq_cli.machine import most_threads, usable_cores
from baq_cli.runs.events import Event


def launcher_for(cells: int, workers: int | None) -> Launcher:
    """Return what runs cells on this machine, `workers` at once: by default one a usable CPU.

    One cell alone, or one worker, runs in this process with all cores.
    """
    slots = slots_for(cells, workers)
    return Here() if slots <= 1 else Processes(slots)


def slots_for(cells: int, workers: int | None) -> int:
    """Return how many cells run at once."""
    return max(1, min(cells, workers or usable_cores()))


def share_of_cores(slots: int) -> int:
    """Return the CPUs of each of `slots` cells that run at once."""
    return max(1, usable_cores() // slots)


def share_of_threads(slots: int) -> int:
    """Return the threads that each of them computes with."""
    return min(share_of_cores(slots), most_threads())


class Here:
    """Runs one cell at a time, in this process, with all cores."""

    slots = 1

    def start(self, cell: Cell, watch: Watcher) -> Ended:
        status = work(cell.folder, watch=lambda event: watch(cell.name, event))
        if status == ExitStatus.INTERRUPTED:
            raise Interrupted(read_state(cell.folder).error or "stopped")
        return Ended()

    def close(self) -> None:
        """Hold nothing."""


class Ended:
    """A cell that has run already, and was watched while it did."""

    def events(self) -> Iterable[Event]:
        return ()

    def ended(self) -> str | None:
        return "in this process"

    def stop(self) -> None:
        """Do nothing: it has ended."""


class Processes:
    """Runs cells in `slots` processes, each with its share of the cores.

    Raises nothing of its own; a process's own output goes to worker.log in its cell's folder.
    """

    def __init__(self, slots: int):
        self.slots = slots
        self._threads, self._cores = share_of_threads(slots), share_of_cores(slots)

    def start(self, cell: Cell, watch: Watcher) -> Process:
        return Process(cell.folder, self._threads, self._cores)

    def close(self) -> None:
        """Hold nothing: each job is its own process."""


class Process:
    """A cell in a process of its own."""

    def __init__(self, folder: Path, threads: int, cores: int):
        self._reader = Reader(folder)
        self._child = Child(folder, threads, cores=cores)

    def events(self) -> Iterable[Event]:
        return self._reader.new()

    def ended(self) -> str | None:
        return self._child.ended()

    def stop(self) -> None:
        self._child.stop()

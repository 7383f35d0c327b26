"""The process that runs one cell: `main` with the arguments FOLDER [THREADS [scratch]]."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baq_cli.errors import BaqError, ExitStatus, Interrupted
from baq_cli.launch.cell_runs import run_cell
from baq_cli.launch.cells import Cell
from baq_cli.launch.journal import Journal, read_state, write_state
from baq_cli.machine import wait_without_holding_cores
from baq_cli.outlets import guard
from baq_cli.report.names import printable_lines
from baq_cli.runs.events import Evaluated, Event, Observer
from baq_cli.runs.lock import held
from baq_cli.safe_python import never_from_here
from baq_cli.signals import Stopped, raised
from baq_cli.surroundings import known

WAIT_SECONDS = 60.0
"""How long a worker waits for one before it that is still saving."""


def work(folder: Path, threads: int | None = None, watch: Observer | None = None) -> ExitStatus:
    """Run the cell of a folder, on `threads` unless its recipe says otherwise.

    What comes of it is in the folder, and told to `watch` as well.

    Raises nothing that a cell can fail of.
    """
    journal = Journal(folder)

    def observe(event: Event) -> None:
        journal(event)
        if watch is not None:
            watch(event)

    try:
        with held(folder, WAIT_SECONDS, observe):
            return _run(folder, threads, observe)
    except BaqError as error:  # somebody else runs it: the state is theirs
        print(printable_lines(str(error)), file=sys.stderr)
        return error.status


def _run(folder: Path, threads: int | None, observer: Observer) -> ExitStatus:
    pruned = False

    def observe(event: Event) -> None:
        nonlocal pruned
        observer(event)
        if isinstance(event, Evaluated) and cell.is_pruned():
            pruned = True
            signal.raise_signal(signal.SIGTERM)  # it saves and stops, as for any launcher

    try:
        cell = Cell.load(folder)
        with _stopped_between_phases(cell.command), raised():  # before it says that it runs
            write_state(folder, "running")
            pruned = cell.is_pruned()  # it may have been killed on its way to saying so
            if not pruned:
                run_cell(cell if threads is None else cell.on_threads(threads), observe)
    except Interrupted as error:
        if pruned:
            write_state(folder, "pruned", status=ExitStatus.DONE)
            return ExitStatus.DONE
        write_state(folder, "stopped", str(error), error.status)
        return error.status
    except BaqError as error:
        write_state(folder, "failed", str(error), error.status)
        return error.status
    except Exception as error:
        failure = known(error)
        if failure is not None:
            write_state(folder, "failed", str(failure), failure.status)
            return failure.status
        print(printable_lines(traceback.format_exc()), file=sys.stderr)
        text = f"unexpected {type(error).__name__}: {error}. This is a fault of baq."
        write_state(folder, "failed", text, ExitStatus.FAULT)
        return ExitStatus.FAULT
    write_state(folder, "pruned" if pruned else "done", status=ExitStatus.DONE)
    return ExitStatus.DONE


@contextmanager
def _stopped_between_phases(command: str) -> Iterator[None]:
    """Raise Interrupted for a signal that comes while no phase listens for it, with all saved."""
    try:
        yield
    except Stopped as stopped:
        raise Interrupted(
            f"stopped by {stopped}; everything is saved. Continue with:\n  {command}"
        ) from None


def _stop_with_parent() -> threading.Event:
    """Ask this process to save and stop when its parent is gone, which closes our stdin.

    The event says that it is.
    """
    gone = threading.Event()

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # sys.stdin's own lock would abort our end
            continue
        gone.set()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
    return gone


def _main(folder: Path, threads: int | None = None, scratch: bool = False) -> ExitStatus:
    """Run a cell; a scratch folder that nobody will fetch is dropped."""
    parent_gone = _stop_with_parent()
    status = work(folder, threads)
    error = read_state(folder).error
    if error is not None:  # whoever starts cells says that this log has the reason
        print(printable_lines(error), file=sys.stderr)
    if scratch and parent_gone.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return status


def main() -> None:
    """Run the cell that the command line names, and end with its status."""
    never_from_here()
    wait_without_holding_cores()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:  # it is how our parent stops us
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    guard()
    place, *rest = sys.argv[1:]
    try:
        with raised():
            status = _main(Path(place), int(rest[0]) if rest else None, "scratch" in rest[1:])
    except Stopped:
        status = ExitStatus.INTERRUPTED
    sys.exit(int(status))

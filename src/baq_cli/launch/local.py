"""Running cells on this machine: in this process, or in a few at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from queue import Empty
from typing import Any

from baq_cli.engine.events import Event
from baq_cli.engine.interrupt import listen
from baq_cli.errors import BaqError, Interrupted
from baq_cli.launch.cells import Cell, run_cell

POLL_SECONDS = 0.2
Watcher = Callable[[str, Event], None]
"""Sees a cell's name and what happened in it."""


def run_cells(cells: Sequence[Cell], workers: int, watch: Watcher) -> dict[str, BaqError]:
    """Run cells, `workers` at a time, each with its share of the cores; return the failures.

    A cell that fails doesn't stop the others. Raises Interrupted when a signal asked to stop:
    cells that were running are saved, the others don't start.
    """
    if workers > 1 and len(cells) > 1:
        return _run_in_processes(cells, workers, watch)
    failures = {}
    for cell in cells:
        try:
            run_cell(cell, _observer(cell.name, watch))
        except Interrupted:
            raise
        except BaqError as error:
            failures[cell.name] = error
    return failures


def _observer(name: str, watch: Watcher) -> Callable[[Event], None]:
    return lambda event: watch(name, event)


def _run_in_processes(cells: Sequence[Cell], workers: int, watch: Watcher) -> dict[str, BaqError]:
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    stop: Any = context.Event()
    workers = min(workers, len(cells))
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, context, _begin, (queue, stop))
    with listen() as interruption, pool:
        futures = {
            cell.name: pool.submit(_work, replace(cell, recipe=_on_threads(cell, threads)))
            for cell in cells
        }
        while not all(future.done() for future in futures.values()):
            _drain(queue, watch)
            if interruption.requested:
                stop.set()
                for worker in multiprocessing.active_children():
                    worker.terminate()  # a running phase takes SIGTERM as a request to save
                break
    _drain(queue, watch)
    if interruption.requested:
        raise Interrupted(
            f"stopped by {interruption.requested}; finished and half-finished methods are saved. "
            f"Continue with:\n  {cells[0].resume_command}"
        )
    return _failures(futures)


def _on_threads(cell: Cell, threads: int) -> dict[str, Any]:
    """Return the cell's recipe with its share of the cores, unless it says otherwise."""
    evaluation = cell.recipe["evaluation"]
    background = bool(evaluation["background"])  # by default no core is free
    return cell.recipe | {
        "threads": cell.recipe["threads"] or threads,
        "evaluation": evaluation | {"background": background},
    }


_events: Any = None
"""A worker's way to its watcher."""
_stop: Any = None
"""Set when no further cell may start: the pool hands one out ahead of need."""


def _begin(queue: Any, stop: Any) -> None:
    """Prepare a worker; Ctrl-C reaches it too, and is its parent's to handle."""
    global _events, _stop
    _events, _stop = queue, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(cell: Cell) -> None:
    if _stop.is_set():
        raise Interrupted(f"{cell.name} was not started")
    run_cell(cell, lambda event: _events.put((cell.name, event)))


def _drain(queue: Any, watch: Watcher) -> None:
    """Hand on what has happened, waiting for something to happen for POLL_SECONDS at most."""
    end = time.monotonic() + POLL_SECONDS
    try:
        while (left := end - time.monotonic()) > 0:
            watch(*queue.get(timeout=left))
    except Empty:
        return


def _failures(futures: dict[str, Future[None]]) -> dict[str, BaqError]:
    failures = {}
    for name, future in futures.items():
        error = future.exception()
        if isinstance(error, BaqError):
            failures[name] = error
        elif error is not None:
            raise error
    return failures

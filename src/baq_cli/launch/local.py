"""Running cells on this machine: in this process, or in a few at once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from queue import Empty
from typing import Any

from baq_cli.engine.events import Event, Observer
from baq_cli.errors import BaqError
from baq_cli.launch.cells import Cell, run_cell

POLL_SECONDS = 0.2
Watcher = Callable[[str, Event], None]
"""Sees a cell's name and what happened in it."""


def run_cells(cells: Sequence[Cell], workers: int, watch: Watcher) -> dict[str, BaqError]:
    """Run cells, `workers` at a time, each with its share of the cores; return the failures.

    A cell that fails doesn't stop the others.
    """
    if workers == 1 or len(cells) == 1:
        failures = {}
        for cell in cells:
            try:
                run_cell(cell, lambda event, name=cell.name: watch(name, event))  # type: ignore[misc]
            except BaqError as error:
                failures[cell.name] = error
        return failures
    return _run_in_processes(cells, workers, watch)


def _run_in_processes(cells: Sequence[Cell], workers: int, watch: Watcher) -> dict[str, BaqError]:
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // workers)
    with context.Manager() as manager, ProcessPoolExecutor(workers, context) as pool:
        queue = manager.Queue()
        futures = {cell.name: pool.submit(_worker, cell, threads, queue) for cell in cells}
        while not all(future.done() for future in futures.values()):
            _drain(queue, watch)
        _drain(queue, watch)
    return _failures(futures)


def _worker(cell: Cell, threads: int, queue: Any) -> None:
    recipe = cell.recipe | {"threads": cell.recipe.get("threads") or threads}
    mine = Cell(cell.name, cell.folder, recipe, cell.command, cell.resume_command, cell.resume)
    observer: Observer = lambda event: queue.put((cell.name, event))  # noqa: E731
    run_cell(mine, observer)


def _drain(queue: Any, watch: Watcher) -> None:
    try:
        while True:
            watch(*queue.get(timeout=POLL_SECONDS))
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

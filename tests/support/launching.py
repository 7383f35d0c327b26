"""Cells that are quick to run, and what happens to them under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from baq_cli.data.suite import Uniform
from baq_cli.engine.collection.datasets import collect_dataset
from baq_cli.envs.ref import EnvChoice
from baq_cli.launch.cells import Cell
from baq_cli.launch.drive import Watcher
from baq_cli.launch.journal import read_state
from baq_cli.launch.matrix import lay_out
from baq_cli.launch.worker import work
from baq_cli.recipes.load import parse_overrides
from baq_cli.runs.events import Evaluated, Event, Note
from support.cli import SMALL
from support.recordings import own_folders
from support.runs import assert_same_logs

DATASET = "made/pendulum-v0"


@contextmanager
def own_data() -> Iterator[Path]:
    """Give a Minari folder with the dataset, and a cache of one's own; yield a folder for runs."""
    with own_folders() as place:
        collect_dataset(
            DATASET, [Uniform()], EnvChoice("Pendulum-v1"), 600, 0, False, lambda _: None
        )
        yield place


def cells_in(out: Path, algos: Sequence[str], *overrides: str) -> list[Cell]:
    """Return a cell for each method: 500 gradient steps and 40 environment steps of a seed."""
    flags = {"dataset": DATASET, "seeds": [0], "gradient_steps": 500, "env_steps": 40}
    every = ["evaluation.every_gradient_steps=100", "evaluation.every_env_steps=40"]
    words = [*SMALL, *every, *overrides]
    return lay_out([[flags, parse_overrides(words)]], algos, {}, out, "baq compare")


def run_here(cells: Sequence[Cell]) -> None:
    """Run cells in this process, one after the other, uninterrupted."""
    for cell in cells:
        cell.save()
        work(cell.folder, threads=1)
        assert stage(cell) == "done"


def stage(cell: Cell) -> str:
    return read_state(cell.folder).stage


def worker_of(cell: Cell) -> int:
    """Return the process that runs a cell."""
    pid = read_state(cell.folder).pid
    assert pid is not None
    return pid


def parent_of(pid: int) -> int:
    """Return a process's parent."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def ask_to_stop() -> None:
    """Ask this process to stop, as a terminal that closes does."""
    os.kill(os.getpid(), signal.SIGTERM)


def once_evaluated(deeds: dict[str, Callable[[], None]], notes: list[str]) -> Watcher:
    """Return a watcher that does something to a cell, by its method, at its first evaluation.

    It keeps the notes it hears.
    """
    heard: dict[str, int] = {}

    def watch(name: str, event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)
        method = name.rpartition(": ")[2]
        if isinstance(event, Evaluated):
            heard[method] = heard.get(method, 0) + 1
            if heard[method] == 1 and method in deeds:
                deeds.pop(method)()

    return watch


def assert_same_course(cell: Cell, reference: Cell) -> None:
    """Check that a cell's runs logged what the reference's did, but for the time they took."""
    for phase in ("offline", "online"):
        assert_same_logs(cell.folder / phase, reference.folder / phase)

"""What a Ray worker does with a cell. Imports nothing heavy: the cell's own process does."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baq_cli.launch.child import Child, noted_signals
from baq_cli.launch.ray.transfer import contents, pack, unpack
from baq_cli.plain_files import read

TOKEN = ".token"
TRUST = "BAQ_TRUST_ENV"
"""As untrusted.py has it, for a module that imports no other of ours: whether to trust ids."""


@dataclass(frozen=True)
class CellTask:
    """What a worker is told of a cell.

    A worker that finds `token` in the cell's folder shares a disk with who sent it: the cell runs
    there, with the sender's `environment` and `directory`.
    """

    folder: str
    token: str
    threads: int
    environment: dict[str, str]
    directory: str

    @property
    def shares_disk(self) -> bool:
        try:
            return read(Path(self.folder) / TOKEN, len(self.token)) == self.token.encode()
        except OSError:
            return False


@dataclass(frozen=True)
class Return:
    """How a cell's process ended, and its folder where no disk is shared.

    `how` is None when the cell didn't start, because no parcel came with it and it is needed.
    """

    how: str | None
    parcel: bytes | None = None


def run_task(task: CellTask, parcel: list[Any]) -> Return:
    """Run a cell where its folder is, or in a scratch folder from `parcel` and back.

    `parcel` is a list of none or one reference to a packed folder in Ray's object store.
    A signal has the cell save and stop first.
    """
    with noted_signals() as asked:
        if task.shares_disk:
            return Return(_child_in_place(task).attend(asked))
        if not parcel:
            return Return(None)
        import ray

        scratch = Path(tempfile.mkdtemp(prefix="baq-cell-"))
        try:
            sent = unpack(ray.get(parcel[0]), scratch)
            trust = {n: v for n, v in task.environment.items() if n == TRUST}
            how = Child(scratch, task.threads, scratch=True, environment=trust).attend(asked)
            names = contents(scratch)
            return Return(how, pack(scratch, names, set(sent) - set(names)))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _child_in_place(task: CellTask) -> Child:
    directory = Path(task.directory)
    return Child(
        Path(task.folder),
        task.threads,
        environment=task.environment,
        directory=directory if directory.is_dir() else None,
    )

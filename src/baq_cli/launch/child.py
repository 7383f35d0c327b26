"""The process that runs a cell, seen from the one that started it. Imports nothing heavy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from baq_cli.machine import SHARE
from baq_cli.plain_files import appended, replaced
from baq_cli.runs.files import disk_errors
from baq_cli.safe_python import AWAY
from baq_cli.signals import STOPPING, answered

LOG, HOW = "worker.log", ".ended"
POLL_SECONDS = 0.2
START = f"{AWAY}; from baq_cli.launch.worker import main; main()"
ALWAYS = tuple(n for n in STOPPING if n.name in ("SIGINT", "SIGTERM", "SIGUSR2"))
"""How launchers ask a process to stop: ray.cancel, Slurm, submitit at Slurm's time limit. These
count where whoever started us ignores them, too."""


class Child:
    """A cell in a process of its own, in a process group that Ctrl-C doesn't reach.

    It ends with us, however we end: its stdin is a pipe that we hold open. What it prints goes to
    worker.log in the cell's folder. It may keep `cores` CPUs busy, or one a thread. A `scratch`
    folder is dropped with it when we are gone. `environment` is added to our own variables; it
    starts in `directory`, or where we are.
    """

    def __init__(
        self,
        folder: Path,
        threads: int,
        *,
        cores: int | None = None,
        scratch: bool = False,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ):
        words = [sys.executable, "-c", START, str(folder), str(threads)]
        with disk_errors(f"start the process of {folder}"), appended(folder / LOG) as log:
            self._process = subprocess.Popen(
                [*words, "scratch"] if scratch else words,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, SHARE: str(cores or threads), **(environment or {})},
                cwd=directory,
                start_new_session=True,
            )

    def ended(self) -> str | None:
        """Return None while it goes on, then how it ended, in words."""
        code = self._process.poll()
        if code is None:
            return None
        self.let_go()
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with status {code}, see {LOG} in its folder"

    def let_go(self) -> None:
        """Close the pipe that it watches: for it, we are gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def stop(self) -> None:
        """Ask it to save and stop."""
        if self._process.poll() is None:
            self._process.terminate()

    def attend(self, asked: list[int]) -> str:
        """Wait for its end, and return how it was; stop it when a signal is noted in `asked`."""
        while (how := self.ended()) is None:
            if asked:
                asked.clear()
                self.stop()
            time.sleep(POLL_SECONDS)
        return how


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Note the signals that ask this process to stop, instead of dying of them."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    with answered(note, ALWAYS):
        yield asked


def run_in_child(folder: Path, threads: int) -> str:
    """Run the cell of a folder in a process of its own; return how that ended, in words.

    The words are in the folder too, for whom no value can be handed to. A signal that asks this
    process to stop has the cell save and stop first.
    """
    (folder / HOW).unlink(missing_ok=True)
    with noted_signals() as asked:
        how = Child(folder, threads).attend(asked)
    with disk_errors(f"write {folder / HOW}"), replaced(folder / HOW) as file:
        file.write(how.encode())
    return how

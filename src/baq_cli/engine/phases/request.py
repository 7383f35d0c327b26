"""What a command asks of a run, beside its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from baq_cli.runs.events import Observer


@dataclass(frozen=True)
class RunRequest:
    """Where a run goes, what it was called with, and who watches.

    `command` is what the user typed, kept in the recipe's first line; `resume_command` is what
    continues the run. `hand` is who may take over by the command line alone.
    """

    out: Path
    observer: Observer
    command: str
    resume_command: str
    resume: bool = False
    hand: str | None = None

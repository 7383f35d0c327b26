"""What a tracker is, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from baq_cli.runs.trackers.scalars import Scalars

Kept = dict[str, str]
"""What a tracker finds its run again by; it lies in the run's trackers.json."""


@dataclass(frozen=True)
class Followed:
    """The run that a tracker follows: its folder, resolved recipe and manifest.

    `kept` is what an earlier session's `begin` returned, empty for the first.
    """

    folder: Path
    recipe: dict[str, Any]
    manifest: dict[str, Any]
    kept: Kept

    @property
    def name(self) -> str:
        return "/".join(self.folder.resolve().parts[-2:])


class Tracker(Protocol):
    """One backend. Making it imports the package, and raises ImportError where that is missing.

    `begin` starts or continues the run there. In a session that resumes, everything that the
    run's folder holds is logged again first, in its order; the tracker sees to it that nothing
    shows twice. Any exception ends this tracker, never the run.
    """

    def begin(self, run: Followed) -> Kept: ...

    def log(self, scalars: Scalars) -> None: ...

    def close(self, done: bool) -> None:
        """End the session; `done` says whether the run came to its end."""

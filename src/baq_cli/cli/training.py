"""What commands share that train one run: flags, and the request that they make of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baq_cli.cli import options as opt

if TYPE_CHECKING:
    from baq_cli.engine.phases.request import RunRequest
    from baq_cli.recipes.load import Layer
    from baq_cli.runs.events import Observer


@dataclass(frozen=True)
class TrainingFlags:
    """How a run trains, who is told of it, and whether it goes on."""

    device: opt.Device = None
    no_capture: opt.NoCapture = False
    track: opt.Track = None
    resume: opt.Resume = False

    def of_recipe(self) -> Layer:
        """Return those of the flags that a recipe holds."""
        capture = False if self.no_capture else None
        return {"device": self.device, "capture": capture, "track": self.track}

    def request(self, out: Path, observer: Observer, hand: str | None = None) -> RunRequest:
        """Return what this command asks of the run in a folder."""
        from baq_cli.engine.phases.request import RunRequest

        typed, again = opt.command_line(), opt.resume_command()
        return RunRequest(out, observer, typed, again, self.resume, hand)

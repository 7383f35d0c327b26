"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

import json
from typing import Any

from baq_cli.runs.trackers.interface import Followed, Kept
from baq_cli.runs.trackers.scalars import Scalars, flat

FOLDER = "tensorboard"
CHARTED = {"offline/return_mean/mean": 0.0, "online/return_mean/mean": 0.0}
"""The scalars that the table of hyperparameters shows."""


class TensorBoard:
    """Event files in `tensorboard/`: scalars, the recipe as hyperparameters, the manifest as text.

    Each session writes the run anew from its rows, in place of the files before it, and begins
    with a purge at step 0, so that a TensorBoard that is open drops what it had read of those.
    Scalars are stored in single precision, as TensorBoard's own are.
    """

    def __init__(self) -> None:
        import tensorboard  # noqa: F401  (torch's module may be loaded without it)
        from torch.utils.tensorboard import SummaryWriter

        self._make: Any = SummaryWriter

    def begin(self, run: Followed) -> Kept:
        from torch.utils.tensorboard.summary import hparams

        folder = run.folder / FOLDER
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = self._make(str(folder), purge_step=0)
        experiment, start, self._end = hparams(flat(run.recipe), CHARTED)
        for summary in (experiment, start):
            self._writer.file_writer.add_summary(summary)
        text = json.dumps(run.manifest, indent=1)
        self._writer.add_text("manifest", "    " + text.replace("\n", "\n    "))
        self._writer.flush()
        return {"folder": FOLDER}

    def log(self, scalars: Scalars) -> None:
        for name, value in scalars.values.items():
            self._writer.add_scalar(name, value, scalars.step)
        self._writer.flush()

    def close(self, done: bool) -> None:
        if done:
            self._writer.file_writer.add_summary(self._end)
        self._writer.close()

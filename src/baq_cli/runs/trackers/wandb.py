"""Weights & Biases: an offline run in the run's folder, unless the user asks for the network."""

from __future__ import annotations

import os
import uuid
from typing import Any

from baq_cli.runs.trackers.interface import Followed, Kept
from baq_cli.runs.trackers.scalars import Scalars
from baq_cli.units import UNITS

SETTINGS = {
    "silent": True,
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""Nothing printed, and nothing gathered beyond the run's rows; a version may lack some of them."""
LOCAL = ("offline", "dryrun", "disabled")


class Wandb:
    """A W&B run in `wandb/`: scalars over their phase's counter, recipe and manifest as config.

    WANDB_MODE chooses how it is kept where it is set; offline otherwise, without any connection.
    A resumed run keeps its id. Offline, each session writes a folder of its own that holds the
    whole run, so the newest one replaces those before it when it is synced. Online, rows that the
    server has are not sent again, and it takes none back: rows past the checkpoint stay as they
    were sent first. A row's step is its number in the run.
    """

    def __init__(self) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports leave even offline
        import wandb

        self._wandb: Any = wandb
        self._rows = 0

    def begin(self, run: Followed) -> Kept:
        mode = os.environ.get("WANDB_MODE") or "offline"
        known = self._wandb.Settings.model_fields
        kept = run.kept or {"id": uuid.uuid4().hex[:16]}
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "baq",
            name=os.environ.get("WANDB_NAME") or run.name,
            id=kept["id"],
            dir=run.folder,
            mode=mode,
            resume=None if mode in LOCAL else "allow",
            reinit="create_new",
            config=run.recipe | {"manifest": run.manifest},
            allow_val_change=True,
            settings={key: value for key, value in SETTINGS.items() if key in known},
        )
        for phase, unit in UNITS.items():
            axis = f"{phase}/{unit}"
            self._run.define_metric(axis)
            for names in (f"{phase}/*", f"diagnostics/{phase}/*"):
                self._run.define_metric(names, step_metric=axis)
        return kept

    def log(self, scalars: Scalars) -> None:
        axis = f"{scalars.phase}/{UNITS[scalars.phase]}"
        if self._rows >= self._run.starting_step:
            row = {axis: scalars.step, **scalars.values}
            self._run.log(row, step=self._rows, commit=True)
        self._rows += 1

    def close(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)

"""Which checkpoints of a run stay: the newest, the best, and those not evaluated yet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from baq_cli.runs.checkpoints import AGENT, PARTIAL, STATE, complete, counter_of, named
from baq_cli.runs.files import disk_errors
from baq_cli.units import UNITS, Phase


def worth_keeping(
    run: Path, phase: Phase, history: Sequence[Mapping[str, Any]], pending: Collection[int]
) -> set[Path]:
    """Return the checkpoints of a phase that stay however old they are.

    These are the one whose evaluation in `history` was the best, mean over seeds, and those at the
    counters `pending`, whose evaluation is still to come.
    """
    counted: dict[int, list[float]] = {}
    for row in history:
        if row["phase"] == phase:
            counted.setdefault(row[UNITS[phase]], []).append(row["return_mean"])
    folders = {counter_of(folder): folder for folder in complete(run, phase)}
    scores = {counter: fmean(found) for counter, found in counted.items() if counter in folders}
    best = [max(scores, key=scores.__getitem__)] if scores else []
    return {folders[counter] for counter in (*best, *pending) if counter in folders}


def prune(
    run: Path, phase: Phase, keep: int, keep_agents: bool, spared: Collection[Path] = ()
) -> None:
    """Drop all but the newest `keep` checkpoints of a phase and those spared, or keep their agents.

    What a process that was killed here left beside an agent is dropped as well.
    Raises DataError when the disk refuses.
    """
    whole = complete(run, phase)
    for folder in whole[:-keep]:
        if folder in spared:
            continue
        with disk_errors(f"remove the old checkpoint {folder}"):
            if keep_agents:
                (folder / STATE).unlink()  # from here on it is none
            else:
                partial = folder.with_name(f"{PARTIAL}{folder.name}")
                os.rename(folder, partial)
                shutil.rmtree(partial)
    if keep_agents:
        folders = named(run, phase)
        for folder in folders[: folders.index(whole[-1])] if whole else ():
            if folder not in whole[-keep:] and folder not in spared:
                _drop_all_but_the_agent(folder)


def _drop_all_but_the_agent(folder: Path) -> None:
    with disk_errors(f"remove the old checkpoint {folder}"):
        for file in folder.glob("*.safetensors"):
            if file.name != AGENT:
                file.unlink()

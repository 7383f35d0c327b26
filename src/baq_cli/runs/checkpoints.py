"""Where the checkpoints of a run lie, and which of them are whole."""

from __future__ import annotations

import itertools
import os
import re
import stat
from pathlib import Path

from baq_cli.errors import DataError
from baq_cli.runs.files import ABSENT, disk_errors, read_errors, replace_file
from baq_cli.units import UNITS, Phase
from baq_cli.untrusted import read_text

AGENT, STATE = "agent.safetensors", "state.json"
CHECKPOINTS, LATEST, PARTIAL, DAMAGED = "checkpoints", "latest", ".partial-", "damaged-"
NAME = re.compile(r"(offline|online)-([0-9]{1,18})(?:\.([0-9]{1,9}))?")
"""A checkpoint's folder; a name of another form leads nowhere."""


def complete(run: Path, phase: Phase | None = None) -> list[Path]:
    """Return a run's complete checkpoints, of a phase or both, oldest first."""
    return [folder for folder in named(run, phase) if _has_state(folder)]


def named(run: Path, phase: Phase | None = None) -> list[Path]:
    """Return the folders that are named as checkpoints are, whole or not, oldest first.

    Raises Unreadable when the disk doesn't list them.
    """
    root = run / CHECKPOINTS
    with read_errors(root):
        try:
            names = os.listdir(root)
        except (*ABSENT, ValueError):
            return []
    phases: list[str] = list(UNITS)
    found = {}
    for name in filter(None, map(NAME.fullmatch, names)):
        folder = root / name[0]
        if phase in (None, name[1]) and not folder.is_symlink():
            found[folder] = (phases.index(name[1]), counter_of(folder), int(name[3] or 0))
    return sorted(found, key=lambda folder: found[folder])


def counter_of(folder: Path) -> int:
    """Return the counter of a checkpoint, in its phase's unit, which its name says."""
    return int(folder.name.rpartition("-")[2].split(".")[0])


def _has_state(folder: Path) -> bool:
    with read_errors(folder):
        try:
            return stat.S_ISREG((folder / STATE).stat().st_mode)
        except ABSENT:
            return False


def point_at(folder: Path) -> None:
    """Let `latest` name a checkpoint; a process that was killed may have had no time to."""
    if _latest(folder.parent.parent) != folder:
        with disk_errors(f"write {folder.with_name(LATEST)}"):
            replace_file(folder.with_name(LATEST), folder.name.encode())


def put_aside(folder: Path) -> Path:
    """Rename a checkpoint that can't be read, so that none is taken for one; return where it is.

    Raises DataError when the disk refuses.
    """
    with disk_errors(f"put the damaged checkpoint {folder} aside"):
        aside = free_name(folder.with_name(DAMAGED + folder.name))
        os.rename(folder, aside)
    return aside


def locate(path: Path) -> Path:
    """Find the agent.safetensors that a run, a checkpoint folder or a file stands for.

    Of a run, or of its folder of checkpoints, it is that of the newest complete checkpoint;
    `latest`, which names it for people, is asked only where none is complete, as in a copy of an
    agent alone, or where it is what was given.
    Raises DataError when there is none.
    """
    if path.name == LATEST and path.is_file():
        path = _latest(path.parent.parent) or path
    if path.is_file():
        return path
    run = path.parent if path.name == CHECKPOINTS and not (path / CHECKPOINTS).exists() else path
    whole = complete(run)
    found = whole[-1] if whole else _latest(run) or path
    if not (found / AGENT).is_file():
        raise DataError(
            f"no checkpoint at {found}: expected a run's folder, a folder below its checkpoints, "
            f"or an {AGENT}. 'baq pretrain --dataset ID --algo NAME --out {path}' makes one."
        )
    return found / AGENT


def _latest(run: Path) -> Path | None:
    """Return the folder that `latest` names, if it can be read and names a checkpoint."""
    try:
        name = read_text(run / CHECKPOINTS / LATEST, 100).strip()
    except (OSError, ValueError):
        return None
    return run / CHECKPOINTS / name if NAME.fullmatch(name) else None


def free_name(folder: Path) -> Path:
    """Return the folder, or one with a number behind it that isn't there yet."""
    names = (folder.with_name(f"{folder.name}.{i}") for i in itertools.count(1))
    return next(path for path in itertools.chain([folder], names) if not path.exists())

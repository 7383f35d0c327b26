"""Checkpoints: a folder of safetensors and JSON that is complete or absent."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from baq_cli.agents.interface import StoreName
from baq_cli.agents.registry import method_configs
from baq_cli.engine.checkpoints.document import (
    check_agent,
    check_blocks,
    check_document,
    check_state,
    check_streams,
)
from baq_cli.engine.checkpoints.resume_state import check_resumable
from baq_cli.engine.checkpoints.tensors import read_document, read_tensors, tensor_bytes
from baq_cli.errors import DataError, Unreadable
from baq_cli.plain_files import read, sync_folder
from baq_cli.recipes.load import reopen
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.files import (
    ABSENT,
    disk_errors,
    json_bytes,
    read_errors,
    read_json,
    replace_file,
    write_synced,
)
from baq_cli.units import UNITS, Phase
from baq_cli.untrusted import read_text

FORMAT = 2
DOCUMENT_KEYS = (
    *("algo", "phase", "recipe", "seeds", "env_id", "spaces", "return_range", "dataset"),
    *("gradient_steps", "env_steps", "history"),
)
STATE_KEYS = ("phase", "done", "evaluations", "pending", "episodes", "threads", "sizes", "blocks")
AGENT, TRAINING, REPLAY, STATE = (
    "agent.safetensors",
    "training.safetensors",
    "replay.safetensors",
    "state.json",
)
ROWS = "rows"
"""How the online store's blocks are named; others have their store's name."""
CHECKPOINTS, LATEST, PARTIAL, DAMAGED = "checkpoints", "latest", ".partial-", "damaged-"
NAME = re.compile(r"(offline|online)-([0-9]{1,18})(?:\.([0-9]{1,9}))?")
"""A checkpoint's folder; a name of another form leads nowhere."""
Tensors = dict[str, Tensor]
Blocks = list[Tensors | None]


@dataclass
class Checkpoint:
    """What a checkpoint folder holds.

    agent: parameters, targets, buffers and input statistics; `document` describes them (spaces,
        environment, dataset, recipe, versions, history). This file alone can be evaluated,
        fine-tuned or exported.
    training: optimiser moments and random streams. state: counters. replay: the running episodes.
    blocks: the online store, by blocks of rows; to save, None for a block that is as the
        checkpoint in `folder` has it. Read back, all are there, and `folder` is where they lie.
    others: the same of the other stores: own columns of the dataset's rows, a model's rows.
    damaged: later checkpoints of the run that couldn't be read, oldest first.
    """

    document: dict[str, Any]
    agent: Tensors
    training: Tensors = field(default_factory=dict)
    replay: Tensors = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    blocks: Blocks = field(default_factory=list)
    others: dict[str, Blocks] = field(default_factory=dict)
    folder: Path | None = None
    damaged: list[Path] = field(default_factory=list)

    def kept(self) -> dict[StoreName, list[Tensors]]:
        """Return the blocks of every store, read back whole."""
        names: dict[StoreName, Blocks] = {"online": self.blocks}
        for name in ("offline", "model"):
            names[name] = self.others.get(name, [])
        return {name: [b for b in blocks if b is not None] for name, blocks in names.items()}


def save(run: Path, phase: Phase, counter: int, checkpoint: Checkpoint) -> Path:
    """Write `run/checkpoints/<phase>-<counter>` and point `latest` at it; return the folder.

    What is there stays as it is: where the counter's folder exists, the new one has a number of
    its own behind it. Unchanged blocks are links to the files of the checkpoint before.
    Raises DataError when the disk refuses; earlier checkpoints stay as they were.
    """
    root = run / CHECKPOINTS
    name = f"{phase}-{counter}"
    partial = root / f"{PARTIAL}{name}"
    with disk_errors(f"write the checkpoint {root / name}"):
        try:
            for left in root.glob(f"{PARTIAL}*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            root.mkdir(parents=True, exist_ok=True)
            sync_folder(run)
            partial.mkdir()
            _write(partial, checkpoint)
            sync_folder(partial)
            folder = _free(root / name)
            os.rename(partial, folder)
            replace_file(root / LATEST, folder.name.encode())
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return folder


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    write_synced(folder / AGENT, tensor_bytes(checkpoint.agent, checkpoint.document))
    write_synced(folder / TRAINING, tensor_bytes(checkpoint.training))
    if checkpoint.replay:
        write_synced(folder / REPLAY, tensor_bytes(checkpoint.replay))
    for store, blocks in {ROWS: checkpoint.blocks, **checkpoint.others}.items():
        for number, block in enumerate(blocks):
            name = _block(store, number)
            if block is not None:
                write_synced(folder / name, tensor_bytes(block))
            else:
                assert checkpoint.folder is not None
                _link(checkpoint.folder / name, folder / name)
    others = {store: len(blocks) for store, blocks in checkpoint.others.items() if blocks}
    state = checkpoint.state | {"blocks": len(checkpoint.blocks), "others": others}
    write_synced(folder / STATE, json_bytes(state))


def _block(store: str, number: int) -> str:
    return f"{store}-{number:05}.safetensors"


def _link(before: Path, now: Path) -> None:
    """Give a file a second name; where the disk can't, copy it."""
    try:
        os.link(before, now)
    except OSError:
        write_synced(now, read(before, None))


def _free(folder: Path) -> Path:
    """Return the folder, or one with a number behind it that isn't there yet."""
    names = (folder.with_name(f"{folder.name}.{i}") for i in itertools.count(1))
    return next(path for path in itertools.chain([folder], names) if not path.exists())


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
        aside = _free(folder.with_name(DAMAGED + folder.name))
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


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; the parts that a lone agent file lacks stay empty.

    Raises DataError when it is missing or damaged, and Unreadable when the disk doesn't give it or
    it is of another format.
    """
    checkpoint = load_agent_file(path)
    folder = locate(path).parent
    if (folder / STATE).is_file():
        checkpoint.folder = folder
        checkpoint.state = read_json(folder / STATE)
        _require(checkpoint.state, STATE_KEYS, folder / STATE)
        check_state(checkpoint.state, checkpoint.document, folder / STATE)
        checkpoint.training = read_tensors(folder / TRAINING)
        if (folder / REPLAY).is_file():
            checkpoint.replay = read_tensors(folder / REPLAY)
        counts = {ROWS: checkpoint.state["blocks"], **checkpoint.state.get("others", {})}
        found = {
            store: [read_tensors(folder / _block(store, number)) for number in range(count)]
            for store, count in counts.items()
        }
        seeds = len(checkpoint.document["seeds"])
        check_streams(checkpoint.training, seeds, folder)
        for store, blocks in found.items():
            check_blocks(store, blocks, seeds, folder)
        checkpoint.blocks = [*found.pop(ROWS)]
        checkpoint.others = {store: [*blocks] for store, blocks in found.items()}
    return checkpoint


def load_newest(run: Path, observer: Observer) -> Checkpoint:
    """Read a run's newest checkpoint; where it is damaged, the newest one that is not.

    One that may be whole is never passed over. Raises DataError when none can be read.
    """
    folders = complete(run)[::-1]
    if not folders:
        return load(run)
    failures = []
    for folder in folders:
        try:
            found = load(folder)
            check_resumable(
                *(found.document, found.state, found.training, found.replay),
                *(found.blocks, found.others, folder),
            )
        except Unreadable:
            raise
        except DataError as error:
            failures.append(str(error))
            continue
        for failure in failures:
            observer(Note(f"{failure} Going back to {folder}."))
        found.damaged = folders[: len(failures)][::-1]
        return found
    raise DataError("\n".join(failures))


def _latest(run: Path) -> Path | None:
    """Return the folder that `latest` names, if it can be read and names a checkpoint."""
    try:
        name = read_text(run / CHECKPOINTS / LATEST, 100).strip()
    except (OSError, ValueError):
        return None
    return run / CHECKPOINTS / name if NAME.fullmatch(name) else None


def load_agent_file(path: Path) -> Checkpoint:
    """Read a checkpoint's agent and nothing beside it: acting needs no more.

    Raises DataError as `load` does.
    """
    file = locate(path)
    document = read_document(file, follow=file == path)
    if document.get("format") != FORMAT:
        raise Unreadable(
            f"{file} has checkpoint format {document.get('format')}, this version reads {FORMAT}. "
            "Upgrade with 'pip install --upgrade baq-cli'."
        )
    _require(document, DOCUMENT_KEYS, file)
    check_document(document, file)
    tensors = read_tensors(file, follow=file == path)
    check_agent(document, tensors, file)
    document["recipe"] = reopen(document["recipe"], method_configs()).as_dict()
    return Checkpoint(document, tensors)


def _require(found: dict[str, Any], keys: tuple[str, ...], file: Path) -> None:
    missing = [key for key in keys if key not in found]
    if missing:
        raise DataError(f"{file} is damaged: it has no {', '.join(missing)}")


def agent_tensors(saved: Checkpoint) -> dict[str, Tensor]:
    """Return a checkpoint's tensors without the input statistics."""
    return {k: v for k, v in saved.agent.items() if not k.startswith("inputs.")}

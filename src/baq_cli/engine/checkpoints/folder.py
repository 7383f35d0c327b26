"""Checkpoints: a folder of safetensors and JSON that is complete or absent."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from baq_cli.agents.plans import StoreName
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
from baq_cli.runs.checkpoints import (
    AGENT,
    CHECKPOINTS,
    LATEST,
    PARTIAL,
    STATE,
    complete,
    free_name,
    locate,
)
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.files import (
    disk_errors,
    json_bytes,
    read_json,
    replace_file,
    write_synced,
)
from baq_cli.units import Phase

FORMAT = 2
DOCUMENT_KEYS = (
    *("algo", "phase", "recipe", "seeds", "env_id", "spaces", "return_range", "dataset"),
    *("gradient_steps", "env_steps", "history"),
)
STATE_KEYS = ("phase", "done", "evaluations", "pending", "episodes", "threads", "sizes", "blocks")
TRAINING, REPLAY = "training.safetensors", "replay.safetensors"
ROWS = "rows"
"""How the online store's blocks are named; others have their store's name."""
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
            folder = free_name(root / name)
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

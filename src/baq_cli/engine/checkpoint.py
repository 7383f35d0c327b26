"""Checkpoints: a folder of safetensors and JSON that is complete or absent."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from baq_cli.engine.events import Phase
from baq_cli.engine.files import (
    disk_errors,
    read_document,
    read_json,
    read_tensors,
    replace_file,
    tensor_bytes,
    write_synced,
)
from baq_cli.errors import DataError

FORMAT = 1
DOCUMENT_KEYS = (
    *("algo", "phase", "recipe", "seeds", "env_id", "spaces", "return_range", "dataset"),
    *("gradient_steps", "env_steps", "history"),
)
STATE_KEYS = ("phase", "done", "evaluations", "pending", "episodes", "threads", "sizes")
AGENT, TRAINING, REPLAY, STATE = (
    "agent.safetensors",
    "training.safetensors",
    "replay.safetensors",
    "state.json",
)


@dataclass
class Checkpoint:
    """What a checkpoint folder holds.

    agent: parameters, targets, buffers and input statistics; `document` describes them (spaces,
        environment, dataset, recipe, versions, history). This file alone can be evaluated,
        fine-tuned or exported.
    training: optimiser moments and random streams. replay: the online store. state: counters.
    """

    document: dict[str, Any]
    agent: dict[str, Tensor]
    training: dict[str, Tensor] = field(default_factory=dict)
    replay: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


def save(run: Path, phase: Phase, counter: int, checkpoint: Checkpoint) -> Path:
    """Write `run/checkpoints/<phase>-<counter>` and point `latest` at it; return the folder.

    Raises DataError when the disk refuses; earlier checkpoints stay as they were.
    """
    root = run / "checkpoints"
    folder = root / f"{phase}-{counter}"
    partial = root / f".partial-{folder.name}"
    with disk_errors(f"write the checkpoint {folder}"):
        try:
            partial.mkdir(parents=True, exist_ok=True)
            write_synced(partial / AGENT, tensor_bytes(checkpoint.agent, checkpoint.document))
            write_synced(partial / TRAINING, tensor_bytes(checkpoint.training))
            if checkpoint.replay:
                write_synced(partial / REPLAY, tensor_bytes(checkpoint.replay))
            write_synced(partial / STATE, json.dumps(checkpoint.state, indent=1).encode())
            if folder.exists():
                shutil.rmtree(folder)
            os.rename(partial, folder)
            _sync_folder(root)
            replace_file(root / "latest", folder.name.encode())
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return folder


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def prune(run: Path, phase: Phase, keep: int, keep_agents: bool) -> None:
    """Drop all but the newest `keep` checkpoints of a phase, or reduce them to their agent."""
    folders = [
        folder
        for folder in (run / "checkpoints").glob(f"{phase}-*")
        if (folder / STATE).exists() and folder.name.rpartition("-")[2].isdigit()
    ]
    folders.sort(key=lambda folder: int(folder.name.rpartition("-")[2]))
    for folder in folders[:-keep]:
        if keep_agents:
            for name in (STATE, TRAINING, REPLAY):
                (folder / name).unlink(missing_ok=True)
        else:
            shutil.rmtree(folder)


def locate(path: Path) -> Path:
    """Find the agent.safetensors that a run, a checkpoint folder or a file stands for.

    Raises DataError when there is none.
    """
    if path.is_file():
        return path
    latest = path / "checkpoints" / "latest"
    if latest.is_file():
        path = latest.parent / latest.read_text(encoding="utf-8").strip()
    if not (path / AGENT).is_file():
        raise DataError(
            f"no checkpoint at {path}: expected a run (with checkpoints/latest), a checkpoint "
            f"folder, or an {AGENT}. 'baq pretrain --out {path}' makes one."
        )
    return path / AGENT


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; the parts that a lone agent file lacks stay empty.

    Raises DataError when it is missing, damaged, or of a newer format.
    """
    checkpoint = load_agent_file(path)
    folder = locate(path).parent
    if (folder / STATE).is_file():
        checkpoint.state = read_json(folder / STATE)
        _require(checkpoint.state, STATE_KEYS, folder / STATE)
        checkpoint.training = read_tensors(folder / TRAINING)
        if (folder / REPLAY).is_file():
            checkpoint.replay = read_tensors(folder / REPLAY)
    return checkpoint


def load_agent_file(path: Path) -> Checkpoint:
    """Read a checkpoint's agent and nothing beside it: acting needs no more.

    Raises DataError as `load` does.
    """
    file = locate(path)
    document = read_document(file)
    if document.get("format") != FORMAT:
        raise DataError(
            f"{file} has checkpoint format {document.get('format')}, this version reads {FORMAT}. "
            "Upgrade with 'pip install --upgrade baq-cli'."
        )
    _require(document, DOCUMENT_KEYS, file)
    return Checkpoint(document, read_tensors(file))


def _require(found: dict[str, Any], keys: tuple[str, ...], file: Path) -> None:
    missing = [key for key in keys if key not in found]
    if missing:
        raise DataError(f"{file} is damaged: it has no {', '.join(missing)}")


def agent_tensors(saved: Checkpoint) -> dict[str, Tensor]:
    """Return a checkpoint's tensors without the input statistics."""
    return {k: v for k, v in saved.agent.items() if not k.startswith("inputs.")}

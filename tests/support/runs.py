"""Small runs for the tests, in this process: their recipes, and what they leave behind."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.phases.commands import run_finetune, run_pretrain
from baq_cli.engine.phases.request import RunRequest
from baq_cli.errors import Interrupted
from baq_cli.recipes.load import resolve
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.checkpoints import complete
from baq_cli.runs.events import Evaluated, Event, Note
from baq_cli.runs.folder import read_metrics
from baq_cli.runs.transitions import NAME

Evaluations = list[tuple[int, list[list[float]]]]
"""When an observer heard of evaluations, by the phase's counter, and of which returns."""


def recipe_of(algo: str, method: dict[str, Any], **run: Any) -> Recipe:
    """Return a recipe of two seeds and networks of 8 units, which keeps every checkpoint."""
    small = {"hidden": [8, 8], "batch_size": 8}
    layer = {"algo": algo, "seeds": [0, 1], "device": "cpu", "threads": 1, "keep_checkpoints": 99}
    layer |= {"env_workers": False, "evaluation": {"episodes": 1, "background": False}}
    return resolve([layer, run, {algo: small | method}], method_configs())


def execute(
    recipe: Recipe,
    out: Path,
    resume: bool = False,
    source: Path | None = None,
    notes: list[str] | None = None,
) -> Evaluations:
    """Fine-tune a source; else pre-train on a dataset, or fine-tune from scratch.

    A method without an offline phase begins from scratch beside a dataset, too.

    What the observer is told in words goes to `notes`.
    """
    heard: Evaluations = []

    def observe(event: Event) -> None:
        if isinstance(event, Evaluated):
            heard.append((event.done, event.returns.tolist()))
        if isinstance(event, Note) and notes is not None:
            notes.append(event.text)

    order = RunRequest(out, observe, "baq", "baq --resume", resume)
    offline = METHODS[recipe.run.algo].learns_offline
    if source is None and recipe.run.dataset is not None and offline:
        run_pretrain(recipe, order)
    else:
        run_finetune(recipe, order, None if source is None else load(source))
    return heard


def stored_rows(run: Path) -> Tensor:
    """Return the rows that a run's last checkpoint keeps of its own stores, `[S, T, width]`."""
    return torch.cat([block["rows"] for block in load(run).blocks if block is not None], dim=1)


def noting(found: list[str], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that notes its name before it does what it did."""

    def noted(*args: Any, **known: Any) -> Any:
        found.append(name)
        return method(*args, **known)

    return noted


def states(run: Path) -> dict[str, dict[str, Any]]:
    """Return what state.json says of each whole checkpoint, oldest first, by the folder's name."""
    return {each.name: json.loads((each / "state.json").read_text()) for each in complete(run)}


def stopped_at(run: Path, name: str, copy: Path) -> Path:
    """Copy a run as it would be had it died after this checkpoint; its CSVs may have gone on."""
    shutil.copytree(run, copy)
    names = list(states(run))
    for later in names[names.index(name) + 1 :]:
        shutil.rmtree(copy / "checkpoints" / later)
    (copy / "checkpoints" / "latest").write_text(name)
    return copy


def stop_at(
    owner: Any,
    name: str,
    calls: int,
    recipe: Recipe,
    out: Path,
    source: Path | None = None,
    resume: bool = False,
) -> None:
    """Run until a signal comes at the end of so many calls of a method, and the run is saved."""
    method, made = getattr(owner, name), itertools.count(1)

    def signalled(*args: Any, **settings: Any) -> Any:
        found = method(*args, **settings)
        if next(made) == calls:
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, signalled)
        with pytest.raises(Interrupted):
            execute(recipe, out, resume, source)


def last_tensors(run: Path) -> dict[str, Tensor]:
    """Return every tensor of a run's last checkpoint."""
    folder = run / "checkpoints" / (run / "checkpoints" / "latest").read_text()
    found: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors = safetensors.torch.load_file(file)
        found |= {f"{file.stem}/{name}": value for name, value in tensors.items()}
    return found


def assert_same_logs(one: Path, other: Path) -> None:
    """Check metrics, but for the time they took, and diagnostics."""
    metrics = [
        [{k: v for k, v in row.items() if k != "wall_seconds"} for row in read_metrics(run)]
        for run in (one, other)
    ]
    assert metrics[0] == metrics[1]
    assert (one / "diagnostics.csv").read_text() == (other / "diagnostics.csv").read_text()


def assert_same_end(one: Path, other: Path) -> None:
    """Check logs, transitions, and last checkpoints bit for bit."""
    assert_same_logs(one, other)
    kept = [run / NAME for run in (one, other)]
    assert kept[0].exists() == kept[1].exists()
    assert not kept[0].exists() or kept[0].read_bytes() == kept[1].read_bytes()
    first, second = last_tensors(one), last_tensors(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert (tensor.dtype, tensor.shape) == (second[name].dtype, second[name].shape), name
        assert tensor.numpy().tobytes() == second[name].numpy().tobytes(), name

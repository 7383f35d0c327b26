"""What a checkpoint keeps of who acts in the policy's place, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baq_cli.engine.checkpoints.expected import damaged

STREAM = "intervene"
STATE = f"{STREAM}.state"
LEFT = f"{STREAM}.queue_left"
QUEUE = f"{STREAM}.queue"


def intervention_tensors(
    document: dict[str, Any],
    state: dict[str, Any],
    training: Mapping[str, Tensor],
    replay: Mapping[str, Tensor],
    folder: Path,
) -> frozenset[str]:
    """Return the names of the replay's tensors that are of whoever acts in the policy's place.

    Raises DataError where they, or the random stream, are missing or can't be what was saved.
    """
    recipe = document["recipe"]
    rule, shadow, control = (recipe.get(key) for key in ("intervention", "shadow", "control"))
    by_policy = rule is not None and rule["by"].startswith("policy:")
    if control is not None or not (by_policy or shadow):  # people keep nothing
        return frozenset()
    seeds, action_dim = len(document["seeds"]), len(document["spaces"]["action_low"])
    stream, rows = training.get(f"stream.{STREAM}"), replay.get(STATE)
    if state.get("intervention") is None or stream is None or len(stream) != seeds or rows is None:
        raise damaged(folder, "it lacks what goes on of who takes over")
    fits = rows.shape == (seeds, 4) and rows.dtype == torch.int64
    if not fits or bool((rows[:, 0] < -1).any() or (rows[:, 1:] < 0).any()):
        raise damaged(folder, f"'{STATE}' is {rows.dtype} {list(rows.shape)}, no take-overs")
    if (QUEUE in replay) != (LEFT in replay):
        raise damaged(folder, f"it has one of '{QUEUE}' and '{LEFT}' alone")
    if QUEUE in replay:
        _check_queue(replay[QUEUE], replay[LEFT], seeds, action_dim, folder)
    return frozenset({STATE, QUEUE, LEFT} & set(replay))


def _check_queue(queue: Tensor, left: Tensor, seeds: int, action_dim: int, folder: Path) -> None:
    fits = queue.ndim == 2 and queue.dtype == torch.float32 and len(queue) == seeds
    fits = fits and queue.shape[1] % action_dim == 0 and left.shape == (seeds,)
    chunk = queue.shape[-1] // action_dim
    if not fits or left.dtype != torch.int64 or not bool(((left >= 0) & (left <= chunk)).all()):
        raise damaged(folder, f"'{QUEUE}' and '{LEFT}' are no actions that are still to do")

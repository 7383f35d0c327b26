"""What a checkpoint keeps for a resume, checked against the agent that it describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.engine.checkpoints.document import bare_agent
from baq_cli.engine.checkpoints.expected import ESTIMATE, Shape, check_shapes, damaged, shape_of
from baq_cli.engine.checkpoints.intervention_state import intervention_tensors
from baq_cli.engine.checkpoints.kept_state import check_state
from baq_cli.engine.experience.columns import columns_of
from baq_cli.engine.experience.store import Layout
from baq_cli.engine.experience.stores import make_stores, own_columns
from baq_cli.engine.updates.learner import Learner
from baq_cli.nets.streams import SeedStream

Tensors = Mapping[str, Tensor]
CARD_BYTES = 16
"""Of the state of a generator on a CUDA card: a seed and an offset."""


def check_resumable(
    document: dict[str, Any],
    state: dict[str, Any],
    training: Tensors,
    replay: Tensors,
    blocks: Sequence[Tensors | None],
    others: Mapping[str, Sequence[Tensors | None]],
    folder: Path,
) -> None:
    """Check what a run continues from; the document, and the agent, have been checked before.

    Raises DataError, naming what doesn't fit: a counter, a tensor's name, shape or type, the state
    of a random stream, rows of the store that nobody wrote, an episode in rows that aren't there.
    """
    check_state(state, document["phase"], len(document["seeds"]), folder)
    agent = bare_agent(document, folder)
    _check_training(agent, state, training, folder)
    _check_stages(agent, state, training, folder)
    _check_others(agent, state, others, folder)
    if document["phase"] == "online":
        found = [block for block in blocks if block is not None]
        _check_store(agent, document, state, found, folder)
        others_own = intervention_tensors(document, state, training, replay, folder)
        if document["recipe"].get("shadow") is not None and state.get("shadow") is None:
            raise damaged(folder, "it lacks how near what was done was to what was proposed")
        alone = {name: tensor for name, tensor in replay.items() if name not in others_own}
        _check_episodes(agent, state, alone, sum(b["rows"].shape[1] for b in found), folder)
        _check_done(agent, document, replay, folder)


def _check_training(agent: Agent, state: dict[str, Any], training: Tensors, folder: Path) -> None:
    own = {name: shape_of(tensor) for name, tensor in agent.state_dict().items()}
    acting = {n: shape for n, shape in own.items() if n.startswith(agent.acting_parts())}
    moments = Learner(agent).optimizer_state()
    expected = {name: shape_of(tensor) for name, tensor in moments.items()}
    for number in range(len(state["pending"])):
        expected |= {f"pending.{number}.{name}": shape for name, shape in acting.items()}
    if any(name.startswith("guard.") for name in training):
        expected |= {f"guard.{name}": shape for name, shape in own.items()}
    streams = {name for name in training if name.startswith("stream.")}
    for name in streams:
        _check_stream(training[name], name, folder)
    changing = {n for n in training if agent.reprioritises and n.startswith("priorities.")}
    for name in changing:
        _check_priorities(training[name], f"'{name}'", len(agent.spec.seeds), folder)
    found = {n: shape_of(tensor) for n, tensor in training.items() if n not in streams | changing}
    found = {name: shape for name, shape in found.items() if not name.startswith(ESTIMATE)}
    check_shapes(found, expected, folder)


def _check_stream(states: Tensor, name: str, folder: Path) -> None:
    """Raise DataError for what is no state of the generators of a CPU; those of a card are taken.

    Whether a card takes them is seen when it does.
    """
    width = SeedStream((0,), name).state().shape[1]
    fits = states.ndim == 2 and states.shape[1] in (width, CARD_BYTES)
    if not fits or states.dtype != torch.uint8:
        raise damaged(folder, f"'{name}' is {states.dtype} {list(states.shape)}, no random stream")
    if states.shape[1] == width:
        try:
            SeedStream(range(len(states)), name).restore(states)
        except RuntimeError as error:
            raise damaged(folder, f"'{name}' is the state of no random stream") from error


def _check_priorities(values: Tensor, name: str, seeds: int, folder: Path) -> None:
    fits = values.ndim == 2 and len(values) == seeds and values.dtype == torch.float64
    if not fits or not bool(((values >= 0) & values.isfinite()).all()):
        raise damaged(folder, f"{name} has priorities that are not finite, or negative")


def _check_stages(agent: Agent, state: dict[str, Any], training: Tensors, folder: Path) -> None:
    """Check where the stages before the phase are, and that routines have numbers to draw."""
    plan = agent.online_plan() if agent.phase == "online" else agent.offline_plan()
    if plan.first or plan.routines:
        stream = training.get("stream.routine")
        if stream is None or len(stream) != len(agent.spec.seeds):
            raise damaged(folder, "it lacks the random stream 'stream.routine'")
    kept = state.get("stages") or {"done": 0, "steps": 0}
    left = [stage.steps for stage in plan.first[kept["done"] :]]
    if kept["done"] > len(plan.first) or kept["steps"] >= (left or [1])[0]:
        raise damaged(
            folder,
            f"it is at update {kept['steps']} behind {kept['done']} stages, where the method's "
            f"have {[stage.steps for stage in plan.first]} updates",
        )


def _check_others(
    agent: Agent,
    state: dict[str, Any],
    others: Mapping[str, Sequence[Tensors | None]],
    folder: Path,
) -> None:
    """Check the method's own columns of the dataset's rows, and what a model made."""
    online = state["phase"] == "online"
    plan = agent.online_plan() if online else agent.offline_plan()
    own = own_columns(agent) if online else ()  # before it a method may lack what it needs for them
    layout = Layout(agent.spec.obs_dim, agent.spec.action_dim, columns_of(agent, plan))
    width = {"offline": len(own), "model": layout.width + len(own)}
    for name, blocks in others.items():
        kept = [block for block in blocks if block is not None]
        field = "own" if name == "offline" else "rows"
        for block in kept:
            expected = {field: ((*block[field].shape[:2], width[name]), torch.float32)}
            check_shapes({n: shape_of(tensor) for n, tensor in block.items()}, expected, folder)
        rows = sum(block[field].shape[1] for block in kept)
        if name == "model" and rows != min(state.get("model_written", 0), plan.model_capacity):
            raise damaged(folder, f"its model store has {rows} rows a seed, not as many as made")


def _check_store(
    agent: Agent,
    document: dict[str, Any],
    state: dict[str, Any],
    blocks: Sequence[Tensors],
    folder: Path,
) -> None:
    plan, written = agent.online_plan(), state["written"]
    _, online = make_stores(agent, plan, None, 1)
    rows = sum(block["rows"].shape[1] for block in blocks)
    if rows != min(written, plan.capacity) or written > document["env_steps"]:
        raise damaged(
            folder,
            f"its store has {rows} rows a seed where {written:,} were written in "
            f"{document['env_steps']:,} env_steps",
        )
    for number, block in enumerate(blocks):
        expected = {"rows": (*block["rows"].shape[:2], online.layout.width)}
        if online.priorities is not None and online.keeps_priorities:
            expected["priorities"] = block["rows"].shape[:2]
        check_shapes(
            {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in block.items()},
            {
                name: (shape, torch.float32 if name == "rows" else torch.float64)
                for name, shape in expected.items()
            },
            folder,
        )
        kept = block.get("priorities")
        if kept is not None:
            _check_priorities(kept, f"block {number}", len(agent.spec.seeds), folder)


def _check_episodes(
    agent: Agent, state: dict[str, Any], replay: Tensors, rows: int, folder: Path
) -> None:
    seeds = len(agent.spec.seeds)
    expected: dict[str, Shape] = {"obs": ((seeds, agent.spec.obs_dim), torch.float32)}
    if "action" in replay:
        expected["action"] = ((seeds, agent.spec.action_dim), torch.float32)
    if agent.chunk > 1:
        expected["queue"] = ((seeds, agent.chunk * agent.spec.action_dim), torch.float32)
        expected["queue_left"] = ((seeds,), torch.int64)
    for i, episode in enumerate(state["running"]):
        steps = len(episode["rewards"])
        if steps:
            expected[f"running.{i}.actions"] = ((steps, agent.spec.action_dim), torch.float32)
        if f"running.{i}.executed" in replay:
            expected[f"running.{i}.executed"] = ((steps, agent.spec.action_dim), torch.float64)
        if len(episode["slots"]) != steps or max(episode["slots"], default=-1) >= rows:
            raise damaged(folder, f"running episode {i} lies in rows that are not there")
    check_shapes({name: shape_of(tensor) for name, tensor in replay.items()}, expected, folder)


def _check_done(agent: Agent, document: dict[str, Any], replay: Tensors, folder: Path) -> None:
    """Check the numbers of what was decided on ahead, and of what was done in its place."""
    left = replay.get("queue_left")
    if left is not None and not bool(((left >= 0) & (left <= agent.chunk)).all()):
        raise damaged(folder, f"more is left of its chunks than the {agent.chunk} actions of each")
    low, high = (
        torch.tensor(document["spaces"][end], dtype=torch.float64)
        for end in ("action_low", "action_high")
    )
    for name, done in replay.items():
        if name.endswith(".executed"):
            inside = ((done >= low) & (done <= high)).all(1)
            if not bool((inside | done.isnan().all(1)).all()):
                raise damaged(folder, f"'{name}' has actions outside of the action space")

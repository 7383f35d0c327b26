"""What a checkpoint keeps for a resume, checked against the run that it describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.engine.checkpoints.document import bare_agent
from baq_cli.engine.checkpoints.expected import ESTIMATE, Shape, check_shapes, damaged, shape_of
from baq_cli.engine.checkpoints.intervention_state import intervention_tensors
from baq_cli.engine.experience.columns import columns_of
from baq_cli.engine.experience.store import Layout
from baq_cli.engine.experience.stores import make_stores, own_columns
from baq_cli.engine.updates.learner import Learner
from baq_cli.envs.safety import LimitName
from baq_cli.nets.streams import SeedStream
from baq_cli.runs.checked import (
    Checked,
    Count,
    Finite,
    GuardEvent,
    Logs,
    Name,
    check_content,
)
from baq_cli.units import Phase

Tensors = Mapping[str, Tensor]
CARD_BYTES = 16
"""Of the state of a generator on a CUDA card: a seed and an offset."""


class _Counters(Checked):
    phase: Phase
    seed: Count
    gradient_steps: Count
    env_steps: Count
    episodes: Count
    wall_seconds: Finite


class _Pending(Checked):
    model_config = ConfigDict(strict=True, extra="forbid")

    done: Count
    number: Name
    counters: list[_Counters]


class _Guard(Checked):
    arrays: tuple[
        list[Finite | None], list[Finite | None], list[Count], list[Count], list[Finite]
    ] = Field(strict=False)
    bad_episodes: list[Count]
    events: list[GuardEvent]
    stopped: bool


class _Stages(Checked):
    """How many stages before the phase are over, and the updates of the one under way.

    `routines` is the counter of the phase before whose step routines were last done.
    """

    done: Count
    steps: Count
    routines: Count | None = None


_Point = Annotated[tuple[Count, list[Count]], Field(strict=False)]
"""env_steps of the run, and a count of each seed."""


class _LimitStop(Checked):
    env_steps: Count
    seed: Count
    limit: Name
    why: str = Field(max_length=1000)


class _Limits(Checked):
    """How often limits acted, by seed, and where one stopped the run."""

    acted: dict[LimitName, list[Count]]
    stops: list[_LimitStop]


class _LimitsNear(Checked):
    outside: list[Count]
    waiting: list[bool]


class _Shadow(Checked):
    steps: Count
    difference: list[Finite]
    near: list[Count]


class _Kept(Checked):
    """A state that a run goes on from."""

    done: Count
    evaluations: Count
    pending: list[_Pending]
    faults: Count
    guard: _Guard
    episodes: list[Count]
    taken_over: list[Count] | None = None
    limits: _Limits | None = None
    shadow: _Shadow | None = None
    taken_over_course: list[_Point] | None = None
    marks: tuple[list[Count], list[Count]] | None = Field(None, strict=False)
    metrics_sum: dict[str, list[Finite]]
    metrics_count: dict[str, list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]]
    wall_seconds: Finite
    inherited: Count = 0
    sizes: Logs
    stages: _Stages | None = None
    model_written: Count = 0


class _Running(Checked):
    start_seed: Count
    rewards: list[Finite]
    slots: list[Count]


class _Intervention(Checked):
    sha256: Name


class _Control(Checked):
    """Where a run on the wall clock is in its logs."""

    updates: Count
    version: Count
    turns: Count
    episode: int = Field(ge=-1, lt=2**63)
    ended: list[tuple[Finite, Count]] = Field(strict=False)


class _KeptOnline(_Kept):
    written: Count
    owed: bool
    control: _Control | None = None
    intervention: _Intervention | None = None
    acting: Literal["cpu", "device"]
    running: list[_Running]
    limits_near: _LimitsNear | None = None
    transitions: Count | None = None


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
    online = document["phase"] == "online"
    check_content(_KeptOnline if online else _Kept, state, folder / "state.json")
    agent = bare_agent(document, folder)
    _check_lengths(state, len(document["seeds"]), folder)
    _check_training(agent, state, training, folder)
    _check_stages(agent, state, training, folder)
    _check_others(agent, state, others, folder)
    if online:
        found = [block for block in blocks if block is not None]
        _check_store(agent, document, state, found, folder)
        others_own = intervention_tensors(document, state, training, replay, folder)
        if document["recipe"].get("shadow") is not None and state.get("shadow") is None:
            raise damaged(folder, "it lacks how near what was done was to what was proposed")
        alone = {name: tensor for name, tensor in replay.items() if name not in others_own}
        _check_episodes(agent, state, alone, sum(b["rows"].shape[1] for b in found), folder)
        _check_done(agent, document, replay, folder)


def _check_lengths(state: dict[str, Any], seeds: int, folder: Path) -> None:
    lists = {
        "episodes": state["episodes"],
        "guard": state["guard"]["bad_episodes"],
        "running": state.get("running", [None] * seeds),
        "taken_over": state.get("taken_over") or [None] * seeds,
        **{f"marks.{k}": marks for k, marks in enumerate(state.get("marks") or [])},
        **{f"taken_over_course.{n}": c for n, c in state.get("taken_over_course") or []},
        **{f"metrics '{name[:80]}'": sums for name, sums in state["metrics_sum"].items()},
        **{f"counts '{name[:80]}'": counts for name, counts in state["metrics_count"].items()},
    }
    kept = {name: state.get(name) or {} for name in ("limits", "limits_near", "shadow")}
    by_seed = kept["limits"].get("acted", {}) | kept["limits_near"] | kept["shadow"]
    lists |= {f"limits '{n}'": each for n, each in by_seed.items() if n != "steps"}
    lists |= {f"guard.arrays.{k}": array for k, array in enumerate(state["guard"]["arrays"])}
    lists |= {f"pending.{k}": kept["counters"] for k, kept in enumerate(state["pending"])}
    for name, values in lists.items():
        if len(values) != seeds:
            raise damaged(folder, f"{name} has {len(values)} entries for {seeds} seeds")
    if state["metrics_sum"].keys() != state["metrics_count"].keys():
        raise damaged(folder, "its metrics have other sums than counts")


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

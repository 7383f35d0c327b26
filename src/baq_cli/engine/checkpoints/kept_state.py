"""What a checkpoint's state.json says, checked by itself: bounded types, an entry for each seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from baq_cli.engine.checkpoints.expected import damaged
from baq_cli.envs.safety import LimitName
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


def check_state(state: dict[str, Any], phase: Phase, seeds: int, folder: Path) -> None:
    """Check the state that a run of a phase goes on from, for so many seeds.

    Raises DataError, naming the key that is missing or is no such thing.
    """
    model = _KeptOnline if phase == "online" else _Kept
    check_content(model, state, folder / "state.json")
    _check_lengths(state, seeds, folder)


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
    from_scratch: bool | None = None
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


class _Behind(Checked):
    critics: Count
    updates: Count


class _KeptOnline(_Kept):
    written: Count
    owed: bool
    behind: _Behind | None = None
    control: _Control | None = None
    intervention: _Intervention | None = None
    acting: Literal["cpu", "device"]
    running: list[_Running]
    limits_near: _LimitsNear | None = None
    transitions: Count | None = None


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

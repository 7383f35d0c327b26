"""Rows that are no steps, and logs without rewards: what a log can't say, said beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import FlatLog
from baq_cli.data.logs.mapping import Constant, Mapping, parse_mapping
from baq_cli.errors import DataError, UsageError

Array = npt.NDArray[Any]
OGBENCH = {
    "observation": "observations",
    "action": "actions",
    "truncated": "terminals",
    "last_row": "observation",
}
"""OGBench's files (Park et al. 2025, arXiv 2410.20092; ogbench/utils.py): no rewards, and
`terminals` marks each trajectory's last row, whose action leads nowhere."""
LAYOUTS: dict[str, dict[str, Any]] = {"steps": {"last_row": "step"}, "ogbench": OGBENCH}
"""Mappings by name."""
ROBOTS = ("lerobot", "robomimic")
"""Formats that a folder, or a file, is recognised by what is in it; --format settles it."""
_OGBENCH_HAS = {"observations", "actions", "terminals", "qpos", "qvel"}
_OGBENCH_LACKS = {
    *("rewards", "reward", "timeouts", "truncated", "truncations", "episode"),
    *("next_observations", "next_observation", "next_obs"),
}


def said(mapping: Mapping | None, layout: str | None, **flags: Any) -> Mapping | None:
    """Put a layout and flags over a mapping; a flag that is None says nothing.

    Raises UsageError for an unknown layout, and for one beside a mapping that names columns.
    """
    given = {} if mapping is None else mapping.model_dump(exclude_unset=True)
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"--layout {layout}: expected one of {', '.join(LAYOUTS)}")
    if flags.get("format") not in (None, *ROBOTS):
        raise UsageError(f"--format {flags['format']}: expected one of {', '.join(ROBOTS)}")
    if layout == "ogbench" and mapping is not None and mapping.names_columns:
        raise UsageError(
            "--layout ogbench names the columns, and so does the mapping: leave one of them out. "
            "In a mapping, 'last_row: observation' says the same of the last rows."
        )
    flags = {name: value for name, value in flags.items() if value is not None}
    merged = {**given, **(LAYOUTS[layout] if layout else {}), **flags}
    return parse_mapping(merged, "and the flags") if merged else None


def check_layout(names: Sequence[str], mapping: Mapping | None) -> None:
    """Raise UsageError where columns known by custom may be OGBench's, and nothing says so."""
    undecided = mapping is None or mapping.last_row is None
    looks = set(names) >= _OGBENCH_HAS and not _OGBENCH_LACKS & set(names)
    if looks and undecided:
        raise UsageError(
            "the log is laid out as OGBench's are (qpos and qvel beside the observations, no "
            "rewards). There, 'terminals' marks a trajectory's last row, which is an observation "
            "only: --layout ogbench reads it so, --layout steps takes every row for a step. With "
            "either say what the reward is: --reward constant:0, or another number."
        )


def with_own_rewards(mapping: Mapping | None, names: Sequence[str]) -> Mapping | None:
    """Take the rewards that OGBench's `relabel_dataset` made, where its layout is asked for."""
    if mapping is None or not _is_ogbench(mapping) or mapping.reward is not None:
        return mapping
    return mapping.model_copy(update={"reward": "rewards"}) if "rewards" in names else mapping


def ogbench_facts(mapping: Mapping | None) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return a note on which rewards OGBench's are, and an entry for a dataset's metadata.

    Its relabelling makes them of the state that a step begins in, in every version; its singletask
    environments do since 1.2.0 (README.md, "Caveats"; `success_timing`). Both are empty for a log
    that isn't read as OGBench's.
    """
    if mapping is None or not _is_ogbench(mapping):
        return (), {}
    with suppress(PackageNotFoundError):
        installed = version("ogbench")
        here = f"; ogbench {installed} is installed here"
        return (_rewards_note(mapping) + here,), {"ogbench": {"installed": installed}}
    return (_rewards_note(mapping),), {}


def _rewards_note(mapping: Mapping) -> str:
    own = "the rewards are the file's own" if mapping.reward == "rewards" else "no rewards are read"
    return (
        f"OGBench: {own}; its relabelling makes them of the state that a step begins in, r(s), and "
        "so do its singletask environments since 1.2.0, of the next one, r(s'), before"
    )


def _is_ogbench(mapping: Mapping) -> bool:
    return all(getattr(mapping, name) == value for name, value in OGBENCH.items())


def constant_rewards(reward: float, actions: Array) -> Array:
    """Return the same reward for every row; NaN where a row has no action, and so is no step."""
    rows = np.asarray(actions).reshape(len(actions), -1)
    missing = np.isnan(rows).all(1) if rows.dtype.kind == "f" and rows.shape[1] else False
    return np.where(missing, np.nan, np.full(len(rows), reward))


def reward_notes(mapping: Mapping | None) -> tuple[str, ...]:
    """Return what is said of rewards that are the same in every row because the user says so."""
    if mapping is None or not isinstance(mapping.reward, Constant):
        return ()
    return (f"every reward is {mapping.reward.constant:g}, as you said",)


def with_last_observations(log: FlatLog) -> FlatLog:
    """Take each episode's last row for its final observation, whatever action stands beside it.

    Returns the log with those actions and rewards taken out. An episode ends where its number
    changes, else at a flag and at the last row.
    Raises UsageError where next observations are recorded, DataError for an episode of one row.
    """
    if log.next_observations is not None:
        raise UsageError(
            "the log has next observations, so an episode's last row is a step like any other: "
            "leave 'last_row: observation' (--layout ogbench) out"
        )
    last = np.zeros(len(log.rewards), dtype=np.bool_)
    last[-1] = True
    if log.episode is not None:
        last[:-1] |= log.episode[1:] != log.episode[:-1]
    else:
        last |= log.terminated.astype(np.bool_)
        last |= False if log.truncated is None else log.truncated.astype(np.bool_)
    alone = last & np.append(True, last[:-1])
    if alone.any():
        raise DataError(
            f"row {int(alone.argmax())} (from 0) is an episode of its own, an observation without "
            "a step: remove it, or read every row as a step (--layout steps)"
        )
    actions, rewards = _float(log.actions), _float(log.rewards)
    actions[last], rewards[last] = np.nan, np.nan
    return replace(log, actions=actions, rewards=rewards)


def _float(array: Array) -> Array:
    """Return a copy that can hold NaN."""
    return array.astype(array.dtype if array.dtype.kind == "f" else np.float64)

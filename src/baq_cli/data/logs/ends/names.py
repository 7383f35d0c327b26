"""What the name of a column says that it holds: the words that logs use for ends and times."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """What a column may hold, in words that a message can use."""

    TERMINATED = "the task's end"
    TERMINAL_STATE = "the task's end, or its final observation"
    TRUNCATED = "the recording's end"
    DONE = "an end, for whatever reason"
    LAST = "an episode's last step"
    FIRST = "an episode's first step"
    RESET = "an episode's first step or its last"
    EPISODE = "an episode's number"
    LENGTHS = "an episode's length"
    STEP = "a time"
    REWARD = "a reward, a cost or a success"
    MASK = "an end, where it is 0"
    COUNT = "a count"

    __str__ = str.__str__  # as StrEnum has it, which Python 3.10 doesn't have


FLAGS = (
    *(Kind.TERMINATED, Kind.TERMINAL_STATE, Kind.TRUNCATED),
    *(Kind.DONE, Kind.LAST, Kind.FIRST, Kind.RESET),
)
"""Kinds of columns that mark rows with 1."""


@dataclass(frozen=True)
class Look:
    """What a name looks like; `certain` where nothing else is called so."""

    kind: Kind
    certain: bool


_UNITS = ("episode", "ep", "trajectory", "traj")
_CERTAIN: dict[Kind, tuple[str, ...]] = {
    Kind.TERMINATED: (
        *("terminated", "terminal", "terminals", "termination", "terminations"),
        "is_terminated",
    ),
    Kind.TERMINAL_STATE: ("is_terminal", "is_terminals"),
    Kind.TRUNCATED: (
        *("truncated", "truncation", "truncations", "is_truncated", "timeout", "timeouts"),
        *("time_out", "time_outs", "timed_out", "time_limit", "time_limits", "time_limit_reached"),
    ),
    Kind.DONE: (
        *("done", "dones", "is_done", "done_flag", "done_flags", "dones_float", "finished"),
        *(f"{unit}_done{s}" for unit in _UNITS for s in ("", "s")),
    ),
    Kind.LAST: (
        *("last", "is_last", "last_step", "is_last_step", "end", "ends", "is_end", "final"),
        *("is_final", "end_of_episode", "is_episode_end"),
        *(f"{unit}_{end}" for unit in _UNITS for end in ("end", "ends", "last")),
    ),
    Kind.FIRST: (
        *("first", "is_first", "first_step", "is_first_step", "start", "starts", "is_start"),
        *("start_of_episode", "new_episode", "is_new_episode", "is_episode_start"),
        *(f"{unit}_{start}" for unit in _UNITS for start in ("start", "starts", "first", "begin")),
    ),
    Kind.RESET: ("reset", "resets", "is_reset", "reset_flag", "episode_reset", "episode_resets"),
    Kind.EPISODE: (
        *("episode", "episodes", "trajectory_name", "episode_name"),
        *(
            f"{unit}_{number}"
            for unit in _UNITS
            for number in ("id", "ids", "index", "idx", "indices", "number", "num", "no", "nr")
        ),
    ),
    Kind.LENGTHS: (
        "lengths",
        *(
            f"{unit}_{size}"
            for unit in (*_UNITS, "path")
            for size in ("length", "lengths", "len", "lens")
        ),
    ),
}
_KINDS = {name: kind for kind, names in _CERTAIN.items() for name in names}
_MASKS = {"mask", "masks", "discount", "discounts", "step_type", "not_done", "not_dones"}
_MASKS |= {"nonterminal", "nonterminals", "non_terminal", "alive"}
_NUMBERS = {"ep", "eps", "traj", "trajs", "trajectory", "trajectories", "run", "demo", "trial"}
_NUMBERS |= {"rollout", "rollouts", "run_id", "demo_id", "trial_id", "rollout_id"}
_TIMES = {"t", "ts", "dt", "index", "seconds", "sec", "secs", "millis", "ms", "date", "datetime"}
_TIME_WORDS = {"time", "times", "timestamp", "timestamps", "timestep", "timesteps", "step", "steps"}
_TIME_WORDS |= {"frame", "frames", "clock", "stamp", "elapsed", "tick", "ticks"}
_REWARDS = {"r", "rew", "rews", "ret", "rtg", "goal_reached"}
_REWARD_WORDS = {"reward", "rewards", "return", "returns", "cost", "costs", "score", "scores"}
_REWARD_WORDS |= {"penalty", "penalties", "success", "successes", "rew", "regret"}
_END_WORDS = {"done", "dones", "terminal", "terminals", "terminated", "termination"}
_END_WORDS |= {"terminations", "truncated", "truncation", "truncations", "timeout", "timeouts"}
_END_WORDS |= {"reset", "resets"}
_BEFORE = ("next", "infos", "info", "env", "meta", "data", "log")
"""Words before a name that leave its meaning as it is."""

_MANY = r"(episodes?|trajectory|trajectories|trajs?|rollouts?|demos?|demonstrations)"
_EPISODES = re.compile(rf"((total|num|n|nr|number_of|count_of)_{_MANY}|{_MANY}_(count|total))")
_STEPS = re.compile(r"(total|num|n|number_of)_(steps|transitions|samples|frames|rows)")
_LONGEST = re.compile(
    r"(max_(episode|ep|path|traj|trajectory)_(steps|length|len)|time_limits?|horizon)"
)


def looks(name: str) -> Look | None:
    """Return what a column of this name may hold; None for a name that says none of it.

    Capitals don't count, nor what stands before the last `/` or `.`, nor words like `next`.
    """
    forms = plain_names(name)
    for form in forms:
        if form in _KINDS:
            return Look(_KINDS[form], True)
    for form in forms:
        if counted(form) is not None:
            return Look(Kind.COUNT, True)
    last = forms[-1]
    words = set(last.split("_"))
    for kind, found in (
        (Kind.MASK, last in _MASKS),
        (Kind.RESET, words & _END_WORDS),
        (Kind.EPISODE, last in _NUMBERS),
        (Kind.REWARD, last in _REWARDS or words & _REWARD_WORDS),
        (Kind.STEP, last in _TIMES or words & _TIME_WORDS),
    ):
        if found:
            return Look(kind, False)
    return None


def counted(name: str) -> str | None:
    """Return what a single number of this name counts.

    One of `episodes`, `steps`, `longest` (the steps of the longest episode), or None.
    """
    for form in plain_names(name):
        if _EPISODES.fullmatch(form) or form == "episodes":
            return "episodes"
        if _STEPS.fullmatch(form):
            return "steps"
        if _LONGEST.fullmatch(form) or _KINDS.get(form) is Kind.LENGTHS:
            return "longest"
    return None


def plain_names(name: str) -> list[str]:
    """Return a name in small letters and underscores: its last part, then without words before."""
    part = name.rstrip("/.").rpartition("/")[2]
    parts = [_plain(part)]
    if "." in part:
        parts.append(_plain(part.rpartition(".")[2]))
    words = parts[-1].split("_")
    while len(words) > 1 and words[0] in _BEFORE:
        words = words[1:]
        parts.append("_".join(words))
    return parts


def _plain(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")

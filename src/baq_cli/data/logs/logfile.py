"""What a log file holds, beside its rows, and how it becomes a recording or is made of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import CutRules, FlatLog, cut
from baq_cli.data.logs.ends.agreement import account
from baq_cli.data.logs.ends.clues import Clues
from baq_cli.data.logs.ends.decide import Decided, decide
from baq_cli.data.logs.filecard import Card
from baq_cli.data.logs.free_spaces import action_box, free_space, used_bounds
from baq_cli.data.logs.layouts import with_last_observations
from baq_cli.data.logs.success import SUCCESS, kept_marks
from baq_cli.data.recording import Recording
from baq_cli.envs.faults import let_go
from baq_cli.envs.making import make_env
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import flatten_parts, observation_parts, split_parts
from baq_cli.errors import DataError, UsageError, listed

Array = npt.NDArray[Any]
IMPORTED = "imported"
"""The entry of a dataset's metadata that says which columns its ends came from; see `Account`."""


SpecAndSpaces = tuple[gym.envs.registration.EnvSpec | None, gym.Space[Any], gym.Space[Any]]
"""An environment's spec, where there is one, and the spaces of observations and actions."""


@dataclass(frozen=True)
class Setting:
    """What a log doesn't say of itself: the environment, or the bounds of its actions.

    A single bound counts for every action dimension. `rules` decides where episodes end; with
    `clip_actions`, actions beyond their bounds are moved onto them.
    """

    env: EnvRef | str | None = None
    action_low: Sequence[float] | None = None
    action_high: Sequence[float] | None = None
    rules: CutRules = field(default_factory=CutRules)
    clip_actions: bool = False


@dataclass(frozen=True)
class LogFile:
    """The rows of a file, and what it says of them.

    Observations of `log` have one flat part '' or parts by name. `reset_infos`: by name, the
    infos of the resets, `[K, ...]`. `card` is what an export wrote beside the rows. `about` are
    entries of the metadata. `notes` say how the file was read, where that isn't plain,
    `columns` are the names of what was read (by custom: of what it means), and `episode_span` is
    what the first and the last row call their episode. `clues` is what other columns tell of
    ends and times; with `last_row_observed`, each episode's last row is its final observation.
    `action_bounds` are those of every action, where its format has them and nobody gives others.
    `success` is the column of marks that rewards are made of; those of the rows are 0 then.
    """

    log: FlatLog
    reset_infos: dict[str, Array] = field(default_factory=dict)
    card: Card | None = None
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    episode_span: tuple[str, str] | None = None
    clues: Clues = field(default_factory=Clues)
    last_row_observed: bool = False
    action_bounds: tuple[float, float] | None = None
    success: str | None = None


def to_recording(
    file: LogFile, setting: Setting, place: SpecAndSpaces | None = None
) -> tuple[Recording, int]:
    """Cut a log into episodes; return the recording and how many transitions were lost.

    `place` is where it was made, when that is known already; see `place_of`.
    What was read from where, and what wasn't used, is the entry `IMPORTED` of its metadata.
    Raises DataError when spaces are unknown, or rows don't fit them, or columns contradict each
    other in where episodes end.
    """
    spec, observation_space, action_space = place or place_of(file, setting)
    log = _in_parts(_with_actions(file.log, action_space), observation_space)
    if file.card is not None:
        log = _in_types(log, file.card.observation_types)
    decided, rules = _decided(log, file, setting.rules, spec)
    if file.last_row_observed:
        decided = replace(decided, log=with_last_observations(decided.log))
    done = cut(decided.log, rules)
    if not len(done.lengths):
        raise DataError("no transition of the log can be kept: no episode has a next observation")
    said = account(decided, done, rules).about()
    seeds = () if file.card is None else tuple(file.card.seeds)
    resets = {n: a for n, a in file.reset_infos.items() if a.shape[:1] == done.lengths.shape}
    infos = {n: _joined(a, resets.get(n), done.lengths) for n, a in done.infos.items()}
    if file.success is not None:
        infos[SUCCESS], column = kept_marks(file.success, decided.clues, done)
        said.get("columns_not_used", {}).pop(column, None)
    recording = Recording(
        observation_space=observation_space,
        action_space=action_space,
        observations=done.observations,
        actions=done.actions,
        rewards=done.rewards,
        terminated=done.terminated,
        truncated=done.truncated,
        lengths=done.lengths,
        seeds=seeds if len(seeds) == len(done.lengths) else (),
        infos=infos,
        env_spec=spec,
        eval_env_spec=None if file.card is None else file.card.eval_spec(),
        about=file.about if file.card is not None else {**file.about, IMPORTED: said},
    )
    return recording, done.lost


def _decided(
    log: FlatLog, file: LogFile, rules: CutRules, spec: gym.envs.registration.EnvSpec | None
) -> tuple[Decided, CutRules]:
    """Settle where episodes end: by the log's columns, else by what is given, else by the limit."""
    given = rules.max_episode_steps is not None or rules.only_terminations
    if not given and spec is not None:
        rules = replace(rules, max_episode_steps=spec.max_episode_steps)
    decided = decide(log, file.clues, rules, file.last_row_observed, told=given)
    told = decided.log.truncated is not None or decided.log.episode is not None
    if given and told:
        roles = ("truncated", "episode", "runs", "last", "first", "step")
        columns = [decided.sources[role] for role in roles if decided.sources.get(role)]
        ways = decided.way_without
        raise UsageError(
            f"the log says itself where episodes end ({listed(columns) or 'truncated, episode'}): "
            "leave --max-episode-steps and --only-terminations out"
            + (f", or those columns: {ways}" if ways else "")
        )
    return decided, rules


def place_of(file: LogFile, setting: Setting) -> SpecAndSpaces:
    """Find where a log was made: what the caller says, then what the file says.

    Raises DataError where neither says it.
    """
    if setting.env is not None:
        env = make_env(setting.env)
        found = env.spec, env.observation_space, env.action_space
        let_go(env)
        return found
    if setting.action_low is not None and setting.action_high is not None:
        bounds = setting.action_low, setting.action_high
        return None, free_space(file.log), action_box(file.log, bounds)
    if file.card is not None:
        return file.card.spec(), *file.card.spaces()
    if file.action_bounds is not None:
        low, high = file.action_bounds
        return None, free_space(file.log), action_box(file.log, ([low], [high]))
    raise DataError(
        "the log doesn't say what its actions' bounds are: name the environment it was made in "
        f"(--env ID), or give --action-low and --action-high.{used_bounds(file.log.actions)}"
    )


def bounds_note(file: LogFile, setting: Setting) -> tuple[str, ...]:
    """Say where the bounds of actions come from, where nobody gives them."""
    if file.action_bounds is None or setting.env is not None or setting.action_low is not None:
        return ()
    low, high = file.action_bounds
    return (f"actions are bounded by {low:g} and {high:g}, as the file's format has it",)


def _with_actions(log: FlatLog, space: gym.Space[Any]) -> FlatLog:
    """Check the actions' width; a single action may come as a column without one."""
    rows, wanted = len(log.rewards), space.shape or ()
    if log.actions.reshape(rows, -1).shape[1:] != wanted:
        raise DataError(
            f"actions of the log have {log.actions.reshape(rows, -1).shape[1]} dimensions, the "
            f"action space has the shape {list(wanted)}"
        )
    return replace(log, actions=log.actions.reshape(rows, *wanted))


def _in_parts(log: FlatLog, space: gym.Space[Any]) -> FlatLog:
    """Give observations the parts that the space has, splitting flat ones in Gymnasium's order."""
    following = log.next_observations
    return replace(
        log,
        observations=_split(log.observations, space),
        next_observations=None if following is None else _split(following, space),
    )


def _in_types(log: FlatLog, types: dict[str, str]) -> FlatLog:
    """Give parts the types they had before they were laid side by side with wider ones."""

    def typed(parts: dict[str, Array]) -> dict[str, Array]:
        return {name: part.astype(types.get(name, part.dtype)) for name, part in parts.items()}

    following = log.next_observations
    return replace(
        log,
        observations=typed(log.observations),
        next_observations=None if following is None else typed(following),
    )


def _split(parts: dict[str, Array], space: gym.Space[Any]) -> dict[str, Array]:
    boxes = observation_parts(space)
    if parts.keys() == boxes.keys() and list(parts) != [""]:
        wrong = [n for n, box in boxes.items() if parts[n][0].size != int(np.prod(box.shape))]
        if wrong:
            raise DataError(
                f"observations '{wrong[0]}' of the log have {parts[wrong[0]][0].size} numbers, the "
                f"space has {int(np.prod(boxes[wrong[0]].shape))}"
            )
        return {n: parts[n].reshape(len(parts[n]), *box.shape) for n, box in boxes.items()}
    if list(parts) != [""]:
        raise DataError(
            f"the log's observations have the parts {sorted(parts)}, the space {space} has "
            f"{sorted(boxes)}"
        )
    flat = flatten_parts(parts)
    width = sum(int(np.prod(box.shape)) for box in boxes.values())
    if flat.shape[1] != width:
        raise DataError(
            f"observations of the log have {flat.shape[1]} numbers, the space {space} has {width}"
        )
    return split_parts(flat, space)


def _joined(steps: Array, resets: Array | None, lengths: Array) -> Array:
    """Put the infos of resets before those of each episode's steps."""
    if resets is None or resets.shape[1:] != steps.shape[1:]:
        return steps
    return np.insert(steps, np.cumsum(lengths) - lengths, resets, axis=0)


# -- from a recording to rows


def to_log(recording: Recording) -> LogFile:
    """Lay a recording out in rows, nothing left out: flags, episode numbers, next observations."""
    steps = len(recording.rewards)
    rows, following = recording.rows(), recording.next_rows()
    infos, resets = {}, {}
    for name, info in recording.infos.items():
        from_reset = len(info) != steps
        infos[name] = info[following] if from_reset else info
        if from_reset:
            resets[name] = info[recording.first_rows]
    log = FlatLog(
        observations={name: part[rows] for name, part in recording.observations.items()},
        actions=recording.actions,
        rewards=recording.rewards,
        terminated=recording.terminated,
        truncated=recording.truncated,
        episode=np.repeat(np.arange(len(recording.lengths)), recording.lengths),
        next_observations={n: part[following] for n, part in recording.observations.items()},
        infos=infos,
    )
    return LogFile(log, resets)

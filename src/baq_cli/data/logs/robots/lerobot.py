"""LeRobot datasets to rows: states, actions and rewards; videos and images are left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.checked import checked_log
from baq_cli.data.logs.ends.clues import clues_of, said_columns
from baq_cli.data.logs.ends.names import looks, plain_names
from baq_cli.data.logs.formats import naming
from baq_cli.data.logs.layouts import constant_rewards, reward_notes
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import Mapping
from baq_cli.data.logs.parquet import read_columns, read_parquet
from baq_cli.data.logs.robots.lerobot_folder import (
    EPISODE,
    Feature,
    LeRobotFolder,
    check_episodes,
    open_lerobot,
)
from baq_cli.data.logs.robots.observed import (
    CONTROL_HZ,
    chosen,
    control_hz,
    names_of,
    numbered_names,
    observed_note,
    side_by_side,
)
from baq_cli.data.logs.several import Part
from baq_cli.data.logs.success import asked_marks, no_reward
from baq_cli.data.sizes import Claims
from baq_cli.errors import DataError, UsageError, clipped, listed

Array = npt.NDArray[Any]
ACTION, REWARD, DONE, SUCCESS = "action", "next.reward", "next.done", "next.success"
COUNTERS = (EPISODE, "frame_index", "index")
"""Columns that say nothing but where a row stands."""
INTERVENTION, TASK = "intervention", "task_index"


def read_lerobot(path: Path, mapping: Mapping | None) -> list[Part]:
    """Read the tables of a LeRobot dataset of version 2 or 3, by its features or by a mapping.

    Raises DataError for what is missing, damaged, or contradicts meta/; UsageError for names that
    aren't there.
    """
    if mapping is not None and mapping.mask is not None:
        raise UsageError(
            "--mask is of robomimic's files, and this is a LeRobot dataset: leave it out"
        )
    if mapping is not None and mapping.names_columns and mapping.obs_keys is not None:
        raise UsageError("the mapping names the observations' columns: leave --obs-keys out")
    with naming(path):
        dataset = open_lerobot(path)
    about = _about(dataset)
    if mapping is not None and mapping.names_columns:
        return [_by_mapping(table, mapping, about) for table in dataset.tables]
    with naming(path):
        taken = Taken(dataset, mapping)
        claims = Claims(sum(table.stat().st_size for table in dataset.tables))
        tables = [taken.read(table, claims) for table in dataset.tables]
        columns = {name: np.concatenate([t[name] for t in tables]) for name in taken.columns}
        check_episodes(dataset, Counter(columns[EPISODE].tolist()))
        file = taken.log_file(columns)
        return [Part(path, replace(file, about={**about, **taken.about}))]


def _by_mapping(table: Path, mapping: Mapping, about: dict[str, Any]) -> Part:
    with naming(table):
        file = read_parquet(table, mapping)
    return Part(table, replace(file, about={**file.about, **about}))


def _about(dataset: LeRobotFolder) -> dict[str, Any]:
    info = dataset.info
    said = {"version": info.version, "robot_type": info.robot_type}
    return {
        "description": f"Imported from the LeRobot dataset {clipped(dataset.path.resolve().name)}.",
        "lerobot": {name: clipped(word) for name, word in said.items() if word is not None},
        CONTROL_HZ: control_hz(info.fps),
    }


class Taken:
    """Which features of a LeRobot dataset become which part of a log, as info.json has them."""

    def __init__(self, dataset: LeRobotFolder, mapping: Mapping | None):
        features = dataset.info.features
        self._hz = dataset.info.fps
        self._features, self._mapping = features, mapping
        numbers = {name: feature for name, feature in features.items() if feature.is_numbers}
        observed = [n for n in numbers if n == "observation" or n.startswith("observation.")]
        flat = [name for name in observed if len(numbers[name].shape) <= 1]
        self.observed = chosen(mapping, flat, observed)
        self.constant = None if mapping is None else mapping.constant_reward
        self._said = {} if mapping is None else mapping.said
        self._check(numbers)
        self._numbers = numbers
        used = {*self.observed, ACTION, *COUNTERS}
        used |= set() if self.constant is not None else {REWARD}
        self._infos = [n for n in numbers if n not in used and n not in observed]
        self._clues = [
            n
            for n in numbers
            if n not in {*self.observed, ACTION, EPISODE, REWARD} and looks(n) is not None
        ]
        said = said_columns(self._said) | asked_marks(mapping, numbers)
        self._clues += [n for n in said if n in numbers]
        asked = [*self.observed, ACTION, EPISODE, *self._infos, *self._clues]
        asked += [] if self.constant is not None else [REWARD]
        self.columns = list(dict.fromkeys(asked))

    def _check(self, numbers: dict[str, Feature]) -> None:
        for name in (ACTION, EPISODE):
            if name not in numbers:
                raise DataError(
                    f"meta/info.json has no feature '{name}' of numbers; found "
                    f"{listed(list(self._features))}. Name the columns with --mapping"
                )
        if REWARD not in numbers and self.constant is None:
            raise DataError(f"it has no feature '{REWARD}': {no_reward(numbers)}")

    @property
    def about(self) -> dict[str, Any]:
        """The names of dimensions, as an entry of a dataset's metadata."""
        several = len(self.observed) > 1
        observation = [n for key in self.observed for n in self._names(key, several)]
        return names_of(observation, self._names(ACTION), REWARD if self.constant is None else None)

    def _names(self, feature: str, with_key: bool = False) -> list[str]:
        """Return what a feature's numbers are called, by info.json or else by its key."""
        said, width = self._features[feature].names, self._features[feature].width
        if isinstance(said, dict) and len(said) == 1:  # {"motors": [...]}, as version 2.0 has it
            said = next(iter(said.values()))
        if isinstance(said, list) and len(said) == width and all(isinstance(n, str) for n in said):
            return [clipped(f"{feature}.{name}" if with_key else name) for name in said]
        return numbered_names(feature, width)

    def read(self, table: Path, claims: Claims) -> dict[str, Array]:
        """Read a table's columns, `[N]` where they have one number a row, else `[N, ...]`.

        Raises DataError where they have other shapes than info.json says.
        """
        with naming(table):
            columns = read_columns(table, self.columns, claims)
            for name, array in columns.items():
                width = self._features[name].width
                if array.size != len(array) * width:
                    raise DataError(
                        f"column '{name}' has the shape {list(array.shape)}; meta/info.json says "
                        f"{width:,} numbers a row"
                    )
                columns[name] = array.reshape(-1) if width == 1 else array
        return columns

    def log_file(self, columns: dict[str, Array]) -> LogFile:
        """Return the rows of columns as a log, and what else they tell of it."""
        episode = columns[EPISODE]
        actions = columns[ACTION].reshape(len(episode), -1)
        constant = self.constant
        rewards = columns[REWARD] if constant is None else constant_rewards(constant, actions)
        terminated = self._terminated(columns, episode)
        log = checked_log(
            {"": side_by_side([columns[name] for name in self.observed])},
            None,
            actions=actions,
            rewards=rewards,
            terminated=terminated,
            episode=episode,
        )
        log = replace(log, infos={_info(name): columns[name] for name in self._infos})
        named = {"episode": EPISODE} | ({} if terminated is None else {"terminated": SUCCESS})
        clues = {name: columns[name] for name in self._clues}
        return LogFile(
            log,
            notes=self._notes(columns, episode),
            columns=tuple(self.columns),
            episode_span=(str(episode[0]), str(episode[-1])),
            clues=clues_of(clues, named, self._said, len(episode), {}, list(self._numbers)),
        )

    def _terminated(self, columns: dict[str, Array], episode: Array) -> Array | None:
        """Return the rows `[N]` at which a task ended: an episode's last, marked as a success.

        None where nothing marks a success; an end of which `next.done` says otherwise is none.
        """
        if SUCCESS not in columns:
            return None
        last = np.append(episode[1:] != episode[:-1], True)
        ended = last & _marked(columns[SUCCESS])
        return ended & _marked(columns[DONE]) if DONE in columns else ended

    def _notes(self, columns: dict[str, Array], episode: Array) -> tuple[str, ...]:
        notes = [*reward_notes(self._mapping)]
        widths = {name: self._features[name].width for name in self.observed}
        notes += [observed_note(widths), f"recorded at {self._hz:g} Hz (fps), kept as control_hz"]
        left = {n: f.dtype for n, f in self._features.items() if n not in {*columns, *COUNTERS}}
        if left:
            named = [f"{clipped(name)} ({clipped(kind)})" for name, kind in left.items()]
            notes.append(f"left out: {listed(named)}")
        tasks = len(np.unique(columns[TASK])) if TASK in columns else 1
        if tasks > 1:
            notes.append(f"it holds {tasks:,} tasks, and the observation doesn't say which: {TASK}")
        if SUCCESS in columns:
            notes.append(
                f"an episode whose last row '{SUCCESS}' marks was terminated, others truncated"
            )
        return (*notes, *self._odd_times(columns, episode))

    def _odd_times(self, columns: dict[str, Array], episode: Array) -> list[str]:
        """Return a note where rows stand otherwise in time than the rate says."""
        times = columns.get("timestamp")
        if times is None or times.ndim != 1:
            return []
        steps = np.diff(times.astype(np.float64))[episode[1:] == episode[:-1]]
        if not len(steps) or not np.isfinite(steps).all() or np.median(steps) <= 0:
            return []
        found = float(1 / np.median(steps))
        if abs(found / self._hz - 1) < 0.05:
            return []
        return [f"'timestamp' says {found:.3g} rows a second, meta/info.json {self._hz:g}"]


def _info(feature: str) -> str:
    """Return what a feature is called among infos: one of interventions as datasets call it."""
    called = {INTERVENTION, f"is_{INTERVENTION}"} & {*plain_names(feature)}
    return INTERVENTION if called else feature


def _marked(column: Array) -> Array:
    return np.asarray(np.nan_to_num(column.astype(np.float64)) != 0)

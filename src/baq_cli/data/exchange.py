"""Own logs in, datasets out: files and arrays to Minari datasets and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from baq_cli.data.checks import content_findings, refuse
from baq_cli.data.episodes import Episodes
from baq_cli.data.logs.columns import checked_log
from baq_cli.data.logs.cutting import CutRules
from baq_cli.data.logs.d4rl import read_d4rl, write_d4rl
from baq_cli.data.logs.filecard import card_of
from baq_cli.data.logs.logfile import LogFile, Setting, to_log, to_recording
from baq_cli.data.logs.mapping import Mapping
from baq_cli.data.logs.parquet import read_parquet, write_parquet
from baq_cli.data.logs.tables import read_csv, read_npz, write_npz
from baq_cli.data.minari.folder import check_new_id, open_minari
from baq_cli.data.minari.read import read_recording
from baq_cli.data.minari.write import write_minari
from baq_cli.errors import DataError, UsageError
from baq_cli.plain_files import replaced
from baq_cli.surroundings import in_utf8, refused

D4RL_SUFFIXES = (".hdf5", ".h5")
TABLES = {".npz": read_npz, ".parquet": read_parquet, ".csv": read_csv}
WRITERS = {"d4rl": write_d4rl, "npz": write_npz, "parquet": write_parquet}
SUFFIXES = {"d4rl": ".hdf5", "npz": ".npz", "parquet": ".parquet"}


@dataclass(frozen=True)
class Imported:
    """What an import made: the dataset, and how many transitions could not be kept."""

    episodes: Episodes
    lost: int


def read_file(path: Path, mapping: Mapping | None) -> LogFile:
    """Read a log of any supported format, told by its suffix.

    Raises UsageError for another suffix, DataError for a file that is missing or damaged.
    """
    if not path.is_file():
        raise DataError("it is not there, or not a file")
    suffix = path.suffix.lower()
    if suffix in D4RL_SUFFIXES and mapping is not None:
        raise UsageError("D4RL files name their own columns: leave --mapping out")
    if suffix in D4RL_SUFFIXES:
        return read_d4rl(path)
    if suffix not in TABLES:
        known = ", ".join([*D4RL_SUFFIXES, *TABLES])
        raise UsageError(f"{path}: files of type '{suffix}' can't be imported; known: {known}")
    return TABLES[suffix](path, mapping)


def import_file(path: Path, dataset_id: str, setting: Setting, mapping: Mapping | None) -> Imported:
    """Make a Minari dataset of a log; it is checked first, and nothing is saved on an error.

    Raises UsageError for an id that is taken or names that aren't there, DataError for the rest.
    """
    check_new_id(dataset_id)
    try:
        file = read_file(path, mapping)
        said = {} if file.card is None else file.card.about.model_dump(exclude_unset=True)
        about = {"description": f"Imported from {in_utf8(path.name)}.", **said, **file.about}
        return _save(dataset_id, replace(file, about=about), setting)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _save(dataset_id: str, file: LogFile, setting: Setting) -> Imported:
    recording, lost = to_recording(file, setting)
    episodes = recording.episodes(dataset_id)
    episodes = refuse(episodes, content_findings(episodes))
    write_minari(dataset_id, recording)
    return Imported(episodes, lost)


def export_file(dataset_id: str, form: str, path: Path) -> None:
    """Write a Minari dataset as a file of another format, complete or not at all.

    Raises UsageError for an unknown format or a path that is taken, DataError for a dataset that
    can't be read or a disk that refuses.
    """
    if form not in WRITERS:
        raise UsageError(f"--to {form}: expected one of {', '.join(WRITERS)}")
    if os.path.lexists(path):
        raise UsageError(f"{path} exists: choose another --out, or remove it")
    recording = read_recording(open_minari(dataset_id))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            WRITERS[form](to_log(recording), card_of(recording), file)
    except OSError as error:
        raise refused(f"write {path}", error) from error
    except RuntimeError as error:  # h5py has both
        raise DataError(f"cannot write {path}: {error}") from error


def save_arrays(
    dataset_id: str,
    *,
    observations: Any,
    actions: Any,
    rewards: Any,
    terminated: Any,
    truncated: Any = None,
    episode: Any = None,
    next_observations: Any = None,
    env: str | None = None,
    action_low: Sequence[float] | float | None = None,
    action_high: Sequence[float] | float | None = None,
    max_episode_steps: int | None = None,
    description: str = "",
) -> Imported:
    """Save arrays of N rows, one a step, as a Minari dataset; what `baq data import` is for files.

    Shapes: observations `[N, obs_dim]`, or by name for a `Dict` space; actions `[N, action_dim]`;
    rewards, terminated, truncated, episode `[N]`; next_observations as observations. Episodes end
    where `episode` changes, else at the flags. Name the environment, or give the actions' bounds.
    Raises UsageError for an id that is taken, DataError for arrays that don't fit each other.
    """
    check_new_id(dataset_id)
    if env is not None and (action_low is not None or action_high is not None):
        raise UsageError(f"{env} has action bounds of its own: leave action_low and _high out")

    def parts(given: Any) -> dict[str, Any] | None:
        if given is None:
            return None
        return {
            name: np.asarray(part)
            for name, part in (given.items() if isinstance(given, dict) else [("", given)])
        }

    def column(given: Any) -> Any:
        return None if given is None else np.asarray(given)

    single = {
        "actions": column(actions),
        "rewards": column(rewards),
        "terminated": column(terminated),
        "truncated": column(truncated),
        "episode": column(episode),
    }
    log = checked_log(parts(observations) or {}, parts(next_observations), **single)
    setting = Setting(
        env,
        None if action_low is None else np.atleast_1d(action_low).tolist(),
        None if action_high is None else np.atleast_1d(action_high).tolist(),
        CutRules(max_episode_steps=max_episode_steps),
    )
    return _save(dataset_id, LogFile(log, about={"description": description}), setting)

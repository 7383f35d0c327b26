"""Own logs in, datasets out: files and arrays to Minari datasets and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from baq_cli.data.door import save
from baq_cli.data.episodes import Episodes
from baq_cli.data.logs.accounts import with_account
from baq_cli.data.logs.checked import checked_log
from baq_cli.data.logs.clipping import CLIPPED, Clipped, within_bounds
from baq_cli.data.logs.columns import USUAL
from baq_cli.data.logs.cutting import CutRules
from baq_cli.data.logs.d4rl import write_d4rl
from baq_cli.data.logs.ends.clues import Clues
from baq_cli.data.logs.filecard import card_of
from baq_cli.data.logs.files import log_files
from baq_cli.data.logs.formats import FORMATS, naming, read_file
from baq_cli.data.logs.logfile import (
    IMPORTED,
    LogFile,
    Setting,
    SpecAndSpaces,
    bounds_note,
    place_of,
    to_log,
    to_recording,
)
from baq_cli.data.logs.mapping import Mapping
from baq_cli.data.logs.parquet import write_parquet
from baq_cli.data.logs.robots.lerobot import read_lerobot
from baq_cli.data.logs.robots.lerobot_folder import lerobot_path
from baq_cli.data.logs.several import (
    NOTES,
    Part,
    check_alike,
    check_place,
    in_one_type,
    joined,
    notes_in,
    notes_of,
    one_file,
    with_about,
)
from baq_cli.data.logs.success import rewarded
from baq_cli.data.logs.tables import write_npz
from baq_cli.data.minari.folder import check_new_id, open_minari
from baq_cli.data.minari.older import older_metadata
from baq_cli.data.minari.read import read_older, read_recording
from baq_cli.data.recording import Recording
from baq_cli.envs.ref import EnvChoice, named
from baq_cli.errors import DataError, UsageError
from baq_cli.plain_files import replaced
from baq_cli.surroundings import refused
from baq_cli.units import amount

WRITERS = {"d4rl": write_d4rl, "npz": write_npz, "parquet": write_parquet}
SUFFIXES = {"d4rl": ".hdf5", "npz": ".npz", "parquet": ".parquet"}


@dataclass(frozen=True)
class Imported:
    """What an import made: the dataset, how many transitions could not be kept, how it was read.

    `clipped` counts the actions that were moved onto their bounds, where that was asked for;
    `account` says where ends come from, and which columns were not used; see `Account`.
    """

    episodes: Episodes
    lost: int
    notes: tuple[str, ...] = ()
    clipped: Clipped | None = None
    account: dict[str, Any] = field(default_factory=dict)


def import_file(path: Path, dataset_id: str, setting: Setting, mapping: Mapping | None) -> Imported:
    """Make a Minari dataset of a log; see `import_files`."""
    return import_files([path], dataset_id, setting, mapping)


def import_files(
    paths: Sequence[Path],
    dataset_id: str,
    setting: Setting,
    mapping: Mapping | None,
    join: bool | None = None,
) -> Imported:
    """Make a Minari dataset of a log in one file or several, or in folders of such files.

    It is checked first, and nothing is saved on an error. `join` says whether an episode goes on
    in the next file, where the files may be read either way.
    Raises UsageError for an id that is taken or names that aren't there, DataError for the rest.
    """
    check_new_id(dataset_id)
    folder = lerobot_path(paths, mapping)
    files = log_files(paths, list(FORMATS)) if folder is None else [folder]
    if len(files) == 1 and _is_older_minari(files[0]):
        with naming(files[0]):
            return _save(dataset_id, _older_recording(files[0], setting, mapping), 0, setting)
    parts = _read(files, mapping) if folder is None else read_lerobot(folder, mapping)
    check_alike(parts)
    parts = in_one_type(parts)
    groups = joined(parts, join)
    recordings, lost, last_rows = [], 0, 0
    place: SpecAndSpaces | None = None
    for group in groups:
        with naming(group[0].path, several=len(parts) > 1):
            file = _whole(group, mapping)
            place = place or place_of(file, setting)
            check_place(file, setting, place)
            recording, left_out = to_recording(file, setting, place)
        recordings.append(recording)
        lost += left_out
        last_rows += len(recording.lengths) if file.last_row_observed else 0
    notes = notes_of(groups)
    if last_rows:
        notes += (
            f"each episode's last row is its final observation: {amount(last_rows, 'episode')}",
        )
    notes += bounds_note(parts[0].file, setting)
    recording, said = with_account(recordings, [group[0].path for group in groups])
    notes += said
    if mapping is not None and mapping.success is not None:
        recording, said_of_marks = rewarded(recording, mapping.success)
        notes += (said_of_marks,)
    with naming(files[0]):
        return _save(dataset_id, with_about(recording, parts), lost, setting, notes)


def _read(files: Sequence[Path], mapping: Mapping | None) -> list[Part]:
    parts = []
    for path in files:
        with naming(path, several=len(files) > 1):
            parts.append(Part(path, read_file(path, mapping)))
    return parts


def _is_older_minari(path: Path) -> bool:
    return path.suffix.lower() in (".hdf5", ".h5") and older_metadata(path) is not None


def _older_recording(path: Path, setting: Setting, mapping: Mapping | None) -> Recording:
    if mapping is not None or replace(setting, env=None, clip_actions=False) != Setting():
        raise UsageError(
            f"{path} is a dataset of an older Minari, which says itself where its episodes end and "
            "what its spaces are: give --env and --clip-actions at most"
        )
    return read_older(path, setting.env)


def _whole(group: Sequence[Part], mapping: Mapping | None) -> LogFile:
    """Return the rows of files that belong together, and what a mapping says of them all."""
    if mapping is None:
        return one_file(group)
    observed = mapping.last_row == "observation"
    return replace(one_file(group), last_row_observed=observed, success=mapping.success)


def _save(
    dataset_id: str, recording: Recording, lost: int, setting: Setting, notes: tuple[str, ...] = ()
) -> Imported:
    recording, clipped = within_bounds(recording, setting.clip_actions)
    about = dict(recording.about)
    if clipped is not None:
        about[CLIPPED] = clipped.model_dump()
        notes += (f"actions beyond their bounds were moved onto them: {clipped.text}",)
    if notes:
        about[NOTES] = [*notes_in(about), *notes]
    recording = replace(recording, about=about)
    choice = EnvChoice()
    if setting.env is not None:
        env = named(setting.env)
        choice = EnvChoice(env.id, env.kwargs, env.max_episode_steps)
    episodes = save(dataset_id, recording, choice)
    return Imported(episodes, lost, notes, clipped, recording.about.get(IMPORTED, {}))


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
    clip_actions: bool = False,
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
        clip_actions,
    )
    named = {role: "" for role in USUAL if single[role] is not None}
    file = LogFile(log, about={"description": description}, clues=Clues(named=named))
    recording, lost = to_recording(file, setting)
    recording, notes = with_account([recording], [Path()])
    return _save(dataset_id, recording, lost, setting, notes)

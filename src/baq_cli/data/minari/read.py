"""Reading Minari datasets whole: for training as flat float32 arrays, for export as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import numpy.typing as npt

from baq_cli.data import cache
from baq_cli.data.checks import content_findings, refuse
from baq_cli.data.digits import Loss, Meter
from baq_cli.data.dimensions import Names, lost_digits
from baq_cli.data.episodes import INTERVENTION, Episodes, Finding, where_somebody_acted
from baq_cli.data.minari.arrow_files import read_tables
from baq_cli.data.minari.episode_file import EpisodeFile, open_lean
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.older import FLAT, older_metadata
from baq_cli.data.minari.seal import check_file, unsealed
from baq_cli.data.minari.stored import StoredDataset
from baq_cli.data.recording import Recording, origin_of
from baq_cli.envs.faults import let_go
from baq_cli.envs.making import make_env
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import Spaces, observation_parts, split_parts
from baq_cli.errors import DataError
from baq_cli.surroundings import UNANSWERED, refused

Array = npt.NDArray[Any]


def load_episodes(dataset_id: str, tell: Callable[[str], None] = lambda _: None) -> Episodes:
    """Return a local Minari dataset, checked, from the cache where it is there.

    Where it can't be kept there, `tell` is told so.
    Raises DataError when it is missing or damaged, has spaces that are not supported, or when a
    check found an error.
    """
    stored = open_minari(dataset_id)
    mark = cache.fingerprint(stored.files)
    found = cache.find(mark)
    if found is not None:
        return replace(found, dataset_id=dataset_id)  # of links to one dataset each has its id
    episodes = read_episodes(stored)
    try:
        episodes = refuse(episodes, content_findings(episodes))
    except DataError as error:
        raise DataError(f"{error} 'baq data check {dataset_id}' shows every finding.") from error
    lost = cache.keep(mark, episodes)
    if lost:
        tell(f"{dataset_id}: {lost}")
    return episodes


def read_episodes(stored: StoredDataset) -> Episodes:
    """Read a dataset in the units of training, unchecked.

    Every array is read whole, an episode at a time, into its place: at no moment is there more
    than one copy of the data.
    """
    if stored.metadata.get("data_format", "hdf5") != "hdf5":
        return read_tables(stored).episodes(stored.dataset_id)
    observation_space, action_space = stored.spaces
    spaces = Spaces.of(observation_space, action_space)
    names = Names.of(stored.metadata, observation_space, spaces.action_dim)
    with _reading(stored) as source:
        steps, count = source.steps, len(source.lengths)
        source.claims.add((steps + count) * (spaces.obs_dim + spaces.action_dim + 2))
        found: list[Finding] = []
        observations = np.empty((steps + count, spaces.obs_dim), dtype=np.float32)
        left = 0
        for name, box in observation_parts(observation_space).items():
            right = left + int(np.prod(box.shape))
            key, flat = _path("observations", name), observations[:, left:right]
            losses = _filled(source, key, flat, box.shape, 1)
            found += lost_digits("observations", losses, names, left)
            left = right
        action = np.empty((steps, spaces.action_dim), dtype=np.float32)
        losses = _filled(source, "actions", action, (spaces.action_dim,), 0, spaces)
        found += lost_digits("actions", losses, names)
        reward = np.empty(steps, dtype=np.float32)
        found += lost_digits("rewards", _filled(source, "rewards", reward, (), 0), names)
        flags = np.empty((2, steps), dtype=np.bool_)
        source.fill("terminations", flags[0], (), 0)
        source.fill("truncations", flags[1], (), 0)
        intervention = _intervention(source)
        origin = origin_of((stored.env_spec, stored.eval_env_spec), stored.metadata, source.seeds)
        return Episodes(
            dataset_id=stored.dataset_id,
            spaces=spaces,
            observations=observations,
            action=action,
            reward=reward,
            terminated=flags[0],
            truncated=flags[1],
            lengths=source.lengths,
            intervention=intervention,
            origin=origin,
            rounding=tuple(found),
        )


def _intervention(source: EpisodeFile) -> Array | None:
    """Return where infos say that somebody acted in the policy's place, `[M]`, if any do."""
    said = source.infos((INTERVENTION,)).get(INTERVENTION)
    return None if said is None else where_somebody_acted(said, source.lengths)


def _filled(
    source: EpisodeFile,
    key: str,
    out: Array,
    shape: tuple[int, ...],
    extra: int,
    scaled: Spaces | None = None,
) -> list[Loss]:
    """Read an array into its place, scaled as actions are, and return what float32 loses of it."""
    meter = Meter(None if scaled is None else scaled.unscaled)
    source.fill(key, out, shape, extra, None if scaled is None else scaled.from_env, meter)
    return meter.losses(lambda number: source.column(key, number, shape, extra), out)


def read_recording(stored: StoredDataset) -> Recording:
    """Read a dataset as it was given, in its own dtypes and with its infos."""
    if stored.metadata.get("data_format", "hdf5") != "hdf5":
        return read_tables(stored)
    observation_space, action_space = stored.spaces
    with _reading(stored) as source:
        parts = {
            name: source.native(_path("observations", name), 1)
            for name in observation_parts(observation_space)
        }
        return Recording(
            observation_space=observation_space,
            action_space=action_space,
            observations=parts,
            actions=source.native("actions", 0),
            rewards=source.native("rewards", 0),
            terminated=source.native("terminations", 0),
            truncated=source.native("truncations", 0),
            lengths=source.lengths,
            seeds=source.seeds,
            infos=source.infos(),
            env_spec=stored.env_spec,
            eval_env_spec=stored.eval_env_spec,
            about=unsealed(stored.metadata),
        )


def read_older(path: Path, ref: EnvRef | str | None) -> Recording:
    """Read a file of Minari before 0.5, its own environment, or the one named, for its setting.

    Where it doesn't record its spaces, they are its environment's.
    """
    said = older_metadata(path)
    assert said is not None
    if ref is not None:
        env = make_env(ref)
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
        said |= {name: _in_text(space) for name, space in spaces.items()}
        said["env_spec"] = None if env.spec is None else env.spec.to_json()
        let_go(env)
    flat, dataset_id = said.pop(FLAT, False), said.get("dataset_id", path.name)
    stored = StoredDataset(dataset_id, path.parent, said, path.name)
    if not flat or not isinstance(stored.spaces[0], gym.spaces.Dict):
        return read_recording(stored)
    space = stored.spaces[0]
    laid = {**said, "observation_space": _in_text(gym.spaces.flatten_space(space))}
    laid["action_space"] = _in_text(stored.spaces[1])
    recording = read_recording(replace(stored, metadata=laid))
    parts = split_parts(recording.observations[""], space)
    return replace(recording, observation_space=space, observations=parts, about=said)


def _in_text(space: gym.Space[Any]) -> str:
    from minari.serialization import serialize_space

    return str(serialize_space(space))


def _path(*names: str) -> str:
    return "/".join(name for name in names if name)


@contextmanager
def _reading(stored: StoredDataset) -> Iterator[EpisodeFile]:
    """Open a dataset's file; what goes wrong while reading it becomes one DataError."""
    path = stored.data / stored.file
    try:
        if not path.is_file():
            raise FileNotFoundError(f"it has no file {stored.file}")
        check_file(stored.dataset_id, stored.metadata, stored.data)
        with h5py.File(open_lean(path)) as file:
            yield EpisodeFile(stored, file)
    except OSError as error:
        if error.errno in UNANSWERED:
            raise refused(f"read {path}", error) from error
        raise stored.damaged(str(error.args[0] if error.args else error)) from error
    except (KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise stored.damaged(str(error.args[0] if error.args else error)) from error

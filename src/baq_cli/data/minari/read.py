"""Reading Minari datasets whole: for training as flat float32 arrays, for export as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from baq_cli.data import cache
from baq_cli.data.checks import content_findings, refuse
from baq_cli.data.episodes import Episodes
from baq_cli.data.minari.episode_file import EpisodeFile, open_lean
from baq_cli.data.minari.folder import StoredDataset, open_minari, quiet
from baq_cli.data.minari.seal import FILE, check_file, unsealed
from baq_cli.data.recording import Recording, origin_of
from baq_cli.envs.spaces import Spaces, observation_parts
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
        return _read_otherwise(stored).episodes(stored.dataset_id)
    observation_space, action_space = stored.spaces
    spaces = Spaces.of(observation_space, action_space)
    with _reading(stored) as source:
        steps, count = source.steps, len(source.lengths)
        source.claims.add((steps + count) * (spaces.obs_dim + spaces.action_dim + 2))
        observations = np.empty((steps + count, spaces.obs_dim), dtype=np.float32)
        left = 0
        for name, box in observation_parts(observation_space).items():
            right = left + int(np.prod(box.shape))
            flat = observations[:, left:right]
            source.fill(_path("observations", name), flat, box.shape, 1)
            left = right
        action = np.empty((steps, spaces.action_dim), dtype=np.float32)
        source.fill("actions", action, (spaces.action_dim,), 0, spaces.from_env)
        reward = np.empty(steps, dtype=np.float32)
        source.fill("rewards", reward, (), 0)
        flags = np.empty((2, steps), dtype=np.bool_)
        source.fill("terminations", flags[0], (), 0)
        source.fill("truncations", flags[1], (), 0)
        origin = origin_of(stored.env_spec, stored.metadata, source.seeds)
        return Episodes(
            dataset_id=stored.dataset_id,
            spaces=spaces,
            observations=observations,
            action=action,
            reward=reward,
            terminated=flags[0],
            truncated=flags[1],
            lengths=source.lengths,
            origin=origin,
        )


def read_recording(stored: StoredDataset) -> Recording:
    """Read a dataset as it was given, in its own dtypes and with its infos."""
    if stored.metadata.get("data_format", "hdf5") != "hdf5":
        return _read_otherwise(stored)
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
            about=unsealed(stored.metadata),
        )


def _path(*names: str) -> str:
    return "/".join(name for name in names if name)


@contextmanager
def _reading(stored: StoredDataset) -> Iterator[EpisodeFile]:
    """Open a dataset's file; what goes wrong while reading it becomes one DataError."""
    path = stored.data / FILE
    try:
        if not path.is_file():
            raise FileNotFoundError(f"it has no file {FILE}")
        check_file(stored)
        with h5py.File(open_lean(path)) as file:
            yield EpisodeFile(stored, file)
    except OSError as error:
        if error.errno in UNANSWERED:
            raise refused(f"read {path}", error) from error
        raise stored.damaged(str(error.args[0] if error.args else error)) from error
    except (KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise stored.damaged(str(error.args[0] if error.args else error)) from error


def _read_otherwise(stored: StoredDataset) -> Recording:
    """Read a dataset of another storage format (Arrow) through Minari's own reader."""
    from minari.dataset._storages import get_minari_storage

    observation_space, action_space = stored.spaces
    names = observation_parts(observation_space)
    try:
        with quiet():
            storage = get_minari_storage(stored.metadata["data_format"])(
                stored.data, observation_space, action_space
            )
            logged = list(storage.get_episodes(range(storage.total_episodes)))
            seeds = [m.get("seed") for m in storage.get_episode_metadata(range(len(logged)))]
        if not logged:
            raise DataError(f"dataset '{stored.dataset_id}' holds no episodes")

        def column(key: str) -> Array:
            return np.concatenate([np.asarray(episode[key]) for episode in logged])

        return Recording(
            observation_space=observation_space,
            action_space=action_space,
            observations={
                name: np.concatenate([_part(e["observations"], name) for e in logged])
                for name in names
            },
            actions=column("actions"),
            rewards=column("rewards"),
            terminated=column("terminations"),
            truncated=column("truncations"),
            lengths=np.asarray([len(episode["rewards"]) for episode in logged], dtype=np.int64),
            seeds=tuple(None if seed is None else int(seed) for seed in seeds),
            env_spec=stored.env_spec,
            about=stored.metadata,
        )
    except DataError:
        raise
    except Exception as error:  # Arrow has its own kinds of error
        raise stored.damaged(str(error)) from error


def _part(observations: Any, name: str) -> Array:
    for key in filter(None, name.split("/")):
        observations = observations[key]
    return np.asarray(observations)

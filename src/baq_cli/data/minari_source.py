"""Minari datasets: reading them, and writing what the tool collects."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.data.episodes import Episodes
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, UsageError

Array = npt.NDArray[Any]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Minari's and Gymnasium's chatter off the terminal."""
    import warnings

    logging.getLogger("minari").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def local_datasets() -> list[str]:
    """Return the ids in the user's Minari folder, sorted."""
    import minari

    try:
        with _quiet():
            return sorted(minari.list_local_datasets())
    except OSError as error:
        raise DataError(f"cannot read the Minari folder: {error}") from error
    except (ValueError, TypeError) as error:
        raise DataError(
            f"the Minari folder holds something that is not a dataset: {error}. Remove it from "
            "$MINARI_DATASETS_PATH (by default ~/.minari/datasets)."
        ) from error


def check_new_id(dataset_id: str) -> None:
    """Raise UsageError unless a dataset may be saved under this id."""
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        version = parse_dataset_id(dataset_id)[2]
    except ValueError:
        version = None
    if version is None:
        raise UsageError(
            f"'{dataset_id}' can't be a dataset's id: expected a name of two or more letters and a "
            "version, with or without a namespace, as me/hopper/clumsy-v0."
        )
    if dataset_id in local_datasets():
        raise UsageError(
            f"dataset '{dataset_id}' exists: choose another id (versions end in -v0, -v1, …) or "
            f"delete it with 'minari delete {dataset_id}'"
        )


def open_minari(dataset_id: str) -> Any:
    """Open a local Minari dataset without reading its transitions.

    Raises DataError when it isn't there or can't be read.
    """
    import minari

    if dataset_id not in local_datasets():
        raise DataError(
            f"dataset '{dataset_id}' is not in the Minari folder. "
            "'baq data list' shows what is there and what can be built; "
            f"'minari download {dataset_id}' fetches a public one."
        )
    try:
        with _quiet():
            return minari.load_dataset(dataset_id)
    except (OSError, KeyError, ValueError, AssertionError) as error:
        raise DataError(
            f"dataset '{dataset_id}' is damaged: {error}. Delete it and get it again."
        ) from error


def load_episodes(dataset_id: str) -> Episodes:
    """Read a local Minari dataset whole, check it, and return its episodes.

    Raises DataError when it is missing, damaged, or has spaces that are not supported.
    """
    dataset = open_minari(dataset_id)
    spec = dataset.env_spec
    spaces = Spaces.of(dataset.observation_space, dataset.action_space)
    try:
        with _quiet():
            logged = list(dataset.iterate_episodes())
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"dataset '{dataset_id}' is damaged: {error}. Delete it and get it again."
        ) from error
    if not logged:
        raise DataError(f"dataset '{dataset_id}' holds no episodes")
    for number, episode in enumerate(logged):
        if len(episode.observations) != len(episode.rewards) + 1:
            raise DataError(
                f"dataset '{dataset_id}': episode {number} has {len(episode.observations)} "
                f"observations for {len(episode.rewards)} steps; expected one more than steps."
            )

    def column(pick: Any, dtype: Any) -> Array:
        return np.concatenate([np.asarray(pick(e)) for e in logged]).astype(dtype)

    lengths = [len(episode.rewards) for episode in logged]
    episodes = Episodes(
        dataset_id=dataset_id,
        env_id=None if spec is None else spec.id,
        spaces=spaces,
        obs=column(lambda e: e.observations[:-1], np.float32),
        action=spaces.from_env(column(lambda e: e.actions, np.float64)),
        reward=column(lambda e: e.rewards, np.float32),
        next_obs=column(lambda e: e.observations[1:], np.float32),
        terminated=column(lambda e: e.terminations, np.bool_),
        truncated=column(lambda e: e.truncations, np.bool_),
        episode=np.repeat(np.arange(len(logged)), lengths),
        env_settings={}
        if spec is None
        else {
            "max_episode_steps": spec.max_episode_steps,
            "kwargs": {key: repr(value) for key, value in spec.kwargs.items()},
        },
    )
    episodes.check()
    return episodes


@dataclass(frozen=True)
class LoggedEpisode:
    """One episode as an environment gave it: T+1 observations, T of the rest."""

    seed: int
    observations: Array
    actions: Array
    rewards: Array
    terminated: bool


def write_minari(
    dataset_id: str, env_id: str, episodes: Sequence[LoggedEpisode], about: dict[str, Any]
) -> None:
    """Save episodes as a Minari dataset with the environment's spec.

    `about` becomes the dataset's description, algorithm name and author. An episode that didn't
    terminate is marked truncated at its last step. The dataset appears whole or not at all; one
    that another process finished meanwhile under the same id is left as it is.
    Raises DataError when it can't be written.
    """
    from minari.data_collector import EpisodeBuffer

    buffers = []
    for number, episode in enumerate(episodes):
        last = np.zeros(len(episode.rewards), dtype=np.bool_)
        last[-1] = True
        buffers.append(
            EpisodeBuffer(
                id=number,
                seed=episode.seed,
                observations=episode.observations,
                actions=episode.actions,
                rewards=list(episode.rewards),
                terminations=list(last & episode.terminated),
                truncations=list(last & (not episode.terminated)),
                infos={},
            )
        )
    try:
        _write_whole(dataset_id, env_id, buffers, about)
    except OSError as error:
        raise DataError(
            f"cannot save dataset '{dataset_id}': {error}. Make room in the Minari folder, or name "
            "another with MINARI_DATASETS_PATH."
        ) from error


def _write_whole(dataset_id: str, env_id: str, buffers: list[Any], about: dict[str, Any]) -> None:
    """Write beside the Minari folder, then rename into it."""
    import minari
    from minari.storage.datasets_root_dir import get_dataset_path

    target = Path(get_dataset_path(dataset_id))
    root = Path(get_dataset_path())
    root.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("MINARI_DATASETS_PATH")
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".baq-") as partial:
        os.environ["MINARI_DATASETS_PATH"] = partial
        try:
            with _quiet():
                spec = gym.make(env_id).spec  # also resolves an id with its module in front
                minari.create_dataset_from_buffers(
                    dataset_id=dataset_id, buffer=buffers, env=spec, **about
                )
        finally:
            if before is None:
                del os.environ["MINARI_DATASETS_PATH"]
            else:
                os.environ["MINARI_DATASETS_PATH"] = before
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.rename(Path(partial) / target.relative_to(root), target)

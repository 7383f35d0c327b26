"""Minari datasets: reading them, and writing what the tool collects."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
    except ValueError as error:
        raise DataError(
            f"the Minari folder holds something that is not a dataset: {error}. Remove it from "
            "$MINARI_DATASETS_PATH (by default ~/.minari/datasets)."
        ) from error


def check_new_id(dataset_id: str) -> None:
    """Raise UsageError unless a dataset may be saved under this id."""
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(dataset_id)
    except ValueError as error:
        raise UsageError(
            f"'{dataset_id}' can't be a dataset's id: {error}. Choose one as me/hopper/clumsy-v0."
        ) from error
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
    terminate is marked truncated at its last step.
    """
    import minari
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
    with _quiet():
        minari.create_dataset_from_buffers(
            dataset_id=dataset_id, buffer=buffers, env=env_id, **about
        )

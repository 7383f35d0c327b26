"""A dataset as it lies in the Minari folder: what it says of itself, and what is added to that."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym

from baq_cli.data.minari.older import FILE
from baq_cli.data.minari.seal import SEAL, damaged, sealed
from baq_cli.data.minari.serialized import parse_space, parse_spec
from baq_cli.envs.faults import let_go
from baq_cli.envs.making import make_env
from baq_cli.errors import DataError
from baq_cli.plain_files import replaced
from baq_cli.surroundings import MINARI, refused


@dataclass(frozen=True)
class StoredDataset:
    """A dataset in the Minari folder, its transitions not yet read.

    `file` is the name of its HDF5 file in the folder `data`.
    """

    dataset_id: str
    data: Path
    metadata: dict[str, Any]
    file: str = FILE

    @property
    def files(self) -> list[Path]:
        """The dataset's files, in an order that doesn't change."""
        return sorted(path for path in self.data.rglob("*") if path.is_file())

    @cached_property
    def env_spec(self) -> gym.envs.registration.EnvSpec | None:
        """The spec of the environment of the recording. Nothing is imported for it."""
        return self._spec("env_spec", "its environment")

    @cached_property
    def eval_env_spec(self) -> gym.envs.registration.EnvSpec | None:
        """The spec of the environment named for evaluation, where that is another."""
        return self._spec("eval_env_spec", "its environment for evaluation")

    def _spec(self, key: str, what: str) -> gym.envs.registration.EnvSpec | None:
        text = self.metadata.get(key)
        if text is None:
            return None
        try:
            return parse_spec(text)
        except ValueError as error:
            raise self.damaged(f"{what} can't be read: {error}") from error

    @cached_property
    def spaces(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        """The dataset's observation and action spaces; else its environment's."""
        texts = [self.metadata.get(name) for name in ("observation_space", "action_space")]
        try:
            if None not in texts:
                observation, action = (parse_space(str(text)) for text in texts)
                return observation, action
        except ValueError as error:
            raise self.damaged(f"its spaces can't be read: {error}") from error
        if self.env_spec is None:
            raise self.damaged("it records neither its spaces nor its environment")
        env = make_env(self.env_spec.id)
        spaces = env.observation_space, env.action_space
        let_go(env)
        return spaces

    def damaged(self, what: str) -> DataError:
        """Return the error to raise when the dataset can't be read."""
        return damaged(self.dataset_id, what)


def update_metadata(stored: StoredDataset, entries: dict[str, Any]) -> None:
    """Add entries to a dataset's metadata, in one step; a seal is made anew."""
    path = stored.data / "metadata.json"
    try:
        metadata = {**stored.metadata, **entries}
        metadata = sealed(metadata) if SEAL in metadata else metadata
        with replaced(path) as file:
            file.write(json.dumps(metadata).encode())
    except OSError as error:
        raise refused(f"write {path}", error, MINARI) from error

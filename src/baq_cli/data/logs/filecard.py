"""What an export says beside its rows, so that importing it again loses nothing."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
from pydantic import BaseModel, ConfigDict, StrictInt, ValidationError, field_validator

from baq_cli.data.minari.serialized import NUMBER_TYPES, parse_space, parse_spec
from baq_cli.data.recording import Recording
from baq_cli.envs.pool import Made
from baq_cli.errors import DataError
from baq_cli.untrusted import parse_json


class About(BaseModel):
    """Entries of a dataset's metadata: those that Minari knows have its types, others any."""

    model_config = ConfigDict(extra="allow", strict=True)

    author: list[str] | str | None = None
    author_email: list[str] | str | None = None
    algorithm_name: str | None = None
    code_permalink: str | None = None
    description: str | None = None
    requirements: list[str] | None = None
    d4rl_metadata: dict[str, str | int | float | bool] | None = None


class Spread(BaseModel):
    """Where the numbers of an array's rows are in a table, and their shape."""

    shape: list[int]
    columns: list[str]


class Card(BaseModel):
    """Spaces and environment as text, seeds by episode, the types of observation parts."""

    observation_space: str = ""
    action_space: str = ""
    env_spec: str | None = None
    eval_env_spec: str | None = None
    seeds: list[StrictInt | None] = []
    observation_types: dict[str, str] = {}
    about: About = About()
    spread: dict[str, Spread] = {}

    @field_validator("observation_types")
    @classmethod
    def _numbers(cls, types: dict[str, str]) -> dict[str, str]:
        if not set(types.values()) <= NUMBER_TYPES:
            raise ValueError("types that are not numbers")
        return types

    def spaces(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        """Return the observation and action spaces.

        Raises DataError.
        """
        try:
            return parse_space(self.observation_space), parse_space(self.action_space)
        except ValueError as error:
            raise damaged(error) from error

    def spec(self) -> gym.envs.registration.EnvSpec | None:
        """Return the environment that the data were made in; nothing is imported for it.

        Raises DataError.
        """
        return _parsed(self.env_spec)

    def eval_spec(self) -> gym.envs.registration.EnvSpec | None:
        """Return the environment that is named for evaluation, as `spec` does."""
        return _parsed(self.eval_env_spec)


def _parsed(text: str | None) -> gym.envs.registration.EnvSpec | None:
    try:
        return None if text is None else parse_spec(text)
    except ValueError as error:
        raise damaged(error) from error


def damaged(error: Exception) -> DataError:
    return DataError(f"its card is damaged: {str(error).splitlines()[0]}")


def parse_card(text: str) -> Card:
    """Read a card.

    Raises DataError for anything else.
    """
    try:
        return Card.model_validate(parse_json(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise damaged(ValueError(f"{place}: {first['msg']}")) from error
    except ValueError as error:
        raise damaged(error) from error


def card_of_env(env: Made) -> dict[str, Any]:
    """Return the card of what is recorded in an environment, without a word on the recording.

    A spec that JSON can't hold is left out.
    """
    from minari.serialization import serialize_space

    try:
        spec = None if env.spec is None else env.spec.to_json()
    except (TypeError, ValueError):
        spec = None
    return {
        "observation_space": str(serialize_space(env.observation_space)),
        "action_space": str(serialize_space(env.action_space)),
        "env_spec": spec,
        "about": {"requirements": list(env.requirements)},
    }


def card_of(recording: Recording) -> dict[str, Any]:
    """Return the card of a recording, as JSON can hold it."""
    from minari.serialization import serialize_space

    spec, evaluated = recording.env_spec, recording.eval_env_spec
    return {
        "format": 1,
        "observation_space": serialize_space(recording.observation_space),
        "action_space": serialize_space(recording.action_space),
        "env_spec": None if spec is None else spec.to_json(),
        "eval_env_spec": None if evaluated is None else evaluated.to_json(),
        "observation_types": {n: part.dtype.name for n, part in recording.observations.items()},
        "seeds": list(recording.seeds),
        "about": {name: value for name, value in recording.about.items() if _is_fit(name, value)},
    }


def _is_fit(name: str, value: Any) -> bool:
    """Tell whether an entry of a dataset's metadata can be kept, and read again."""
    try:
        json.dumps(value)
        About.model_validate({name: value})
    except (TypeError, ValueError):
        return False
    return True

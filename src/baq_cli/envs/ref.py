"""How an environment is named: its id, the arguments it is made with, the limit of its episodes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baq_cli.errors import EnvironmentMismatch, clipped
from baq_cli.untrusted import check_arguments, check_plain_arguments, parse_json, trusted

MOST_LABEL = 200
"""Letters of an environment's text form; longer ones are cut."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
NOWHERE: dict[str, Any] = {"env_id": None, "env_args": {}, "max_episode_steps": None}
"""What a checkpoint says that was made without an environment."""


def argument_text(value: Any) -> str:
    """Return the text by which an argument that an environment was made with is told from others.

    It is the same in every process: sets are in order, and an object's address is left out.
    """
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(argument_text, value)))}}}"
    return _ADDRESS.sub("", repr(value))


def without_addresses(environment: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest's environment as this version writes it; earlier ones kept addresses."""
    kwargs = environment.get("kwargs")
    if not isinstance(kwargs, dict):
        return environment
    texts = {k: _ADDRESS.sub("", v) if isinstance(v, str) else v for k, v in kwargs.items()}
    return environment | {"kwargs": texts}


@dataclass(frozen=True)
class EnvRef:
    """An environment as it is made: nothing else decides what an episode in it is.

    `args` holds keyword arguments as pairs of a name and JSON text, in the order of their names;
    `max_episode_steps` (env_steps) is the limit at which an episode is truncated. What is None or
    left out is as the environment is registered. `str` gives a text such as
    `PointMaze_UMaze-v3(continuing_task=False, max_episode_steps=300)`.
    """

    id: str
    args: tuple[tuple[str, str], ...] = ()
    max_episode_steps: int | None = None

    @classmethod
    def of(
        cls,
        env_id: str,
        args: Mapping[str, Any] | None = None,
        max_episode_steps: int | None = None,
    ) -> EnvRef:
        """Return an environment with arguments that JSON can hold."""
        texts = tuple((name, _text(value)) for name, value in sorted((args or {}).items()))
        return cls(env_id, texts, max_episode_steps)

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> EnvRef | None:
        """Return the environment that a checkpoint names, None where it was made without one.

        Older ones know an id alone.
        """
        if document["env_id"] is None:
            return None
        args, limit = document.get("env_args"), document.get("max_episode_steps")
        return cls.of(str(document["env_id"]), args, limit)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> EnvRef:
        """Read what `dataclasses.asdict` made, after a way through JSON."""
        pairs = tuple((str(name), str(text)) for name, text in fields["args"])
        return cls(str(fields["id"]), pairs, fields["max_episode_steps"])

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments by name, a copy."""
        return {name: parse_json(text) for name, text in self.args}

    def document(self) -> dict[str, Any]:
        """Return the entries by which a checkpoint names it; `of_document` reads them."""
        limit = self.max_episode_steps
        return {"env_id": self.id, "env_args": self.kwargs, "max_episode_steps": limit}

    def flags(self) -> str:
        """Return the words of a command that name it."""
        words = ["--env", self.id]
        for name, value in self.kwargs.items():
            words += ["--env-arg", f"{name}={json.dumps(value)}"]
        if self.max_episode_steps is not None:
            words += ["--max-episode-steps", str(self.max_episode_steps)]
        return shlex.join(words)

    def __str__(self) -> str:
        said = [f"{name}={clipped(repr(value))}" for name, value in self.kwargs.items()]
        if self.max_episode_steps is not None:
            said.append(f"max_episode_steps={self.max_episode_steps}")
        text = f"{self.id}({', '.join(said)})" if said else self.id
        return text if len(text) <= MOST_LABEL else f"{text[:MOST_LABEL]}…"


@dataclass(frozen=True)
class EnvChoice:
    """What a command says of the environment, beside what a dataset or a checkpoint says.

    An id stands for the environment as it is registered: arguments and limits of the one that is
    known already aren't taken over to it. Without an id, the known one is changed.
    """

    id: str | None = None
    args: Mapping[str, Any] | None = None
    max_episode_steps: int | None = None

    def over(self, known: EnvRef | None) -> EnvRef | None:
        """Return the environment that is meant; None where nothing names one."""
        if self.id is not None:
            return EnvRef.of(self.id, self.args, self.max_episode_steps)
        if known is None:
            return None
        limit = self.max_episode_steps
        limit = known.max_episode_steps if limit is None else limit
        return EnvRef.of(known.id, {**known.kwargs, **(self.args or {})}, limit)


def document_of(env: EnvRef | None) -> dict[str, Any]:
    """Return the entries by which a checkpoint names its environment, or says that it has none."""
    return NOWHERE if env is None else env.document()


def named(env: EnvRef | str) -> EnvRef:
    """Return an environment; one that is as it is registered may be named by its id alone."""
    return EnvRef(env) if isinstance(env, str) else env


def check_inherited(env: EnvRef, named_by: str, given: Mapping[str, Any] | None = None) -> None:
    """Raise EnvironmentMismatch for arguments from a file that could name another file.

    `given` are those that the user gave, which may be any; `named_by` says where the others come
    from. With --trust-env they are any as well.
    """
    check = check_arguments if trusted() else check_plain_arguments
    for name, value in env.kwargs.items():
        if given is not None and name in given and _text(given[name]) == _text(value):
            continue
        try:
            check({name: value})
        except ValueError as error:
            raise EnvironmentMismatch(
                f"the argument {clipped(name)}={clipped(repr(value))} of the environment "
                f"'{env.id}', which {named_by} names, is refused: {error}. If you know it and want "
                f"that, give it yourself ({env.flags()}), or add --trust-env to the command."
            ) from error


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)

"""What is checked of a dataset against an environment, before training and when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from baq_cli.data.checks import cut_short, longer_than
from baq_cli.data.episodes import DataOrigin, Episodes, Finding
from baq_cli.envs.faults import EnvironmentFault, let_go
from baq_cli.envs.limits import own_limit
from baq_cli.envs.making import as_registered, make_env, quiet_simulator
from baq_cli.envs.pool import flat
from baq_cli.envs.ref import EnvRef, check_inherited, named
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, EnvironmentMismatch, clipped
from baq_cli.untrusted import parse_json

NARROW = 2**32
"""Seeds from here on are refused by older generators of random numbers."""
REPLAYED = 5
"""How many recorded starts are compared with the environment's."""


def _warning(check: str, text: str) -> Finding:
    return Finding("warning", check, text)


def environment_findings(episodes: Episodes, env: EnvRef | str) -> list[Finding]:
    """Check a dataset against an environment: spaces, limit, versions, recorded starts.

    Where it is the one that the dataset names for evaluation, limit and starts are those of the
    environment of the recording. Raises EnvironmentMismatch when the environment can't be made.
    """
    ref, origin = named(env), episodes.origin
    made = make_env(ref)
    mine, theirs = f"dataset '{episodes.dataset_id}'", f"environment '{ref}'"
    try:
        try:
            spaces = Spaces.of(made.observation_space, made.action_space)
            episodes.spaces.check_same(spaces, mine, theirs)
        except (DataError, EnvironmentMismatch) as error:
            return [Finding("error", "spaces", f"{ref}: {error}")]
        found = list(_versions(origin.requirements))
        if origin.eval_env is not None and as_registered(ref) == as_registered(origin.eval_env):
            return found + _against_recorded(episodes)
        if made.spec is not None and origin.env_id == made.spec.id:
            found += _settings(origin, made.spec)
            found += _starts(episodes, made)
        if made.spec is not None and origin.max_episode_steps != made.spec.max_episode_steps:
            found += longer_than(episodes, made.spec.max_episode_steps)
        found += cut_short(episodes, own_limit(made))
    finally:
        let_go(made)
    return found


def _against_recorded(episodes: Episodes) -> list[Finding]:
    """Compare a dataset's starts with those of the environment that it was recorded in."""
    recorded = episodes.origin.env
    if recorded is None:
        return []
    try:
        check_inherited(as_registered(recorded), f"the dataset '{episodes.dataset_id}'")
        made = make_env(recorded)
    except EnvironmentMismatch as error:
        return [_warning("starts", f"the environment of the recording can't be made: {error}")]
    try:
        return list(_starts(episodes, made))
    finally:
        let_go(made)


def _settings(origin: DataOrigin, spec: Any) -> Iterator[Finding]:
    kwargs = {k: v for k, v in _as_json(spec.kwargs).items() if k != "render_mode"}
    for name, recorded, made in (
        ("max_episode_steps", origin.max_episode_steps, spec.max_episode_steps),
        ("keyword arguments", _without(origin.kwargs, kwargs), _without(kwargs, origin.kwargs)),
    ):
        if recorded != made:
            yield _warning(
                "settings",
                f"recorded with {name} {clipped(recorded)}; {spec.id} is made here with "
                f"{clipped(made)}: another task.",
            )


def _without(kwargs: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments less those that others have alike, which may be long."""
    return {name: v for name, v in kwargs.items() if name not in others or others[name] != v}


def _as_json(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments as a recording has them, where JSON can hold them."""
    try:
        as_json: dict[str, Any] = parse_json(json.dumps(kwargs))
    except (TypeError, ValueError):
        return kwargs
    return as_json


def _versions(requirements: Sequence[str]) -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import InvalidRequirement, Requirement

    for text in requirements:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            yield _warning("versions", f"its requirement '{text}' can't be read.")
            continue
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            yield _warning("versions", f"it needs {text}, which isn't installed.")
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            yield _warning(
                "versions",
                f"made with {text}, {wanted.name} {installed} is installed: the simulator may "
                "behave otherwise.",
            )


def _starts(episodes: Episodes, env: Any) -> Iterator[Finding]:
    """Reset the environment with recorded seeds and compare the first observations."""
    seeded = [(k, seed) for k, seed in enumerate(episodes.origin.seeds) if seed is not None]
    firsts = episodes.starts + np.arange(len(episodes.lengths))
    differ, played = [], flat(env)
    for number, seed in seeded[:REPLAYED]:
        try:
            with quiet_simulator():
                observation, _ = played.reset(seed=seed)
        except EnvironmentFault as fault:
            wide = seed >= NARROW and isinstance(fault.__cause__, ValueError | OverflowError)
            if not (wide or isinstance(fault.__cause__, gym.error.Error)):  # it takes such seeds
                raise EnvironmentFault(f"'{env.spec.id}': {fault}") from fault
            differ.append(number)
            continue
        start = observation.astype(np.float32)
        if not np.allclose(start, episodes.observations[firsts[number]], atol=1e-5):
            differ.append(number)
    if differ:
        yield _warning(
            "starts",
            f"another first observation here from {len(differ)} of {len(seeded[:REPLAYED])} "
            "recorded start seeds: another version of the environment, or seeds of another "
            "meaning.",
        )

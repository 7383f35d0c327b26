"""Where an episode ends that doesn't end by itself: every environment gets a limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym

from baq_cli.envs.ref import EnvRef

DEFAULT_LIMIT = 1000
"""env_steps after which an episode is truncated where nothing says when: as most tasks have it."""


def own_limit(env: gym.Env[Any, Any]) -> int | None:
    """Return the env_steps at which an environment truncates its episodes, as far as it says."""
    layer: Any = env
    found = []
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, gym.wrappers.TimeLimit):
            found.append(int(layer._max_episode_steps))
        layer = layer.env
    return min(found, default=None)


def bounded(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return an environment whose episodes end, at the default limit if nothing else ends them."""
    if own_limit(env) is not None:
        return env
    return gym.wrappers.TimeLimit(env, DEFAULT_LIMIT)


def with_limit(
    ref: EnvRef, made: gym.Env[Any, Any], logged: int | None = None
) -> tuple[EnvRef, str | None]:
    """Return an environment with a limit for its episodes, and what to say where one was chosen.

    A limit that is given, or that the environment says itself, is that. Else it is `logged`: the
    env_steps at which the longest episode of the data at hand was cut. Else it is the default one,
    which an environment that ends its episodes itself may never come to.
    """
    if own_limit(made) is not None:
        return ref, None
    limit, which = DEFAULT_LIMIT, "those that don't end by themselves are"
    why = ""
    if logged is not None:
        limit, which, why = logged, "they are", ", as the longest one of the data was"
    return replace(ref, max_episode_steps=limit), (
        f"'{ref}' says no limit of its episodes: {which} cut after {limit:,} env_steps{why} "
        "(--max-episode-steps N sets another)"
    )

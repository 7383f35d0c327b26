"""What is checked of a dataset: its content when it is read, its environment before training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, islice
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.data.episodes import DataOrigin, Episodes, Finding
from baq_cli.envs.faults import EnvironmentFault, let_go
from baq_cli.envs.pool import flat, make_env, quiet_simulator
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import MOST_LISTED, DataError, EnvironmentMismatch, listed

Array = npt.NDArray[Any]
OUTSIDE = 1e-4
"""How far beyond its bounds an action may lie by rounding, in units of [−1, 1]."""
ON_BOUNDS = 0.01
"""The share of actions exactly on a bound above which it is worth a warning."""
BLOCK = 1 << 16
NARROW = 2**32
"""Seeds from here on are refused by older generators of random numbers."""
REPLAYED = 5
"""How many recorded starts are compared with the environment's."""


def _error(check: str, text: str) -> Finding:
    return Finding("error", check, text)


def _warning(check: str, text: str) -> Finding:
    return Finding("warning", check, text)


def refuse(episodes: Episodes, findings: Sequence[Finding]) -> Episodes:
    """Return the episodes with their warnings.

    Raises DataError, with every error, when there is one.
    """
    errors = [finding.text for finding in findings if finding.level == "error"]
    if errors:
        raise DataError(f"dataset '{episodes.dataset_id}': {' '.join(errors)}")
    return replace(episodes, findings=tuple(findings))


def content_findings(episodes: Episodes) -> list[Finding]:
    """Check everything that needs no environment."""
    finite = list(_not_finite(episodes))
    rest = [_actions, _end_flags, _lengths, _dimensions, _rewards, _duplicates]
    found = [finding for check in rest for finding in check(episodes)]
    return [*finite, *episodes.rounding, *found]


# -- content


def _not_finite(episodes: Episodes) -> Iterator[Finding]:
    for name, rows in (
        ("observations", episodes.observations),
        ("actions", episodes.action),
        ("rewards", episodes.reward),
    ):
        with np.errstate(invalid="ignore"):
            if np.isfinite(rows.sum(dtype=np.float64)):  # nothing can hide in a finite sum
                continue
        bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(1))
        if not len(bad):
            continue
        if name == "observations":
            firsts = episodes.starts + np.arange(len(episodes.lengths))
            number = int(np.searchsorted(firsts, bad[0], side="right")) - 1
            step = int(bad[0] - firsts[number])
        else:
            number = int(episodes.episode[bad[0]])
            step = int(bad[0] - episodes.starts[number])
        yield _error(
            "finite",
            f"{name} are NaN, infinite or beyond float32 in {len(bad)} of {len(rows)} rows, "
            f"first in episode {number} at step {step}. Remove those episodes and save the "
            "dataset again.",
        )


def _actions(episodes: Episodes) -> Iterator[Finding]:
    outside, on = np.zeros((2, len(episodes)), dtype=np.bool_)
    furthest = 0.0
    for start in range(0, len(episodes), BLOCK):  # no second copy of them all
        rows = slice(start, start + BLOCK)
        size = np.fmax.reduce(np.abs(episodes.action[rows]), axis=1)
        furthest = max(furthest, float(np.fmax.reduce(size)))
        outside[rows] = size > 1 + OUTSIDE
        on[rows] = size >= 1
    on &= ~outside
    if outside.any():
        yield _error(
            "action bounds",
            f"{_share(outside)} of the actions lie outside the recorded action space (by up to "
            f"{furthest - 1:.3g} of its half width). Clip them, or record the right bounds.",
        )
    if on.mean() > ON_BOUNDS:
        yield _warning(
            "action bounds",
            f"{_share(on)} of the actions lie exactly on a bound, where a squashed policy's "
            "log-probability is infinite; methods here move them inside by a hair.",
        )


def _end_flags(episodes: Episodes) -> Iterator[Finding]:
    last = episodes.starts + episodes.lengths - 1
    terminated, truncated = episodes.terminated[last], episodes.truncated[last]
    inside = (episodes.terminated | episodes.truncated).sum() - (terminated | truncated).sum()
    if inside:
        yield _error(
            "end flags",
            f"{inside} steps inside an episode are marked terminated or truncated: the episodes "
            "are cut wrongly. Import the log again without its episode numbers (--ends "
            "unused=COLUMN), and the flags decide.",
        )
    if (terminated & truncated).any():
        yield _warning(
            "end flags",
            f"{_share(terminated & truncated)} of the episodes end both terminated and truncated; "
            "they are taken as terminated.",
        )
    neither = ~(terminated | truncated)
    if neither.any():
        yield _warning(
            "end flags",
            f"{_share(neither)} of the episodes end neither terminated nor truncated; they are "
            "taken as truncated.",
        )


def _lengths(episodes: Episodes) -> Iterator[Finding]:
    short = episodes.lengths == 1
    if short.any():
        yield _warning("lengths", f"{_share(short)} of the episodes have one step.")
    yield from _longer(episodes, episodes.origin.max_episode_steps)


def _longer(episodes: Episodes, limit: int | None) -> Iterator[Finding]:
    if limit is not None and (episodes.lengths > limit).any():
        yield _warning(
            "lengths",
            f"{_share(episodes.lengths > limit)} of the episodes are longer than the "
            f"{limit} steps that their environment allows (the longest: "
            f"{int(episodes.lengths.max())}).",
        )


def _dimensions(episodes: Episodes) -> Iterator[Finding]:
    for name, rows in (("observation", episodes.observations), ("action", episodes.action)):
        low, high = rows.min(0), rows.max(0)
        constant = [str(i) for i in np.flatnonzero(low == high)]
        if constant and len(rows) > 1:
            yield _warning("dimensions", f"{name} dimensions [{listed(constant)}] are constant.")
        alike: dict[bytes, list[int]] = {}
        for i in np.flatnonzero(low < high).tolist():
            column = (rows[:, i] + 0.0).tobytes()  # −0.0 is 0.0
            alike.setdefault(hashlib.blake2b(column, digest_size=16).digest(), []).append(i)
        pairs = [p for g in alike.values() for p in islice(combinations(g, 2), MOST_LISTED + 1)]
        if pairs:
            same = listed([f"{i} = {j}" for i, j in sorted(pairs)])
            yield _warning("dimensions", f"{name} dimensions are duplicates: {same}.")


def _rewards(episodes: Episodes) -> Iterator[Finding]:
    if len(episodes) > 1 and episodes.reward.min() == episodes.reward.max():
        yield _warning(
            "rewards",
            f"every reward is {float(episodes.reward[0]):g}: there is nothing to prefer.",
        )


def _duplicates(episodes: Episodes) -> Iterator[Finding]:
    seen: set[bytes] = set()
    firsts = episodes.starts + np.arange(len(episodes.lengths))
    observations = np.ascontiguousarray(episodes.observations)
    action = np.ascontiguousarray(episodes.action)
    for first, start, length in zip(firsts, episodes.starts, episodes.lengths, strict=True):
        digest = hashlib.blake2b(observations[first : first + length + 1].data, digest_size=16)
        digest.update(action[start : start + length].data)
        seen.add(digest.digest())
    copies = len(firsts) - len(seen)
    if copies:
        yield _warning(
            "duplicates",
            f"{copies} of {len(firsts)} episodes are copies of others, step by step.",
        )


def _share(mask: Any) -> str:
    return f"{int(mask.sum()):,} of {len(mask):,} ({mask.mean():.1%})"


# -- the environment


def environment_findings(episodes: Episodes, env_id: str) -> list[Finding]:
    """Check a dataset against an environment: spaces, limit, versions, recorded starts.

    Raises EnvironmentMismatch when the environment can't be made.
    """
    env = make_env(env_id)
    mine, theirs = f"dataset '{episodes.dataset_id}'", f"environment '{env_id}'"
    found: list[Finding] = []
    try:
        try:
            spaces = Spaces.of(env.observation_space, env.action_space)
            episodes.spaces.check_same(spaces, mine, theirs)
        except (DataError, EnvironmentMismatch) as error:
            return [_error("spaces", f"{env_id}: {error}")]
        origin = episodes.origin
        found += _versions(origin.requirements)
        if env.spec is not None and origin.env_id == env.spec.id:
            found += _settings(origin, env.spec)
            found += _starts(episodes, env)
        if env.spec is not None and origin.max_episode_steps != env.spec.max_episode_steps:
            found += _longer(episodes, env.spec.max_episode_steps)
    finally:
        let_go(env)
    return found


def _settings(origin: DataOrigin, spec: Any) -> Iterator[Finding]:
    if spec is None:
        return
    kwargs = {key: repr(value) for key, value in spec.kwargs.items()}
    for name, recorded, made in (
        ("max_episode_steps", origin.max_episode_steps, spec.max_episode_steps),
        ("keyword arguments", origin.kwargs, kwargs),
    ):
        if recorded != made:
            yield _warning(
                "settings",
                f"recorded with {name} {recorded}; {spec.id} is made here with {made}. Training "
                f"goes on only where you say so, with --env {spec.id}.",
            )


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
            f"{len(differ)} of {len(seeded[:REPLAYED])} recorded start seeds give another first "
            "observation here: another version of the environment, or seeds of another meaning.",
        )

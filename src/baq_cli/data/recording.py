"""Logged experience as it was given: what sources make and datasets are written from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.data.digits import losses_of
from baq_cli.data.dimensions import Names, lost_digits
from baq_cli.data.episodes import (
    INTERVENTION,
    DataOrigin,
    Episodes,
    Finding,
    where_somebody_acted,
)
from baq_cli.data.seeds import is_seed
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import Spaces, flatten_parts, observation_parts
from baq_cli.errors import DataError, EnvironmentMismatch

Array = npt.NDArray[Any]
Spec = gym.envs.registration.EnvSpec


@dataclass(frozen=True)
class Recording:
    """Episodes laid end to end in their own dtypes, actions in the environment's units.

    Shapes: M transitions in K episodes of T_k. observations: by part (one named '' for a flat
    Box), `[M + K, ...]`, T_k + 1 an episode; actions `[M, ...]`; rewards, terminated, truncated
    `[M]`; lengths `[K]`. infos: by name, `[M, ...]` (one a step) or `[M + K, ...]` (from the
    reset on). seeds: the start seed of each episode, None where unknown.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    observations: dict[str, Array]
    actions: Array
    rewards: Array
    terminated: Array
    truncated: Array
    lengths: Array
    seeds: tuple[int | None, ...] = ()
    infos: dict[str, Array] = field(default_factory=dict)
    env_spec: Spec | None = None
    eval_env_spec: Spec | None = None
    """Another environment for evaluation, where whoever recorded it named one."""
    about: dict[str, Any] = field(default_factory=dict)
    """Entries of the dataset's metadata: description, author, requirements, …"""

    def __post_init__(self) -> None:
        check_spec(self.env_spec)
        check_spec(self.eval_env_spec)
        steps, episodes = int(self.lengths.sum()), len(self.lengths)
        if not steps or (self.lengths < 1).any():
            raise DataError("the log holds no transitions, or an episode without any")
        known = observation_parts(self.observation_space)
        if list(self.observations) != list(known):
            raise DataError(
                f"the log's observations have the parts {list(self.observations)}, the space "
                f"{self.observation_space} has {list(known)}"
            )
        for name, part in self.observations.items():
            _check_shape(
                f"observations {name}".strip(), part, (steps + episodes, *known[name].shape)
            )
        _check_shape("actions", self.actions, (steps, *(self.action_space.shape or ())))
        for name in ("rewards", "terminated", "truncated"):
            _check_shape(name, getattr(self, name), (steps,))
        for seed in self.seeds:
            if seed is not None and not is_seed(seed):
                raise DataError(f"the log has the seed {seed!r}; expected a whole number")
        for name, info in self.infos.items():
            above = {name.rsplit("/", depth + 1)[0] for depth in range(name.count("/"))}
            if {"", ".", ".."} & set(name.split("/")) or above & self.infos.keys():
                raise DataError(f"the log has infos named '{name}', which can't be kept: rename it")
            if len(info) not in (steps, steps + episodes):
                raise DataError(f"infos '{name}' has {len(info)} rows for {steps} steps")

    @property
    def first_rows(self) -> Array:
        """The row of `observations` at which each episode begins, `[K]`."""
        return np.cumsum(self.lengths + 1) - (self.lengths + 1)

    def next_rows(self) -> Array:
        """The rows of `observations` that each step leads to, `[M]`."""
        return np.delete(np.arange(int(self.lengths.sum()) + len(self.lengths)), self.first_rows)

    def rows(self) -> Array:
        """The rows of `observations` that each step starts from, `[M]`."""
        return self.next_rows() - 1

    def episodes(self, dataset_id: str) -> Episodes:
        """Return the recording in the units of training; nothing is checked here.

        Raises DataError for spaces that are not supported.
        """
        spaces = Spaces.of(self.observation_space, self.action_space)
        with np.errstate(over="ignore"):  # what float32 can't hold is found by the checks
            observations = flatten_parts(self.observations).astype(np.float32)
            action = spaces.from_env(self.actions.astype(np.float64))
            reward = self.rewards.astype(np.float32)
            rounding = self._rounding(spaces, observations, action, reward)
        return Episodes(
            dataset_id=dataset_id,
            spaces=spaces,
            observations=observations,
            action=action,
            reward=reward,
            terminated=self.terminated.astype(np.bool_),
            truncated=self.truncated.astype(np.bool_),
            lengths=self.lengths.astype(np.int64),
            intervention=self._intervention(),
            origin=origin_of(
                (self.env_spec, self.eval_env_spec),
                self.about,
                self.seeds or (None,) * len(self.lengths),
            ),
            rounding=rounding,
        )

    def _intervention(self) -> Array | None:
        """Return where somebody acted in the policy's place, `[M]`; None where nobody is known."""
        said = self.infos.get(INTERVENTION)
        return None if said is None else where_somebody_acted(said, self.lengths)

    def _rounding(
        self, spaces: Spaces, observations: Array, action: Array, reward: Array
    ) -> tuple[Finding, ...]:
        """Compare the arrays with what training reads of them."""
        names = Names.of(self.about, self.observation_space, spaces.action_dim)
        found: list[Finding] = []
        left = 0
        for part in self.observations.values():
            flat = part.reshape(len(part), -1)
            right = left + flat.shape[1]
            losses = losses_of(flat, observations[:, left:right], self.lengths + 1)
            found += lost_digits("observations", losses, names, left)
            left = right
        losses = losses_of(self.actions, action, self.lengths, spaces.unscaled)
        found += lost_digits("actions", losses, names)
        found += lost_digits("rewards", losses_of(self.rewards, reward, self.lengths), names)
        return tuple(found)


def check_spec(spec: Spec | None) -> None:
    """Raise EnvironmentMismatch for an environment that can't be described in a dataset."""
    try:
        if spec is not None:
            spec.to_json()
    except (TypeError, ValueError) as error:
        raise EnvironmentMismatch(
            f"{spec.id if spec else ''} can't be described in a dataset: {str(error).rstrip('.')}. "
            "Register it with entry_point='module:Class', and with keyword arguments that JSON can "
            "hold."
        ) from error


def origin_of(
    specs: tuple[Spec | None, Spec | None],
    about: dict[str, Any],
    seeds: Iterable[int | None],
) -> DataOrigin:
    """Return where data were made, from a dataset's metadata and the specs of two environments.

    The first is the one of the recording, the other the one for evaluation.
    """
    said = about.get("requirements")
    requirements = tuple(map(str, said)) if isinstance(said, list) else ()
    made, evaluated = (None if spec is None else _ref_of(spec) for spec in specs)
    return DataOrigin(
        env_id=None if made is None else made.id,
        kwargs={} if made is None else made.kwargs,
        max_episode_steps=None if made is None else made.max_episode_steps,
        eval_env=None if evaluated == made else evaluated,
        requirements=requirements,
        seeds=tuple(seeds),
    )


def _ref_of(spec: Spec) -> EnvRef:
    """Return what decides a spec's episodes; how it is drawn doesn't."""
    kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    return EnvRef.of(spec.id, kwargs, spec.max_episode_steps)


def _check_shape(name: str, array: Array, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise DataError(
            f"{name} of the log have the shape {list(array.shape)}; expected {list(expected)}, "
            "from the lengths of its episodes and the spaces"
        )
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
        raise DataError(f"{name} of the log are of type {array.dtype}; expected numbers")

"""Rolling a policy out into logged episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.recording import Recording
from baq_cli.envs.faults import let_go
from baq_cli.envs.making import make_env, requirements_of
from baq_cli.envs.pool import EnvPool
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import observation_parts, split_parts

Array = npt.NDArray[Any]
Act = Callable[[Array, Array], Array]
"""From observations `[K, obs_dim]`, and the numbers of the episodes that they are of, `[K]`, to
actions `[K, action_dim]` in [−1, 1]; called at every step."""

WIDTH = 10
"""Environments stepped together; part of what makes a collection reproducible."""


@dataclass(frozen=True)
class LoggedEpisode:
    """One episode as it was collected: T+1 flat observations, T actions and rewards.

    Observations and actions have the environment's own types.
    """

    seed: int
    observations: Array
    actions: Array
    rewards: Array
    terminated: bool


def join(ref: EnvRef | str, episodes: Sequence[LoggedEpisode], about: dict[str, Any]) -> Recording:
    """Return collected episodes as a recording of an environment.

    An episode that didn't terminate is marked truncated at its last step. The simulator's packages
    and their versions go into the metadata.
    """
    env = make_env(ref)
    lengths = np.asarray([len(episode.rewards) for episode in episodes])
    steps = int(lengths.sum())
    last = np.cumsum(lengths) - 1
    flags = np.zeros((2, steps), dtype=np.bool_)
    flags[0, last] = [episode.terminated for episode in episodes]
    flags[1, last] = ~flags[0, last]
    flat = np.concatenate([episode.observations for episode in episodes])
    observations = split_parts(flat, env.observation_space)
    boxes = observation_parts(env.observation_space)
    recording = Recording(
        observation_space=env.observation_space,
        action_space=env.action_space,
        observations={n: part.astype(boxes[n].dtype) for n, part in observations.items()},
        actions=np.concatenate([episode.actions for episode in episodes]),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        terminated=flags[0],
        truncated=flags[1],
        lengths=lengths,
        seeds=tuple(episode.seed for episode in episodes),
        env_spec=env.spec,
        about={**about, "requirements": requirements_of(env)},
    )
    let_go(env)
    return recording


class _Open:
    """An episode being recorded."""

    def __init__(self, number: int, seed: int, obs: Array):
        self.number, self.seed = number, seed
        self.observations = [obs]
        self.actions: list[Array] = []
        self.rewards: list[float] = []

    def close(self, terminated: bool) -> LoggedEpisode:
        return LoggedEpisode(
            self.seed,
            np.stack(self.observations),
            np.stack(self.actions),
            np.asarray(self.rewards),
            terminated,
        )


def collect(
    env: EnvRef | str,
    act: Act,
    env_steps: int,
    start_seed: Callable[[int], int],
) -> list[LoggedEpisode]:
    """Record episodes of a policy until they hold `env_steps` steps; the last is cut to fit.

    Episode n starts from `start_seed(n)`. Episodes are kept in the order of their numbers, so
    short ones, which finish first, aren't over-represented. A cut episode is marked truncated:
    its next observation is known.
    """
    pool = EnvPool(env, WIDTH)
    finished: dict[int, LoggedEpisode] = {}
    prefix: list[LoggedEpisode] = []
    prefix_steps = 0
    seeds = [start_seed(n) for n in range(WIDTH)]
    obs = pool.reset(seeds)
    running = [_Open(n, seeds[n], pool.given[n].copy()) for n in range(WIDTH)]
    wanted = np.full(WIDTH, env_steps > 0)
    while wanted.any():
        action = act(obs, np.asarray([episode.number for episode in running]))
        obs, reward, terminated, truncated = pool.step(action, wanted)
        logged = pool.last.action_in_env
        for k in np.flatnonzero(wanted).tolist():
            episode = running[k]
            episode.observations.append(pool.given[k].copy())
            episode.actions.append(logged[k])
            episode.rewards.append(float(reward[k]))
        over = terminated | truncated
        if over.any():
            next_number = max(episode.number for episode in running) + 1
            for k in np.flatnonzero(over).tolist():
                finished[running[k].number] = running[k].close(bool(terminated[k]))
                running[k] = _Open(next_number, start_seed(next_number), pool.given[k])
                next_number += 1
            while len(prefix) in finished:
                prefix.append(finished.pop(len(prefix)))
                prefix_steps += len(prefix[-1].rewards)
        wanted = _wanted(running, finished, prefix_steps, env_steps)
        if (over & wanted).any():
            obs = pool.reset([episode.seed for episode in running], over & wanted)
            for k in np.flatnonzero(over & wanted).tolist():
                running[k].observations = [pool.given[k].copy()]
    pool.close()
    finished |= {episode.number: episode.close(False) for episode in running if episode.rewards}
    return _cut([*prefix, *(finished[number] for number in sorted(finished))], env_steps)


def _wanted(
    running: Sequence[_Open],
    finished: Mapping[int, LoggedEpisode],
    prefix_steps: int,
    env_steps: int,
) -> npt.NDArray[np.bool_]:
    """Tell which running episodes may be among the first `env_steps` steps, `[K]`.

    An episode is not where those before it hold as many already, or it and those before it do: its
    environment need not step on, however long it would.
    """
    steps = {episode.number: len(episode.rewards) for episode in running}
    steps |= {number: len(episode.rewards) for number, episode in finished.items()}
    if prefix_steps + sum(steps.values()) < env_steps:
        return np.ones(len(running), dtype=np.bool_)
    with_it = dict(
        zip(sorted(steps), accumulate(map(steps.__getitem__, sorted(steps))), strict=True)
    )
    held = [prefix_steps + with_it[episode.number] for episode in running]
    return np.asarray(held) < env_steps


def _cut(episodes: list[LoggedEpisode], env_steps: int) -> list[LoggedEpisode]:
    """Keep the first `env_steps` steps, cutting the episode they end in."""
    kept: list[LoggedEpisode] = []
    left = env_steps
    for episode in episodes:
        length = len(episode.rewards)
        if length > left:
            episode = LoggedEpisode(
                episode.seed,
                episode.observations[: left + 1],
                episode.actions[:left],
                episode.rewards[:left],
                False,
            )
        kept.append(episode)
        left -= len(episode.rewards)
        if left == 0:
            break
    return kept

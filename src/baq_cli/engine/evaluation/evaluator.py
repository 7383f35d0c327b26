"""Evaluation: episodes of the policy, as it acts, in environments of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.agents.base import Agent
from baq_cli.data.collect import Act
from baq_cli.engine.evaluation.acting import Player
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.envs.pool import EnvPool
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.safety import Rules
from baq_cli.errors import NonFiniteError
from baq_cli.nets.streams import derive_seed

Array = npt.NDArray[Any]


def env_seed(seed: int, *names: str | int) -> int:
    """Return a start-state seed for one episode, in the range simulators accept."""
    return derive_seed(seed, *names) % (2**31 - 1)


class NotFinite(NonFiniteError):
    """A step of an evaluation with a number that is not finite; `parts` are its arrays, `[K, …]`,
    K = S · width.
    """

    def __init__(self, message: str, parts: dict[str, Array]):
        super().__init__(message)
        self.parts = parts


class Evaluator:
    """Run every seed's policy for a number of episodes.

    The environments are not the training ones, and each evaluation's start states are new: they
    depend on the seed, the evaluation's number and the episode's alone; so does the noise of a
    method that samples. With a `share` (i, n) it plays every n-th environment's episodes, from the
    i-th on, and others' returns and lengths are 0: so n processes play what one would, digit for
    digit, because each decides for all. With `timeout_seconds`, environments step in processes, one
    a seed; with `rules`, limits hold in them.
    Raises EnvironmentFault when one fails (asking again makes them anew), and NotFinite.
    """

    def __init__(
        self,
        env: EnvRef | str,
        seeds: tuple[int, ...],
        episodes: int,
        width: int = 10,
        timeout_seconds: float | None = None,
        rules: Rules | None = None,
        share: tuple[int, int] = (0, 1),
    ):
        self.seeds = seeds
        self._share = share
        self.episodes = episodes
        in_workers = timeout_seconds is not None
        self.width = 1 if in_workers else min(width, episodes)
        count = len(seeds) * self.width
        self._make_pool = partial(EnvPool, env, count, in_workers, timeout_seconds, rules)
        self.pool = self._make_pool()
        self._failed = False

    def evaluate(self, agent: Agent, inputs: Inputs, number: int | str) -> tuple[Array, Array]:
        """Return raw returns and lengths (env_steps), `[S, episodes]` float64 and int64."""
        found = self.evaluate_unless(lambda: False, agent, inputs, number)
        assert found is not None
        return found

    def evaluate_unless(
        self, stop: Callable[[], bool], agent: Agent, inputs: Inputs, number: int | str
    ) -> tuple[Array, Array] | None:
        """Return what `evaluate` does, or None where `stop` says so between two steps."""
        return self._play(Player(agent, inputs, self.width, f"act/{number}"), number, stop)

    def play(self, act: Act, number: int | str) -> tuple[Array, Array]:
        """Return what `evaluate` does, of any function that acts; see `Act`, K = S · width."""
        found = self._play(act, number, lambda: False)
        assert found is not None
        return found

    def _play(
        self, act: Act, number: int | str, stop: Callable[[], bool]
    ) -> tuple[Array, Array] | None:
        if self._failed:
            self.pool = self._make_pool()
        try:
            self._failed = True
            found = self._played(act, number, stop)
            self._failed = False
        finally:
            if self._failed:
                self.pool.abandon()
        return found

    def _played(
        self, act: Act, number: int | str, stop: Callable[[], bool]
    ) -> tuple[Array, Array] | None:
        seeds, width = len(self.seeds), self.width
        returns = np.zeros((seeds, self.episodes))
        lengths = np.zeros((seeds, self.episodes), dtype=np.int64)
        row = np.repeat(np.arange(seeds), width)
        episode = np.tile(np.arange(width), seeds)
        first, every = self._share
        episode[np.arange(len(episode)) % every != first] = self.episodes  # somebody else's
        obs, taken = self.pool.reset(self._start_seeds(row, episode, number)), 0
        while (running := episode < self.episodes).any():
            if stop():
                return None
            action = act(obs, episode)
            taken += 1
            self._check_finite({"action": action}, running, taken)
            obs, reward, terminated, truncated = self.pool.step(action, running)
            parts = {"action": action, "observation": obs, "reward": reward}
            self._check_finite(parts, running, taken)
            returns[row[running], episode[running]] += reward[running]
            lengths[row[running], episode[running]] += 1
            over = (terminated | truncated) & (running | self.pool.workers)
            if not over.any():
                continue
            episode = episode + width * over
            begun = over & ((episode < self.episodes) | self.pool.workers)
            if begun.any():
                obs = self.pool.reset(self._start_seeds(row, episode, number), begun)
        return returns, lengths

    def _check_finite(self, parts: dict[str, Array], running: Array, taken: int) -> None:
        for name, values in parts.items():
            if np.isfinite(values).all():
                continue
            odd = running & ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if odd.any():
                seeds = sorted({self.seeds[i // self.width] for i in np.flatnonzero(odd)})
                raise NotFinite(
                    f"{name} is NaN or infinite in an evaluation in '{self.pool.env.id}', at its "
                    f"step {taken} (seeds {seeds}). That changes no checkpoint. Lower the "
                    "policy's learning rate, or mend the environment.",
                    parts,
                )

    def _start_seeds(self, row: Array, episode: Array, number: int | str) -> list[int]:
        return [
            env_seed(self.seeds[r], "eval", number, int(e))
            for r, e in zip(row, episode, strict=True)
        ]

    def close(self) -> None:
        self.pool.close()

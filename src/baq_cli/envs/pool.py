"""Environments stepped together, one row each, reset only when asked."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.envs.faults import Checked, EnvironmentFault, let_go
from baq_cli.envs.here import Here
from baq_cli.envs.limits import bounded
from baq_cli.envs.making import make_env, quiet_simulator, requirements_of
from baq_cli.envs.ref import EnvRef, named
from baq_cli.envs.safety import ENDED, Limits, Rules
from baq_cli.envs.spaces import Spaces
from baq_cli.envs.steps import StepRecord, asked_by, done_by, instead
from baq_cli.envs.workers import Workers
from baq_cli.errors import BaqError

Array = npt.NDArray[Any]


def make_playable(env: EnvRef | str, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make an environment to play in: observations are flat, and every episode ends."""
    return flat(bounded(make_env(env, render_mode)))


def flat(env: gym.Env[Any, Any]) -> Checked:
    """Return an environment whose `Dict` observations are flattened, and whose faults are named."""
    if isinstance(env.observation_space, gym.spaces.Dict):
        env = gym.wrappers.FlattenObservation(env)
    return Checked(env)


@dataclass(frozen=True)
class Made:
    """What is known of an environment once one was made: its spaces, spec and packages."""

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    spec: gym.envs.registration.EnvSpec | None
    requirements: tuple[str, ...]

    @classmethod
    def of(cls, env: EnvRef) -> Made:
        """Make an environment, read what it says of itself, and let go of it."""
        made = make_env(env)
        requirements: list[str] = []
        with contextlib.suppress(Exception):  # nothing that it plays by
            requirements = requirements_of(made)
        found = cls(made.observation_space, made.action_space, made.spec, tuple(requirements))
        let_go(made)
        return found

    @property
    def spaces(self) -> Spaces:
        """The spaces as they are known here."""
        return Spaces.of(self.observation_space, self.action_space)

    @property
    def flat(self) -> gym.Space[Any]:
        """The observation space, a `Dict` flattened."""
        space = self.observation_space
        return gym.spaces.flatten_space(space) if isinstance(space, gym.spaces.Dict) else space


def environment_spaces(env: EnvRef | str) -> Spaces:
    """Make an environment to read its spaces."""
    return Made.of(named(env)).spaces


_made_once = cache(Made.of)
"""Of workers' environments: one that hangs while it is made anew must do so in its own process."""


class EnvPool:
    """K copies of one environment behind Gymnasium's vector, autoreset disabled.

    Nothing resets by itself, so the observation after a last step is the true one and no
    reset-crossing transition can be stored; every episode ends, see `limits.py`. An environment as
    it is registered may be given by its id. Actions are in [−1, 1] here. With `workers` each copy
    steps in a process of its own, to the same results; that pays when a step takes longer than
    handing it over.

    Shapes: observations `[K, obs_dim]` float32, actions `[K, action_dim]`, the rest `[K]`.
    `given` are the last observations in the environment's own type, `before` those that the last
    step began at, and `last` is what that did. `made` is what one says of itself. With `rules`,
    `limits` hold in every copy, see `safety.py`, but not where steps are repeated.
    Raises EnvironmentFault when one of them fails: it raises, breaks its promises, its process
    dies, or it takes longer than `timeout_seconds` (which needs workers; to start, those may take
    two minutes more). The pool is of no use afterwards but to be closed, or made `again`.
    """

    def __init__(
        self,
        env: EnvRef | str,
        count: int,
        workers: bool = False,
        timeout_seconds: float | None = None,
        rules: Rules | None = None,
    ):
        self._timeout = timeout_seconds
        self.env = named(env)
        self.count = count
        self.workers = workers
        self._envs: Here | Workers
        self.given: Array = np.empty(0)
        self.before: Array = self.given
        self._reasons: list[str | None] = [None] * count
        self._begun: Array = np.empty(0)
        self._limits_hold = False
        self._asked: Array = np.empty(0)
        self._asked_in_env: Array = np.empty(0)
        self._only: Array | None = None
        self._under_way = False
        make = partial(make_playable, self.env)
        with self._faults(), quiet_simulator():
            if workers:
                self.made = _made_once(self.env)
                self.spaces, spaces = self.made.spaces, (self.made.flat, self.made.action_space)
                self._envs = Workers(make, spaces, count, timeout_seconds)
            else:
                self.made = Made.of(self.env)
                self.spaces = self.made.spaces
                self._envs = Here(make, count)
        self._all: Array = np.ones(count, dtype=np.bool_)
        self.limits = None if rules is None else Limits(rules, count, self.spaces.action_dtype)
        self._last: StepRecord | Callable[[], StepRecord] = StepRecord.none(self.spaces, count)

    @property
    def last(self) -> StepRecord:
        """What the last step did; made of it when it is asked for, as by no evaluation."""
        if not isinstance(self._last, StepRecord):
            self._last = self._last()
        return self._last

    def again(self) -> EnvPool:
        """Return as many environments in place of these."""
        rules = None if self.limits is None else self.limits.rules
        return EnvPool(self.env, self.count, self.workers, self._timeout, rules)

    def reset(self, seeds: Sequence[int], mask: npt.NDArray[np.bool_] | None = None) -> Array:
        """Reset the masked environments (all by default) with their seeds, `[K, obs_dim]`."""
        options = None if mask is None else {"reset_mask": mask}
        with self._faults():
            if isinstance(self._envs, Workers):
                self._envs.reset_async(seed=[int(s) for s in seeds], options=options)
                obs, _ = self._envs.reset_wait(timeout=self._timeout)
            else:
                obs, _ = self._envs.reset(seed=[int(s) for s in seeds], options=options)
        begun = np.ones(self.count, dtype=np.bool_) if mask is None else mask
        self._reasons = [None if b else r for r, b in zip(self._reasons, begun, strict=True)]
        if self.limits is not None:
            self.limits.began(obs, begun)
        return self._known(obs)

    def _known(self, obs: Array) -> Array:
        self.given = obs
        with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is named
            return obs.astype(np.float32)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Say what failed: an environment's own fault, its process, or its time."""
        level, gym.logger.min_level = gym.logger.min_level, 1 + gym.logger.ERROR
        self._failed = True  # also when a second Ctrl-C ends the waiting
        try:
            yield
            self._failed = False
        except EnvironmentFault as fault:
            raise EnvironmentFault(f"'{self.env.id}': {fault}") from fault
        except BaqError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            if isinstance(error, multiprocessing.TimeoutError):
                what = f"no answer within {self._timeout:g} s"
            elif isinstance(error, EOFError | BrokenPipeError | ConnectionResetError):
                what = "its process ended"
            raise EnvironmentFault(f"'{self.env.id}': {what}") from error
        finally:
            gym.logger.min_level = level

    def begin_step(
        self,
        action: Array,
        executed: Array | None = None,
        others: Array | None = None,
        late_seconds: float | None = None,
    ) -> None:
        """Hand the actions over; with workers the environments step from now on.

        Rows of `executed` that are not NaN, as `StepRecord` has them, are done in place of those
        of `action`, digit for digit: a step is repeated, and no limit holds. `others` and
        `late_seconds` are for the limits, see `Limits.before`.
        """
        self.before, self._only = self.given, None
        self._asked, self._begun = action, self.spaces.to_env(action)
        self._asked_in_env = self._begun
        self._limits_hold = self.limits is not None and executed is None
        if executed is not None:
            self._begun = instead(self._begun, executed)
        elif self.limits is not None:
            self._begun = self.limits.before(self._begun, others, late_seconds)
        if isinstance(self._envs, Workers):
            with self._faults():
                self._envs.step_async(self._begun)
            self._under_way = True

    def end_step(self) -> tuple[Array, Array, Array, Array]:
        """Return what the step begun led to: observations, rewards, terminated and truncated."""
        with self._faults():
            if isinstance(self._envs, Workers):
                self._under_way = False
                obs, reward, terminated, truncated, infos = self._envs.step_wait(self._timeout)
            else:
                theirs = self._begun.copy()  # they may write into it
                which = self._all if self._only is None else self._only
                obs, reward, terminated, truncated, infos = self._envs.step_some(theirs, which)
        done, self._reasons = done_by(self._begun, infos), asked_by(infos, self.count)
        asked = self.spaces, self._asked, self._asked_in_env
        self._last = partial(StepRecord.of, *asked, self._begun, done)
        if self._limits_hold and self.limits is not None:
            cut = self.limits.after(done, obs) & ~(terminated | truncated)
            truncated = truncated | cut
            acted = self.limits.bits() | cut * np.uint8(ENDED)
            self._last = replace(self.last, cut=cut, limits_acted=acted)
        return self._known(obs), reward, terminated, truncated

    def step(
        self, action: Array, only: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Array, Array, Array, Array]:
        """Step all; return observations, rewards, terminated and truncated.

        Of those in this process `only` may name some, `[K]`; the others stay as they are, with a
        reward of 0 and no end.
        """
        self.begin_step(action)
        self._only = only
        return self.end_step()

    @property
    def hand_over(self) -> list[str | None]:
        """Why somebody should act in the policy's place now, of each; None where nobody need."""
        if self.limits is None:
            return self._reasons
        return [own or limit for own, limit in zip(self._reasons, self.limits.asks(), strict=True)]

    def close(self) -> None:
        """Let go of the environments, after the step under way; not of those that failed."""
        with contextlib.suppress(EnvironmentFault):  # nothing more is wanted of them
            if self._under_way and not self._failed:
                self.end_step()
            if not self._failed:
                with self._faults():
                    self._envs.close()
        if self._failed:
            self.abandon()

    def abandon(self) -> None:
        """Let go of environments that failed, without asking them for anything."""
        if isinstance(self._envs, Workers):
            self._envs.kill()
            return
        with contextlib.suppress(Exception):  # what failed once may fail again
            self._envs.close()


def seconds_a_step(env: EnvRef | str, steps: int = 30) -> float:
    """Measure one environment's step, with actions of zero."""
    pool = EnvPool(env, 1)
    pool.reset([0])
    idle = np.zeros((1, pool.spaces.action_dim), dtype=np.float32)
    started = time.perf_counter()
    for i in range(steps):
        _, _, terminated, truncated = pool.step(idle)
        if (terminated | truncated).any():
            pool.reset([i])
    spent = time.perf_counter() - started
    pool.close()
    return spent / steps

"""Environments stepped together, one row each, reset only when asked."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from baq_cli.envs.faults import Checked, EnvironmentFault, let_go
from baq_cli.envs.spaces import Spaces
from baq_cli.envs.workers import Workers
from baq_cli.errors import BaqError, EnvironmentMismatch

Array = npt.NDArray[Any]
TRUST_VARIABLE = "BAQ_TRUST_ENV"
"""Set to 1 by --trust-env; an environment variable, so that worker processes inherit it."""
LONGEST_ID = 200


@contextlib.contextmanager
def quiet_simulator() -> Iterator[None]:
    """Hide the deprecation warnings that simulators print while compiling their models.

    MuJoCo's own go to stderr and to a MUJOCO_LOG.TXT in the working directory, past Python's.
    """
    import mujoco

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    with contextlib.ExitStack() as undo:
        undo.callback(mujoco.set_mju_user_warning, before)
        undo.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", module="mujoco")
        warnings.filterwarnings("ignore", module="gymnasium.*")
        yield


def trusted() -> bool:
    """Return whether environment ids may import modules (--trust-env)."""
    return os.environ.get(TRUST_VARIABLE) == "1"


def check_trusted(env_id: str, named_by: str = "") -> None:
    """Raise EnvironmentMismatch for an id that would import a module, unless that is trusted.

    `named_by` says where the id comes from, for the message.
    """
    if ":" in env_id and not trusted():
        source = f", which {named_by} names," if named_by else ""
        raise EnvironmentMismatch(
            f"the environment '{env_id}'{source} is refused: making it imports the module "
            f"'{env_id.partition(':')[0]}', and so runs whatever is in that. If you know it and "
            "want that, add --trust-env to the command."
        )


def make_env(env_id: str) -> gym.Env[Any, Any]:
    """Make one environment. Nothing else in this program makes any.

    Raises EnvironmentMismatch when it is unknown, needs a package that isn't installed, or has an
    id that imports a module (MODULE:ID) without being trusted.
    """
    check_trusted(env_id)
    if len(env_id) > LONGEST_ID or not re.fullmatch(r"([\w.]*\w:)?[^:]+", env_id):
        raise EnvironmentMismatch(
            f"'{env_id[:LONGEST_ID]}' can't be an environment's id: expected one such as "
            "Pendulum-v1, or MODULE:ID for your own"
        )
    try:
        with quiet_simulator():
            try:
                return gym.make(env_id)
            except gym.error.NameNotFound:
                if not _register_robotics():
                    raise
                return gym.make(env_id)
    except (gym.error.Error, ImportError) as error:
        raise EnvironmentMismatch(
            f"cannot make the environment '{env_id}': {str(error).rstrip('.')}. "
            "Check the id (it is case-sensitive), or install the package that registers it "
            "(pip install 'baq-cli[robotics]' for PointMaze, Fetch and Adroit); your own is "
            "found as MODULE:ID with --trust-env; '--env ID' names another."
        ) from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise EnvironmentFault(f"making the environment '{env_id}' raised {what}") from error


def _register_robotics() -> bool:
    """Register Gymnasium-Robotics' environments; return whether it is installed."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            import gymnasium_robotics
    except ImportError:
        return False
    gym.register_envs(gymnasium_robotics)
    return True


def _make_flat(env_id: str) -> gym.Env[Any, Any]:
    """Make an environment whose observations are flat; see `flat`."""
    return flat(make_env(env_id))


def flat(env: gym.Env[Any, Any]) -> Checked:
    """Return an environment whose `Dict` observations are flattened, and whose faults are named."""
    if isinstance(env.observation_space, gym.spaces.Dict):
        env = gym.wrappers.FlattenObservation(env)
    return Checked(env)


def environment_spaces(env_id: str) -> Spaces:
    """Make an environment to read its spaces."""
    return _spaces(env_id)[0]


def _spaces(env_id: str) -> tuple[Spaces, gym.Space[Any], gym.Space[Any]]:
    """Make an environment to read its spaces; return them as they are known here, and flat."""
    env = make_env(env_id)
    obs, action = env.observation_space, env.action_space
    let_go(env)
    laid_out = gym.spaces.flatten_space(obs) if isinstance(obs, gym.spaces.Dict) else obs
    return Spaces.of(obs, action), laid_out, action


_spaces_once = cache(_spaces)
"""Of workers' environments: one that hangs while it is made anew must do so in its own process."""


class EnvPool:
    """K copies of one environment behind Gymnasium's vector, autoreset disabled.

    Nothing resets by itself, so the observation after a last step is the true one and no
    reset-crossing transition can be stored. Actions are in [−1, 1] here. With `workers` each copy
    steps in a process of its own, to the same results; that pays when a step takes longer than
    handing it over.

    Shapes: observations `[K, obs_dim]` float32, actions `[K, action_dim]`, the rest `[K]`.
    `given` are the last observations in the environment's own type.
    Raises EnvironmentFault when one of them fails: it raises, breaks its promises, its process
    dies, or it takes longer than `timeout_seconds` (which needs workers; to start, those may take
    two minutes more). The pool is of no use afterwards but to be closed, or made `again`.
    """

    def __init__(
        self,
        env_id: str,
        count: int,
        workers: bool = False,
        timeout_seconds: float | None = None,
    ):
        self._timeout = timeout_seconds
        self.env_id = env_id
        self.count = count
        self.workers = workers
        self._envs: SyncVectorEnv | Workers
        self.given: Array = np.empty(0)
        self._begun: Array | None = None
        self._under_way = False
        make = partial(_make_flat, env_id)
        with self._faults(), quiet_simulator():
            if workers:
                self.spaces, obs, action = _spaces_once(env_id)
                self._envs = Workers(make, (obs, action), count, timeout_seconds)
            else:
                self.spaces = environment_spaces(env_id)
                self._envs = SyncVectorEnv([make] * count, autoreset_mode=AutoresetMode.DISABLED)

    def again(self) -> EnvPool:
        """Return as many environments in place of these."""
        return EnvPool(self.env_id, self.count, self.workers, self._timeout)

    def reset(self, seeds: Sequence[int], mask: npt.NDArray[np.bool_] | None = None) -> Array:
        """Reset the masked environments (all by default) with their seeds, `[K, obs_dim]`."""
        options = None if mask is None else {"reset_mask": mask}
        with self._faults():
            if isinstance(self._envs, Workers):
                self._envs.reset_async(seed=[int(s) for s in seeds], options=options)
                obs, _ = self._envs.reset_wait(timeout=self._timeout)
            else:
                obs, _ = self._envs.reset(seed=[int(s) for s in seeds], options=options)
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
            raise EnvironmentFault(f"'{self.env_id}': {fault}") from fault
        except BaqError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            if isinstance(error, multiprocessing.TimeoutError):
                what = f"no answer within {self._timeout:g} s"
            elif isinstance(error, EOFError | BrokenPipeError | ConnectionResetError):
                what = "its process ended"
            raise EnvironmentFault(f"'{self.env_id}': {what}") from error
        finally:
            gym.logger.min_level = level

    def begin_step(self, action: Array) -> None:
        """Hand the actions over; with workers the environments step from now on."""
        self._begun = self.spaces.to_env(action)
        if isinstance(self._envs, Workers):
            with self._faults():
                self._envs.step_async(self._begun)
            self._under_way = True

    def end_step(self) -> tuple[Array, Array, Array, Array]:
        """Return what the step begun led to: observations, rewards, terminated and truncated."""
        with self._faults():
            if isinstance(self._envs, Workers):
                self._under_way = False
                obs, reward, terminated, truncated, _ = self._envs.step_wait(self._timeout)
            else:
                obs, reward, terminated, truncated, _ = self._envs.step(self._begun)
        return self._known(obs), reward, terminated, truncated

    def step(self, action: Array) -> tuple[Array, Array, Array, Array]:
        """Step all; return observations, rewards, terminated and truncated."""
        self.begin_step(action)
        return self.end_step()

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


def seconds_a_step(env_id: str, steps: int = 30) -> float:
    """Measure one environment's step, with actions of zero."""
    pool = EnvPool(env_id, 1)
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

"""Environments stepped together, one row each, reset only when asked."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from baq_cli.envs.spaces import Spaces
from baq_cli.errors import EnvironmentMismatch

Array = npt.NDArray[Any]


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


def make_env(env_id: str) -> gym.Env[Any, Any]:
    """Make one environment.

    Raises EnvironmentMismatch when it is unknown, or needs a package that isn't installed.
    """
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
            "found as MODULE:ID; "
            "'--env ID' names another."
        ) from error


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
    """Make an environment whose observations are flat; `Dict` ones are flattened."""
    env = make_env(env_id)
    if isinstance(env.observation_space, gym.spaces.Dict):
        return gym.wrappers.FlattenObservation(env)
    return env


def environment_spaces(env_id: str) -> Spaces:
    """Make an environment to read its spaces."""
    env = make_env(env_id)
    spaces = Spaces.of(env.observation_space, env.action_space)
    env.close()
    return spaces


class EnvPool:
    """K copies of one environment behind Gymnasium's synchronous vector, autoreset disabled.

    Nothing resets by itself, so the observation after a last step is the true one and no
    reset-crossing transition can be stored. Actions are in [−1, 1] here.

    Shapes: observations `[K, obs_dim]` float32, actions `[K, action_dim]`, the rest `[K]`.
    """

    def __init__(self, env_id: str, count: int):
        self.env_id = env_id
        self.spaces = environment_spaces(env_id)
        with quiet_simulator():
            self._envs = SyncVectorEnv(
                [lambda: _make_flat(env_id)] * count, autoreset_mode=AutoresetMode.DISABLED
            )
        self.count = count

    def reset(self, seeds: Sequence[int], mask: npt.NDArray[np.bool_] | None = None) -> Array:
        """Reset the masked environments (all by default) with their seeds, `[K, obs_dim]`."""
        options = None if mask is None else {"reset_mask": mask}
        obs, _ = self._envs.reset(seed=[int(s) for s in seeds], options=options)
        return np.asarray(obs, dtype=np.float32)

    def step(self, action: Array) -> tuple[Array, Array, Array, Array]:
        """Step all; return observations, rewards, terminated and truncated."""
        obs, reward, terminated, truncated, _ = self._envs.step(self.spaces.to_env(action))
        return np.asarray(obs, dtype=np.float32), reward, terminated, truncated

    def close(self) -> None:
        self._envs.close()

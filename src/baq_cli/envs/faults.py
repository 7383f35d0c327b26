"""An environment that raises, or returns what it did not promise."""

from __future__ import annotations

import contextlib
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from baq_cli.errors import EnvironmentMismatch


class EnvironmentFault(EnvironmentMismatch):
    """An environment failed while it was reset or stepped."""


class Checked(gym.Wrapper[Any, Any, Any, Any]):
    """An environment as Gymnasium's API has it, which says in words what it does wrong.

    Observations are copies: an environment may write the next one into the same array, which it
    may share with others. Infos are left out, since nothing here reads them: they may hold what
    can't be sent to another process, or be laid beside those of another environment. It is closed
    once, and what it raises then is passed over, for nothing more is wanted of it.
    Raises EnvironmentFault when it raises, or returns another shape than its space has, a reward
    that is no number, or flags that are no truth values.
    """

    _closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        # Gymnasium's vectors take their mask out of the options and pass the rest on: an empty
        # dict, which is not None. An environment may start otherwise then, or ask it for a key.
        try:
            obs, _ = self.env.reset(seed=seed, options=options or None)
        except Exception as error:
            raise EnvironmentFault(f"reset raised {type(error).__name__}: {error}") from error
        return self._checked(obs, "reset"), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        try:
            obs, reward, terminated, truncated, _ = self.env.step(action)
        except Exception as error:
            raise EnvironmentFault(f"step raised {type(error).__name__}: {error}") from error
        obs = self._checked(obs, "step")
        if not isinstance(reward, SupportsFloat) or np.asarray(reward).ndim:
            raise EnvironmentFault(f"step returned the reward {reward!r}, expected a number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, bool | np.bool_):
                raise EnvironmentFault(f"step returned {name} = {flag!r}, expected True or False")
        return obs, float(reward), bool(terminated), bool(truncated), {}

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            let_go(self.env)

    def _checked(self, obs: Any, when: str) -> Any:
        expected = self.observation_space.shape
        if np.shape(obs) != expected:
            raise EnvironmentFault(
                f"{when} returned an observation of shape {np.shape(obs)}, expected {expected}"
            )
        return np.array(obs)


def let_go(env: gym.Env[Any, Any]) -> None:
    """Close an environment that nothing more is wanted of, whatever it raises."""
    with contextlib.suppress(Exception):
        env.close()

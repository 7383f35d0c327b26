"""An environment that raises, or returns what it did not promise."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from baq_cli.errors import EnvironmentMismatch, clipped

EXECUTED = "executed_action"
"""The entry of a step's info, in the units of the action space; None is as if it were not there."""
HAND_OVER = "hand_over"
"""The entry of a step's info that asks for somebody to act in the policy's place, and says why."""
FLAGS = bool, np.bool_


class EnvironmentFault(EnvironmentMismatch):
    """An environment failed while it was reset or stepped."""


class Checked(gym.Wrapper[Any, Any, Any, Any]):
    """An environment as Gymnasium's API has it, which says in words what it does wrong.

    Observations are copies: an environment may write the next one into the same array, which it
    may share with others. Of an info only `executed_action` is passed on, what was done in place of
    the action asked for, and `hand_over` where it is a text: the rest may hold what can't be sent
    to another process, or be laid beside that of another environment. It is closed once, and what
    it raises then is passed over, for nothing more is wanted of it.
    Raises EnvironmentFault when it raises, or returns another shape than its space has, a reward
    that is no number, flags that are no truth values, or an executed action that its space doesn't
    contain.
    """

    _closed = False

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        self._shape = self.observation_space.shape

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
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise EnvironmentFault(f"step raised {type(error).__name__}: {error}") from error
        obs = self._checked(obs, "step")
        is_float = isinstance(reward, float)  # as nearly all are: asking a protocol takes longer
        if not is_float and (not isinstance(reward, SupportsFloat) or np.asarray(reward).ndim):
            raise EnvironmentFault(f"step returned the reward {reward!r}, expected a number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, FLAGS):
                raise EnvironmentFault(f"step returned {name} = {flag!r}, expected True or False")
        return obs, float(reward), bool(terminated), bool(truncated), self._said(info)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            let_go(self.env)

    def _said(self, info: Any) -> dict[str, Any]:
        """Return what was done in place of the action asked for, and why somebody else should act,
        where the info says so.
        """
        if not isinstance(info, Mapping):
            return {}
        found, reason = info.get(EXECUTED), info.get(HAND_OVER)
        asks = {HAND_OVER: clipped(reason)} if isinstance(reason, str) else {}
        if found is None:
            return asks
        space = self.action_space
        assert isinstance(space, gym.spaces.Box)
        with contextlib.suppress(TypeError, ValueError), np.errstate(over="ignore"):
            action = np.asarray(found)
            typed = action.astype(space.dtype)
            if action.dtype.kind in "fiu" and space.contains(typed):
                return asks | {EXECUTED: typed}
        raise EnvironmentFault(
            f"step returned info['{EXECUTED}'] = {clipped(repr(found))}, expected an action in "
            f"{clipped(str(space))}"
        )

    def _checked(self, obs: Any, when: str) -> Any:
        shape = obs.shape if isinstance(obs, np.ndarray) else np.shape(obs)
        if shape != self._shape:
            raise EnvironmentFault(
                f"{when} returned an observation of shape {shape}, expected {self._shape}"
            )
        return np.array(obs)


def let_go(env: gym.Env[Any, Any]) -> None:
    """Close an environment that nothing more is wanted of, whatever it raises."""
    with contextlib.suppress(Exception):
        env.close()

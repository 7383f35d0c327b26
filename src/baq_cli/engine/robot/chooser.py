"""Who decides on each action in the process that acts: the policy, or somebody in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from baq_cli.hand import UNMARKED
from baq_cli.runs.events import Observer
from baq_cli.runs.transitions import POLICY

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Choice:
    """What is done at a step.

    `action [action_dim]` is in [−1, 1], `label` says whose it is (as the log's `intervention`).
    With a `mark` (1 success, −1 failure) the step ends the episode as terminated, with `end` as
    truncated; `reward` is added to its own. With `pause` nothing is stepped, and the chooser is
    asked again; `stop` says who ends the run, which is saved.
    """

    action: Array
    label: int = POLICY
    mark: int = UNMARKED
    end: bool = False
    reward: float = 0.0
    pause: bool = False
    stop: str = ""


class Chooser(Protocol):
    """Somebody who is asked before each step. It must not wait: the clock goes on."""

    def choose(self, own: Array, obs: Array, episode: int, hand_over: str | None = None) -> Choice:
        """Return what is done where the policy would do `own [action_dim]`.

        `obs [obs_dim]` is raw, `episode` the number of the episode, `hand_over` why a limit or the
        environment asks for somebody, where it does.
        """

    def done(self) -> None:
        """Hear that the step was made."""

    def close(self) -> None:
        """Let go of devices."""


MakeChooser = Callable[[int, Observer], Chooser]
"""Makes one in the process that acts, given the environment step at which it begins, and what hears
events. It is sent there: a module's function or class, or a `functools.partial` of plain values.
"""


class Policy:
    """Nobody in the policy's place."""

    def __init__(self, env_step: int, observer: Observer):
        pass

    def choose(self, own: Array, obs: Array, episode: int, hand_over: str | None = None) -> Choice:
        """Return what the policy would do."""
        return Choice(own)

    def done(self) -> None:
        """Hear nothing."""

    def close(self) -> None:
        """Let go of nothing."""

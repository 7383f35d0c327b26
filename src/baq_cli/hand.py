"""What somebody who may take over is told at a step, and what they want then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from baq_cli.envs.ref import EnvRef

Array = npt.NDArray[Any]
FAILURE, UNMARKED, SUCCESS = -1, 0, 1
"""What somebody says of an episode, as a run's transitions keep it (`success`)."""


@dataclass(frozen=True)
class Setting:
    """What somebody is told before the first step: the seed whose episodes these are, and where.

    `obs_dim` and `action_dim` are the numbers of a flat observation and of an action.
    """

    env: EnvRef
    seed: int
    obs_dim: int
    action_dim: int


@dataclass(frozen=True)
class Moment:
    """What somebody is told before a step.

    `obs [obs_dim]` is raw and flat, `proposed [action_dim]` what the policy would do, in [−1, 1].
    `episode` counts from 0, and so does `step` within it. `hand_over` says why a limit asks for
    somebody, and is empty where none does.
    """

    obs: Array
    proposed: Array
    episode: int
    step: int
    hand_over: str = ""


@dataclass(frozen=True)
class Decision:
    """What somebody wants of the step that comes.

    `action [action_dim]`, in [−1, 1], is done in place of the policy's; None lets that act. With
    a `mark` (1 success, −1 failure) the step ends the episode as terminated, with `end` as
    truncated. With `pause` nothing is stepped, and they are asked again soon; `stop` ends it all.
    """

    action: Array | None = None
    mark: int = UNMARKED
    end: bool = False
    pause: bool = False
    stop: bool = False


class Hand(Protocol):
    """Somebody who is asked before each step, in the process that acts."""

    def decide(self, moment: Moment) -> Decision:
        """Return what they want; it doesn't wait for them."""

    def close(self) -> None:
        """Let go of their device."""


OpenHand = Callable[[Setting], Hand]
"""Opens a device or makes an object, in the process that acts."""

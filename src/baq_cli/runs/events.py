"""What the engine tells whoever is watching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from baq_cli.envs.safety import Trip
from baq_cli.units import Phase


@dataclass(frozen=True)
class Progress:
    """Where a phase is: `done` of `total` in the phase's unit, and gradient steps a second.

    With a `stage`, where that is: `done` and `total` are its updates. `taken_over` is the share of
    env_steps in which somebody acted in the policy's place, None where nobody did. On the wall
    clock `late` is the share of deadlines that were missed, and `utd` the updates a step, as
    reached.
    """

    phase: Phase
    done: int
    total: int
    gradient_steps: int
    updates_per_second: float
    seconds_left: float
    stage: str = ""
    taken_over: float | None = None
    late: float | None = None
    utd: float | None = None


@dataclass(frozen=True)
class Evaluated:
    """An evaluation: raw returns `[S, episodes]` at a counter of the phase's unit.

    Of one that is `estimated` they are discounted, from the dataset's start states.
    """

    phase: Phase
    done: int
    returns: npt.NDArray[Any]
    estimated: bool = False


@dataclass(frozen=True)
class Note:
    """Something worth a line: what was loaded, what is fresh, what was saved."""

    text: str


@dataclass(frozen=True)
class Acting:
    """Who acts from now on, in words; `person` where it could be somebody who watches."""

    text: str
    person: bool


@dataclass(frozen=True)
class Limited:
    """Limits come to at an environment step, or a reset after it, in a process that acts alone."""

    env_steps: int
    trips: tuple[Trip, ...]


Event = Progress | Evaluated | Note | Acting | Limited
Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Watch nothing."""

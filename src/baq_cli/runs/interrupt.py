"""Stopping between two updates instead of inside one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from baq_cli.errors import Interrupted
from baq_cli.signals import Stopped, answered


@dataclass
class Interruption:
    """Whether a signal has asked the run to stop, and which; `heard` is called when one does."""

    requested: str | None = None
    heard: Callable[[], None] | None = None


@contextmanager
def listen() -> Iterator[Interruption]:
    """Note the signals that ask to stop instead of dying of them; a second SIGINT stops at once.

    No other signal does: who sends several (a scheduler its warning and then SIGTERM, a closed
    terminal SIGHUP twice) doesn't mean that what is being saved be given up.
    """
    interruption, interrupts = Interruption(), 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1 and number == signal.SIGINT:
            raise KeyboardInterrupt
        interruption.requested = interruption.requested or signal.Signals(number).name
        if interruption.heard is not None:
            interruption.heard()

    with answered(note):
        yield interruption


@contextmanager
def before_training(command: str, resumes: bool) -> Iterator[None]:
    """Say what a signal cost that came while no phase listened: nothing.

    `command` is what the user typed. Raises Interrupted instead of Stopped.
    """
    try:
        yield
    except Stopped as stopped:
        learned = "nothing new was learned" if resumes else "nothing was learned yet"
        raise Interrupted(
            f"stopped by {stopped} before training began; {learned}. Begin again with:\n  {command}"
        ) from None

"""A person at a gamepad, by SDL's names of its sticks and buttons."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.engine.phases.hands.person import Person
from baq_cli.errors import UsageError
from baq_cli.hand import Decision, Moment, OpenHand, Setting

Array = npt.NDArray[Any]
BUTTONS = {"y": "success", "x": "failure", "b": "end", "start": "pause", "back": "stop"}
"""What a button asks for when it is pressed; the right shoulder takes over while it is held."""
AXES = ("leftx", "lefty", "rightx", "righty")
DOWNWARDS = ("lefty", "righty")
FULL = 32_767
DEAD = 0.1
"""Share of a stick's way in which it counts as let go."""
LEGEND = (
    "gamepad: the right shoulder takes over while it is held, the sticks are the first actions; "
    "Y is success, X failure, B end, the Start button pauses, the Back button stops"
)


def gamepad(action_dim: int) -> OpenHand:
    """Return what opens the first gamepad, in this process or in one that it starts.

    Raises UsageError where pygame is not installed, there is no gamepad, or actions have more
    dimensions than it has axes.
    """
    if action_dim > len(AXES):
        raise UsageError(
            f"an action has {action_dim} dimensions, and a gamepad's sticks have {len(AXES)}: "
            "take a keyboard, or a class of yours (module:Class)"
        )
    controllers = _library()
    found = _first(controllers)
    controllers.quit()
    if found is None:
        raise UsageError(
            "no gamepad is connected that SDL knows: plug one in, or pair it, and give the command "
            "again"
        )
    return Gamepad


class Gamepad:
    """The first gamepad that is connected; one that is lost pauses the run until it is back.

    Sticks go from −1 to 1, upwards and to the right is more.
    """

    def __init__(self, setting: Setting):
        self._controllers, self._dim = _library(), setting.action_dim
        self._person = Person()
        self._down: set[str] = set()
        self._pad = _first(self._controllers)

    def decide(self, moment: Moment) -> Decision:
        """Return what is held, and what was pressed since the last time."""
        import pygame

        pygame.event.pump()
        self._person.arrive(moment)
        if self._pad is None or not self._pad.attached():
            self._pad = _first(self._controllers)
            if self._pad is None:
                return Decision(pause=True)
        down = {name for name in BUTTONS if self._pad.get_button(_number("BUTTON", name))}
        self._person.hear(BUTTONS[name] for name in sorted(down - self._down))
        self._down = down
        self._person.acts = bool(self._pad.get_button(_number("BUTTON", "rightshoulder")))
        return self._person.decision(self._sticks())

    def close(self) -> None:
        """Let go of the gamepad."""
        self._controllers.quit()

    def _sticks(self) -> Array:
        axes = AXES[: self._dim]
        found = np.array([self._pad.get_axis(_number("AXIS", name)) for name in axes]) / FULL
        found *= [-1 if name in DOWNWARDS else 1 for name in axes]
        return np.where(np.abs(found) < DEAD, 0, np.clip(found, -1, 1)).astype(np.float32)


def _number(kind: str, name: str) -> int:
    import pygame

    return int(getattr(pygame, f"CONTROLLER_{kind}_{name.upper()}"))


def _first(controllers: Any) -> Any:
    """Return the first gamepad that is connected, None without any."""
    known = (n for n in range(controllers.get_count()) if controllers.is_controller(n))
    number = next(known, None)
    return None if number is None else controllers.Controller(number)


def _library() -> Any:
    """Return SDL's controllers, started without a window."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
        from pygame._sdl2 import controller
    except ImportError:
        raise UsageError(
            "a gamepad is read through pygame-ce, which is not installed: pip install "
            "'baq-cli[gamepad]'"
        ) from None
    pygame.display.init()
    controller.init()
    return controller

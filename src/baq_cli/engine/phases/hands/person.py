"""What a person at a device has asked for, from one step to the next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from baq_cli.hand import FAILURE, SUCCESS, UNMARKED, Decision, Moment

Array = npt.NDArray[Any]


class Person:
    """Whether a person acts, and what they asked for that no step has answered yet.

    Commands are named as the fields of `KeysConfig`. A take-over ends with its episode. What is
    asked for during a pause is done when that ends, but for `stop`.
    """

    def __init__(self) -> None:
        self.acts = self.paused = False
        self._episode, self._mark = -1, UNMARKED
        self._end = self._stop = False

    def arrive(self, moment: Moment) -> None:
        """Note where the run is: a new episode begins with the policy."""
        if moment.episode != self._episode:
            self._episode, self.acts = moment.episode, False

    def hear(self, commands: Iterable[str]) -> None:
        """Take commands in their order."""
        for command in commands:
            if command == "take_over":
                self.acts = not self.acts
            elif command == "hand_back":
                self.acts = False
            elif command == "pause":
                self.paused = not self.paused
            elif command == "stop":
                self._stop = True
            elif command == "end":
                self._end = True
            else:
                self._mark = {"success": SUCCESS, "failure": FAILURE}[command]

    def decision(self, action: Array) -> Decision:
        """Return what was asked for, with the `action [action_dim]` of the device."""
        if self._stop:
            return Decision(stop=True)
        if self.paused:
            return Decision(pause=True)
        found = Decision(action if self.acts else None, self._mark, self._end)
        self._mark, self._end = UNMARKED, False
        return found

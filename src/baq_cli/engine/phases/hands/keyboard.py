"""A person at the keyboard of the terminal that the command runs in, over SSH as well."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from baq_cli import plain_files
from baq_cli.engine.phases.hands.person import Person
from baq_cli.errors import UsageError
from baq_cli.hand import Decision, Moment, OpenHand, Setting
from baq_cli.recipes.intervention import KeysConfig

Array = npt.NDArray[Any]
CHARACTERS = {" ": "space", "c-m": "enter", "c-j": "enter", "c-i": "tab"}
"""Keys that the library calls otherwise."""


def keyboard(keys: KeysConfig, action_dim: int) -> OpenHand:
    """Return what opens the keyboard, in this process or in one that it starts.

    Raises UsageError where standard input is no terminal, or not this command's while it runs in
    the background, and where an action dimension has no keys.
    """
    if not sys.stdin or not sys.stdin.isatty():
        raise UsageError(
            "a keyboard can take over in a terminal alone, and standard input is none: start the "
            "command in one (over SSH: ssh -t), without '<' or '|' before it"
        )
    with contextlib.suppress(OSError):  # of a terminal that controls no process
        if os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
            raise UsageError(
                "a keyboard can't take over in the background, where a terminal gives no keys: "
                "start the command without '&'"
            )
    if keys.actions is None and len(keys.pairs) < action_dim:
        raise UsageError(
            f"an action has {action_dim} dimensions, and there are keys for {len(keys.pairs)}: "
            "name a pair for each that you want to move, as in "
            "'intervention.keys.actions=[[a,d],[s,w]]'; the others stay in the middle"
        )
    if keys.actions is not None and len(keys.actions) > action_dim:
        raise UsageError(
            f"'intervention.keys.actions' has {len(keys.actions)} pairs, and an action has "
            f"{action_dim} dimensions: take the last away"
        )
    return partial(Keyboard, keys, os.ttyname(sys.stdin.fileno()))


def legend(keys: KeysConfig, action_dim: int) -> str:
    """Return in a line what each key does."""
    said = [f"{key} {name.replace('_', ' ')}" for key, name in keys.commands.items()]
    moves = [f"{low}/{high}" for low, high in keys.pairs[:action_dim]]
    return f"keys: {', '.join(said)}; actions −/+: {'  '.join(moves)}"


class Keyboard:
    """Keys typed into a terminal, and what they ask for.

    A terminal tells when a key is typed, and again while it is held, never when it is let go; so
    an action key counts for the step that comes, and for `hold_seconds` after it was last typed.
    Of a dimension's two keys the later one counts; without any it is 0, the middle.
    """

    def __init__(
        self,
        keys: KeysConfig,
        terminal: str,
        setting: Setting,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._keys, self._clock, self._person = keys, clock, Person()
        self._moves = {
            key: (dimension, sign)
            for dimension, pair in enumerate(keys.pairs[: setting.action_dim])
            for key, sign in zip(pair, (-1, 1), strict=True)
        }
        self._push = np.zeros(setting.action_dim, dtype=np.float32)
        self._until = np.full(setting.action_dim, -np.inf)
        self._fresh = np.zeros(setting.action_dim, dtype=np.bool_)
        self._closing = ExitStack()
        self._terminal = Terminal(terminal, self._closing)

    def decide(self, moment: Moment) -> Decision:
        """Return what the keys ask for that were typed since the last time."""
        self._person.arrive(moment)
        self._person.hear(self._typed())
        decision = self._person.decision(self._action())
        if not decision.pause:
            self._fresh[:] = False
        return decision

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._closing.close()

    def _typed(self) -> Iterator[str]:
        for key in self._terminal.read():
            if key in self._moves:
                dimension, sign = self._moves[key]
                self._push[dimension] = sign * self._keys.strength
                self._until[dimension] = self._clock() + self._keys.hold_seconds
                self._fresh[dimension] = True
            elif key in self._keys.commands:
                yield self._keys.commands[key]
        if self._terminal.is_gone:
            yield "stop"

    def _action(self) -> Array:
        return np.where(self._fresh | (self._clock() < self._until), self._push, np.float32(0))


class Terminal:
    """A terminal whose keys are read one by one, unseen, while Ctrl-C stays a signal."""

    def __init__(self, path: str, closing: ExitStack):
        from prompt_toolkit.input import create_input

        self._stdin: TextIO = sys.stdin
        if sys.stdin is None or not sys.stdin.isatty():
            self._stdin = closing.enter_context(plain_files.terminal(path))
        self._input = create_input(self._stdin)
        self._closing = closing
        self._prepare()

    def read(self) -> list[str]:
        """Return the keys that were typed, by their names; it doesn't wait."""
        self._prepare()
        found = [str(getattr(press.key, "value", press.key)) for press in self._input.read_keys()]
        return [CHARACTERS.get(key, key) for key in found]

    @property
    def is_gone(self) -> bool:
        """Whether the terminal was closed."""
        return bool(self._input.closed)

    def _prepare(self) -> None:
        """Have keys come at once; again where a shell took the terminal back meanwhile."""
        import termios

        with contextlib.suppress(termios.error):
            lines, fd = 3, self._stdin.fileno()
            if termios.tcgetattr(fd)[lines] & termios.ICANON:
                self._closing.enter_context(self._input.raw_mode())
                mode = termios.tcgetattr(fd)
                mode[lines] |= termios.ISIG
                termios.tcsetattr(fd, termios.TCSANOW, mode)

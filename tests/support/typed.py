"""A person who types into the terminal that `baq` runs in, and an environment that notes its steps.

The environment writes what it was asked to do into a file.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from support.places import TESTS

LIMIT = 5_000
"""Steps of an episode, far more than are taken by hand."""
LOG = "BAQ_TEST_STEPS"
HOT = "the gripper is hot"


class Noting(gym.Env[Any, Any]):
    """Counts its steps, never ends, and notes each action in a line, after its own number.

    With `hot_after` it asks for somebody from so many steps on, in its first episode.
    """

    made = 0

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, hot_after: int | None = None) -> None:
        type(self).made += 1
        self.number, self.episodes = self.made, 0
        self.hot_after = hot_after

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.episodes = 0, self.episodes + 1
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        with Path(os.environ[LOG]).open("a") as log:
            log.write(f"{self.number} {self.time} {float(action[0])!r} {float(action[1])!r}\n")
        is_hot = self.episodes == 1 and self.hot_after is not None and self.time >= self.hot_after
        return self._obs(), -1.0, False, False, {"hand_over": HOT} if is_hot else {}

    def _obs(self) -> Any:
        return np.array([self.time, 1.0], dtype=np.float32)


gym.register("Noting-v0", "support.typed:Noting", max_episode_steps=LIMIT, disable_env_checker=True)


class Typist:
    """`baq` on a terminal of its own: what is typed there, and what is seen."""

    def __init__(self, folder: Path, *words: object):
        self.steps = folder / "steps.txt"
        self.steps.touch()
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        self._ours, self._seen = ours, ""
        self.theirs = theirs  # kept open, to see how it is left
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLED, *map(str, words)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm-256color", "PYTHONPATH": path, LOG: str(self.steps)},
            cwd=folder,
            start_new_session=True,
        )

    def type(self, keys: str) -> None:
        """Type keys, as a terminal sends them."""
        os.write(self._ours, keys.encode())

    def sees(self, text: str, seconds: float = 90) -> str:
        """Wait for a text on the screen; return what came before it since the last one."""
        ends = time.monotonic() + seconds
        while text not in self._seen:
            assert time.monotonic() < ends, f"{text!r} is not on the screen: {self._seen[-2000:]}"
            self._read()
        before, _, self._seen = self._seen.partition(text)
        return before

    def _read(self) -> None:
        if select.select([self._ours], [], [], 0.1)[0]:
            self._seen += os.read(self._ours, 65_536).decode(errors="replace")

    def done(self, seconds: float = 90) -> tuple[int, str]:
        """Wait for the end; return the status and what was still to be seen."""
        ends = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < ends, self._seen[-2000:]
            self._read()
        self._read()
        return self.process.returncode, self._seen

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, as it does at a prompt."""
        lines = 3
        shown = termios.ECHO | termios.ICANON
        return termios.tcgetattr(self.theirs)[lines] & shown == shown

    def executed(self) -> Any:
        """Return the steps of the environment that stepped last: in the episode, and the action."""
        noted = np.loadtxt(self.steps, ndmin=2)
        return noted[noted[:, 0] == noted[-1, 0], 1:]

    def close(self) -> None:
        """Leave nothing running."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self.theirs)


CONTROLLED = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from baq_cli.cli.main import main
main()
"""
"""The terminal is the process's own, as a shell's."""

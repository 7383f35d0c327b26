"""Starting the acting process, hearing of it, and ending it."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

import numpy.typing as npt

from baq_cli.agents.base import Agent
from baq_cli.engine.robot.acting import ActingConfig, Mind, NotFinite, Robot, is_gone
from baq_cli.engine.robot.snapshot import Snapshot
from baq_cli.engine.updates.device import keep_freed_memory
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.envs.workers import leave_signals_to_main, signals_held
from baq_cli.errors import BaqError
from baq_cli.runs.events import Event

Array = npt.NDArray[Any]
READY, SAID, FAILED, ODD, ENDED = "ready", "said", "failed", "odd", "ended"
ENDS_WITHIN_SECONDS = 10.0
"""What the environment's step and its closing may take before the process is ended by force."""


class ActingProcess:
    """A process that acts in an environment, from where a log of transitions ends.

    It is given a policy by `publish` and told to `go`. When this process ends, however it does, the
    other one closes its environment and ends.
    """

    def __init__(self, config: ActingConfig, agent: Agent, version: int):
        context = multiprocessing.get_context("spawn")
        self._agent = agent
        self._snapshot = Snapshot(agent, context)
        self.publish(version)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, config, self._snapshot), daemon=True
        )
        with signals_held():
            self._process.start()
        theirs.close()
        self.ended = False
        self.stopped_by = ""
        """Who asked from there that the run be stopped."""

    def publish(self, version: int) -> None:
        """Give it the policy as it is now."""
        self._snapshot.publish(self._agent, version)

    def latency(self) -> Array:
        """Wait until it could act; return what deciding on an action takes there, seconds `[N]`.

        Raises EnvironmentFault when it ends before.
        """
        kind, content = self._receive()
        assert kind == READY
        found: Array = content
        return found

    def go(self) -> None:
        """Let it make the environment, and act."""
        self._send("go")

    def stop(self) -> None:
        """Ask it to command nothing any more; it ends by itself."""
        self._snapshot.stop()

    def heard(self) -> list[Event]:
        """Return what it said since the last time.

        Raises EnvironmentFault when its environment failed or it is gone, and what it raised.
        """
        found = []
        while not self.ended and self._connection.poll():
            kind, content = self._receive()
            if kind == SAID:
                found.append(content)
            elif kind == ENDED:
                self.ended, self.stopped_by = True, content
        return found

    def check_alive(self, limit_seconds: float) -> None:
        """Raise EnvironmentFault where the environment has not answered for so long; end it."""
        if self._snapshot.waited_seconds > limit_seconds:
            self._process.kill()
            self._process.join()
            raise EnvironmentFault(f"no answer within {limit_seconds:g} s")

    def _receive(self) -> tuple[str, Any]:
        try:
            kind, content = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(timeout=1)
            code = self._process.exitcode
            raise EnvironmentFault(f"the acting process ended with status {code}") from None
        if kind == FAILED:
            raise content
        if kind == ODD:
            raise NotFinite(content)
        return kind, content

    def _send(self, word: str) -> None:
        with contextlib.suppress(OSError):  # a process that is gone is found gone when it is heard
            self._connection.send(word)

    def close(self) -> None:
        """End it: by asking, and by force where it doesn't answer."""
        self._snapshot.stop()
        self._connection.close()
        self._process.join(timeout=ENDS_WITHIN_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def serve(connection: Connection, config: ActingConfig, snapshot: Snapshot) -> None:
    """Act in this process; say how it ended."""
    import torch

    leave_signals_to_main()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    try:
        mind = Mind(config, snapshot)
        connection.send((READY, mind.latency(config.spec)))
        connection.recv()
        stopped_by = "" if snapshot.stopped else _act(config, mind, snapshot, connection)
        connection.send((ENDED, stopped_by))
    except NotFinite as odd:
        connection.send((ODD, odd.parts))
    except BaqError as error:
        connection.send((FAILED, error))
    except (EOFError, OSError):
        pass  # nobody is there who would hear it


def _act(config: ActingConfig, mind: Mind, snapshot: Snapshot, connection: Connection) -> str:
    """Act; return who asked that the run be stopped, '' where nobody did."""

    def say(event: Event) -> None:
        with contextlib.suppress(OSError):
            connection.send((SAID, event))

    with closing(Robot(config, mind, snapshot, say, is_gone(connection))) as robot:
        gc.collect()
        gc.freeze()
        gc.disable()  # it would take its time in the middle of an episode
        robot.act()
        return robot.stopped_by

"""Environments in processes of their own: how those begin, what they leave to the main one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from baq_cli.envs.faults import EnvironmentFault
from baq_cli.errors import BaqError
from baq_cli.signals import STOPPING, held

START_SECONDS = 120.0
"""What processes may take to start and make their environments, beside the limit of a step."""

Make = Callable[[], gym.Env[Any, Any]]


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold back what stops a run, so that a process started here is not killed by it at once.

    The process calls `leave_signals_to_main` once it can.
    """
    resource_tracker.getfd()  # when it starts, it lets the signals through
    with held():
        yield


def leave_signals_to_main() -> None:
    """Go on when a signal comes: it is meant for the main process, which saves first.

    Whoever stops a run may stop a whole group of processes. What an environment starts itself
    answers signals as ever.
    """
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _go_on)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def _go_on(number: int, frame: FrameType | None) -> None:
    """Do nothing; unlike an ignored signal, that isn't passed on to other programs."""


class Workers(AsyncVectorEnv):
    """Gymnasium's processes, one an environment; none is made in this process.

    With `timeout_seconds` they may take `START_SECONDS` more to start.
    Raises EnvironmentFault when they take longer, and EOFError when one dies.
    """

    def __init__(
        self,
        make: Make,
        spaces: tuple[gym.Space[Any], gym.Space[Any]],
        count: int,
        timeout_seconds: float | None,
    ):
        self.processes = []
        self._start_seconds = timeout_seconds and timeout_seconds + START_SECONDS
        make_one = partial(_make_in_worker, make, spaces, os.getpid())
        try:
            with contextlib.ExitStack() as self._starting:
                self._starting.enter_context(signals_held())
                super().__init__(
                    [make_one] * count,
                    context="spawn",
                    shared_memory=spaces[0].dtype != np.float16,  # not before Gymnasium 1.4
                    autoreset_mode=AutoresetMode.DISABLED,
                )
        except BaseException:
            self.kill()
            raise

    def _check_spaces(self) -> None:
        """Wait for the processes, which are started now; Gymnasium itself would wait for ever."""
        self._starting.close()
        Finalize(self, _kill, (self.processes,), exitpriority=100)
        try:
            self.call_async("action_space")
            self.call_wait(self._start_seconds)
        except multiprocessing.TimeoutError:
            limit = f"{self._start_seconds:g} s"
            raise EnvironmentFault(f"its process didn't make it within {limit}") from None
        super()._check_spaces()  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        """End the processes without asking them for anything."""
        _kill(self.processes)
        self.closed = True

    def __del__(self) -> None:
        self.kill()  # they don't go when they are only told to


def _kill(processes: list[Any]) -> None:
    started = [process for process in processes if process.pid is not None]
    for process in started:
        process.kill()
    for process in started:
        process.join()


def _make_in_worker(
    make: Make, spaces: tuple[gym.Space[Any], gym.Space[Any]], main: int
) -> gym.Env[Any, Any]:
    """Make an environment, but not in the process `main`, which asks only for its spaces."""
    if os.getpid() == main:
        return _Unmade(*spaces)
    leave_signals_to_main()
    import torch

    torch.set_flush_denormal(True)  # as in main: the simulator's numbers depend on it
    try:
        return make()
    except BaqError as error:
        return _Unmade(*spaces, error)  # main hears of it at the first reset


class _Unmade(gym.Env[Any, Any]):
    """Stands for an environment that isn't there: its spaces, and why."""

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        error: BaqError | None = None,
    ):
        self.observation_space, self.action_space = observation_space, action_space
        self._error = error

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        assert self._error is not None
        raise self._error

"""The signals that ask a process to stop, and what answers them. Imports nothing heavy."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Ctrl-C; a service manager, a preempted machine, a cancelled job; a terminal that is closed; what
schedulers are asked to send some time before they kill; CPU time that is used up."""
STOPPING: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in NAMES if hasattr(signal, name)
)
"""Those that this system has."""
GROUP = tuple(n for n in STOPPING if n.name in ("SIGHUP", "SIGUSR1", "SIGUSR2"))
"""Those that are sent to all processes of a terminal or a job, whoever is meant, and that nothing
else uses between processes."""
TWICE_SECONDS = 1.0
"""A signal that comes again this soon is the same one: a shell and the kernel both send SIGHUP,
`timeout` sends SIGTERM to its command and to the group."""

Handler = Callable[[int, FrameType | None], None]


class Stopped(KeyboardInterrupt):
    """A signal came that asks to stop, where nothing waits to be saved; its name is the message."""


@contextmanager
def answered(handler: Handler, always: Collection[signal.Signals] = ()) -> Iterator[None]:
    """Have a handler answer the signals that ask to stop, inside the block.

    What is ignored stays ignored, as `nohup` and a shell's `trap ''` want it, but for `always`.
    """
    before = {number: signal.getsignal(number) for number in STOPPING}
    taken = [n for n in STOPPING if before[n] is not signal.SIG_IGN or n in always]
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number] or signal.SIG_DFL)


@contextmanager
def held(numbers: Collection[signal.Signals] = STOPPING) -> Iterator[None]:
    """Hold signals back from this thread inside the block, and from processes that it starts there.

    One that is sent to the whole process is still answered if another thread takes it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def raised() -> Iterator[None]:
    """Raise Stopped, wherever the program is in the block, at a signal that asks to stop."""
    last = -TWICE_SECONDS

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        again, last = time.monotonic() - last < TWICE_SECONDS, time.monotonic()
        if not again:
            raise Stopped(signal.Signals(number).name)

    with answered(stop):
        yield

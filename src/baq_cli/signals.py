"""The signals that ask a process to stop, and what answers them. Imports nothing heavy."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader
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

LOADING_SECONDS, LOOK_SECONDS = 10.0, 0.05
"""How long an extension module that is loading is waited for at most, and how often it is looked
whether it is: what is raised in Python that its C code runs may be lost, and half a module left.
PyTorch so takes NumPy for one that isn't there."""

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
    """Raise Stopped, wherever the program is in the block, at a signal that asks to stop.

    An extension module that is loading then is loaded before, unless it is asked again.
    """
    last = -TWICE_SECONDS
    waiting = _Waiting()

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now, asked = time.monotonic(), not waiting.looks()
        if asked:
            again, last = now - last < TWICE_SECONDS, now
            if again:
                return
        if _is_loading(frame) and waiting.goes_on(number, now, asked):
            return
        if waiting.over() or asked:
            raise Stopped(signal.Signals(number).name)

    with answered(stop):
        try:
            yield
        finally:
            waiting.over()


class _Waiting:
    """A signal that waits for a module to load, and is sent again to look whether it has."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._timer: threading.Timer | None = None
        self._looks = False

    def looks(self) -> bool:
        """Return whether the signal that has come is this one again, and not the user's."""
        looks, self._looks = self._looks, False
        return looks

    def goes_on(self, number: int, now: float, asked: bool) -> bool:
        """Wait a while, or return False: it was `asked` again, took too long, or is over."""
        if asked != (self._since is None):
            return False
        self._since = now if self._since is None else self._since
        if now - self._since >= LOADING_SECONDS:
            return False
        self._timer = threading.Timer(LOOK_SECONDS, self._look, [number])
        self._timer.daemon = True
        self._timer.start()
        return True

    def over(self) -> bool:
        """Wait no more; return whether a signal did."""
        if self._timer is not None:
            self._timer.cancel()
        waited, self._since, self._timer = self._since is not None, None, None
        return waited

    def _look(self, number: int) -> None:
        self._looks = True
        if hasattr(signal, "pthread_kill"):  # it ends what the main thread sleeps in
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        else:
            _thread.interrupt_main(signal.Signals(number))


def _is_loading(frame: FrameType | None) -> bool:
    """Return whether the code of an extension module is being loaded where the program is."""
    while frame is not None:
        if frame.f_code.co_name in ("create_module", "exec_module") and isinstance(
            frame.f_locals.get("self"), ExtensionFileLoader
        ):
            return True
        frame = frame.f_back
    return False

"""Running cells on a Ray cluster: one that is there, or one that is started here."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from baq_cli import signals
from baq_cli.errors import DataError, UsageError
from baq_cli.launch.cells import Cell
from baq_cli.launch.drive import Watcher
from baq_cli.launch.journal import Reader, write_state
from baq_cli.launch.ray.task import TOKEN, CellTask, Return, run_task
from baq_cli.launch.ray.transfer import finish_receiving, needed, pack, receive
from baq_cli.launch.worker import WAIT_SECONDS
from baq_cli.machine import usable_cores
from baq_cli.runs.events import Event, Note
from baq_cli.runs.files import disk_errors, replace_file
from baq_cli.runs.lock import held
from baq_cli.untrusted import TRUST_VARIABLE

SLOTS = 10_000
"""Cells handed over at once, unless said otherwise: Ray queues those that it has no room for."""

CONNECT_SECONDS = 10.0

SENT_VARIABLES = ("MINARI_DATASETS_PATH", "BAQ_CACHE", TRUST_VARIABLE)
"""Where data lie, which holds on other machines where those share the disk; and what is trusted."""


class Ray:
    """Runs each cell as a Ray task with `cpus` CPUs, which are its threads, and `gpus` GPUs.

    `address` is a cluster's, or `auto`; without it, and without $RAY_ADDRESS, a Ray of this
    machine's cores is started, and ended by `close`. A cell runs in its own folder where the
    worker sees that; elsewhere its folder travels through Ray's object store and back.

    Raises UsageError when Ray isn't installed, no cluster answers, or this machine is too small.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus: int = 1,
        gpus: float = 0,
        slots: int | None = None,
    ):
        self._ray = _import_ray()
        self.slots = slots or SLOTS
        self._cpus, self._asked = cpus, _room(cpus, gpus)
        self._disk_is_shared = True  # until a worker says that it doesn't see a cell's folder
        with contextlib.ExitStack() as undo:
            # What Ray tells of lost workers it prints to stdout, where results go.
            undo.enter_context(contextlib.redirect_stdout(sys.stderr))
            if not self._ray.is_initialized():
                _connect(self._ray, address)
                undo.callback(self._ray.shutdown)
            self._fits = _fits(self._ray, cpus, gpus)
            if not self._fits and _starts_own(address):
                raise UsageError(
                    f"no cell finds room: it asks for {self._asked}, and this machine has "
                    f"{_resources(self._ray)}. Ask for less, or name a cluster with --address."
                )
            # A lost cell is started again by us, from its last checkpoint.
            task = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)
            self._task = task(run_task)
            self._undo = undo.pop_all()

    def start(self, cell: Cell, watch: Watcher) -> RayJob:
        if not self._fits:
            self._fits = True  # said once
            watch(
                cell.name, Note(f"no machine of the cluster has {self._asked}: cells wait for one")
            )
        finish_receiving(cell.folder)
        write_state(cell.folder, "waiting")
        return RayJob(self, cell)

    def close(self) -> None:
        """Let go of the cluster; end it if it was started here."""
        self._undo.close()

    def submit(self, cell: Cell) -> Any:
        """Hand a cell over; return a reference to its Return."""
        token = uuid.uuid4().hex
        with disk_errors(f"prepare {cell.folder}"):
            replace_file(cell.folder / TOKEN, token.encode())
        task = CellTask(
            os.path.abspath(cell.folder),
            token,
            self._cpus,
            {name: os.environ[name] for name in SENT_VARIABLES if name in os.environ},
            os.getcwd(),
        )
        if self._disk_is_shared:
            return self._task.remote(task, [])
        with held(cell.folder, WAIT_SECONDS):
            packed = pack(cell.folder, needed(cell.folder))
        return self._task.remote(task, [self._ray.put(packed)])

    def submit_with_folder(self, cell: Cell) -> Any:
        """Hand a cell over again that a worker didn't find; from now on folders travel."""
        self._disk_is_shared = False
        return self.submit(cell)

    def fetch(self, reference: Any) -> Return | None:
        """Return what came back by now.

        Raises LostCell when nothing will.
        """
        ready, _ = self._ray.wait([reference], timeout=0)
        if not ready:
            return None
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise LostCell(in_words(error)) from error

    def cancel(self, reference: Any) -> None:
        """Have a cell save and stop, or not begin."""
        self._ray.cancel(reference, force=False)


class LostCell(Exception):
    """A cell that Ray lost, and how."""


class RayJob:
    """A cell handed over to Ray. It tells nothing on the way where no disk is shared."""

    def __init__(self, launcher: Ray, cell: Cell):
        self._launcher, self._cell = launcher, cell
        self._reader = Reader(cell.folder)
        self._reference = launcher.submit(cell)
        self._stopped = False
        self._how: str | None = None

    def events(self) -> Iterable[Event]:
        return self._reader.new()

    def ended(self) -> str | None:
        if self._how is None:
            try:
                returned = self._launcher.fetch(self._reference)
            except LostCell as lost:
                self._how = str(lost)
            else:
                self._how = None if returned is None else self._take(returned)
        return self._how

    def stop(self) -> None:
        self._stopped = True
        self._launcher.cancel(self._reference)

    def _take(self, returned: Return) -> str | None:
        """Put in place what came back; return how the cell ended, or None if it begins again."""
        if returned.how is None and not self._stopped:
            self._reference = self._launcher.submit_with_folder(self._cell)
            return None
        if returned.parcel is not None:
            try:
                receive(returned.parcel, self._cell.folder)
            except DataError as error:
                write_state(self._cell.folder, "failed", str(error), error.status)
        return returned.how or "stopped before it began"


WORDS = {
    "NodeDiedError": "its machine is gone from the cluster",
    "WorkerCrashedError": "its worker process died: killed, or out of memory",
    "OutOfMemoryError": "Ray ended it, because its machine ran out of memory",
    "TaskCancelledError": "stopped before it began",
    "ObjectLostError": "what came of it was lost with the machine that held it",
}


def in_words(error: Exception) -> str:
    """Return what one of Ray's errors says of a task."""
    for kind in type(error).__mro__:
        if kind.__name__ in WORDS:
            return WORDS[kind.__name__]
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"Ray could not run it: {lines[-1].strip()}"


def _import_ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to anybody
    try:
        import ray
    except ImportError as error:
        raise UsageError("--launcher ray needs Ray: pip install 'baq-cli[ray]'") from error
    return ray


def _starts_own(address: str | None) -> bool:
    return not (address or os.environ.get("RAY_ADDRESS"))


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one; quietly, and without taking SIGTERM over."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    asked: dict[str, Any] = {"address": address or os.environ.get("RAY_ADDRESS")}
    if _starts_own(address):
        asked = {"address": "local", "num_cpus": usable_cores(), "include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        _check_answers(asked["address"])
        with _elsewhere(), signals.held(signals.GROUP):  # Ray's processes leave them to us
            ray.init(**asked, log_to_driver=False, configure_logging=False)
    except (OSError, ImportError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        raise UsageError(
            f"cannot use Ray at '{asked['address']}': {reason}. Start a cluster with 'ray start "
            "--head', or leave --address out: then one is started on this machine."
        ) from error
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Leave the current folder, which Ray's workers would import modules from before all others."""
    here = os.getcwd()
    os.chdir(os.sep)
    try:
        yield
    finally:
        os.chdir(here)


def _check_answers(address: str) -> None:
    """Raise OSError when nothing listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _machines(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fits(ray: Any, cpus: int, gpus: float) -> bool:
    return any(
        machine.get("CPU", 0) >= cpus and machine.get("GPU", 0) >= gpus
        for machine in _machines(ray)
    )


def _resources(ray: Any) -> str:
    most = {kind: max(m.get(kind, 0) for m in _machines(ray)) for kind in ("CPU", "GPU")}
    return _room(most["CPU"], most["GPU"])


def _room(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU{'s' * (cpus != 1)} and {gpus:g} GPU{'s' * (gpus != 1)}"

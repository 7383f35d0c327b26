"""`baq` in processes that are forked from one which has imported everything: new, and soon there.

`python -m support.forked` reads orders, a JSON object a line, and forks a child for each, which is
as `python -m baq_cli.cli.main` would be once it has imported the same. It prints the child's
process id, and then how that ended.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer.main

import baq_cli
from baq_cli.cli import main as command
from support.spared import (
    build_commands_once,
    draw_each_kind_of_file_once,
    import_ahead,
    wait_for_no_disk,
)

ASIDE = (
    "baq_cli.__main__",
    "baq_cli.bench.d3rlpy_side",
    "baq_cli.launch.ray",
    "baq_cli.runs.trackers",
)
"""What isn't imported ahead: it is run, or its package is told something before it is imported."""


class Server:
    """The process that forks; it is started at the first order, and ends with this one."""

    _process: subprocess.Popen[str] | None = None

    def run(
        self, words: Sequence[str], env: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the current folder; it is killed when it takes longer than `seconds`."""
        with tempfile.TemporaryDirectory() as place:
            files = [Path(place, name) for name in ("out", "err")]
            order = {"words": list(words), "env": dict(env), "cwd": os.getcwd()}
            order["files"] = [str(file) for file in files]
            child = int(self._ask(json.dumps(order)))
            timer = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
            timer.start()
            status = int(self._hear())
            timer.cancel()
            out, err = (file.read_text(encoding="utf-8") for file in files)
        return subprocess.CompletedProcess(list(words), status, out, err)

    def _ask(self, order: str) -> str:
        if self._process is None:
            path = os.pathsep.join(place for place in sys.path if place)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.forked"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
            )
            atexit.register(self._end)
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _end(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


SERVER = Server()


def _import_all() -> None:
    for module in pkgutil.walk_packages(baq_cli.__path__, "baq_cli."):
        if not module.name.startswith(ASIDE):
            with contextlib.suppress(ImportError):  # of an extra that isn't installed
                importlib.import_module(module.name)


def _become(words: list[str], env: dict[str, str], cwd: str, files: list[str]) -> None:
    """Be in a forked child what a new process is."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    nothing = os.open(os.devnull, os.O_RDONLY)
    opened = [nothing, *(os.open(file, os.O_WRONLY | os.O_CREAT) for file in files)]
    for number, handle in enumerate(opened):
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace")
    sys.path[:0] = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.argv = ["baq", *words]
    sys.modules["__main__"] = command  # which processes that are spawned import


def _run_and_leave() -> None:
    """Run the command; end as Python does, but for freeing one by one what was imported."""
    status: int | str | None = 1
    try:
        command.main()
        status = 0
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
    finally:
        vars(threading)["_shutdown"]()
        vars(atexit)["_run_exitfuncs"]()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # of one that was closed, or is broken
                stream.flush()
        os._exit(int(status or 0))


def _serve() -> None:
    _import_all()
    import_ahead()
    wait_for_no_disk()
    draw_each_kind_of_file_once()
    build_commands_once()
    typer.main.get_command(command.app)
    heard = os.fdopen(os.dup(0))
    for line in heard:
        child = os.fork()
        if child == 0:
            heard.close()
            _become(**json.loads(line))
            _run_and_leave()
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()

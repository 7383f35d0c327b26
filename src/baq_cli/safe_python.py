"""Starting Python without the folder that we are in.

`python -m` and `python -c` look for modules in the current folder first. That may be a stranger's:
a `torch.py` in it would run in every process that we start.
"""

from __future__ import annotations

import os
import shlex
import sys

AWAY = "import sys; sys.path[:] = [place for place in sys.path if place]"
"""The beginning of a program for `python -c`, which has the current folder as ''."""


def never_from_here() -> None:
    """Have the processes that libraries start from here leave the current folder out."""
    os.environ["PYTHONSAFEPATH"] = "1"  # from Python 3.11 on
    if sys.version_info < (3, 11):
        from multiprocessing import util

        flags = util._args_from_interpreter_flags  # type: ignore[attr-defined]
        # Spawned processes are told our own sys.path once they have begun.
        util._args_from_interpreter_flags = lambda: [*flags(), "-I"]  # type: ignore[attr-defined]


def running(module: str) -> str:
    """Return a shell's words for Python, to stand before `-u -m MODULE ARGUMENTS`."""
    program = (
        f"{AWAY}; import runpy; sys.argv[:] = sys.argv[3:]; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"

"""What processes of tests are spared, that run command after command."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer.main

from baq_cli.report import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATE = (
    *("torch.fx.experimental.symbolic_shapes", "matplotlib.figure", "minari", "mujoco"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
)
"""What commands import when they come to it: for gradients, figures, datasets, environments."""
MEMORY, ROOM = Path("/dev/shm"), 4 << 30
"""A folder in memory, and the bytes that must be free there: a container may have few."""
_rendered = style.rendered


def import_ahead() -> None:
    """Have forked processes find imported what they would import in their course."""
    for name in LATE:
        importlib.import_module(name)


def wait_for_no_disk() -> None:
    """Have this process's fsync return at once: a run has a hundred, and no test pulls the plug."""
    vars(os)["fsync"] = _return_at_once


def work_in_memory() -> None:
    """Put temporary folders into memory, where the system has a folder there, with room."""
    found = "TMPDIR" not in os.environ and MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    if found and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def draw_each_kind_of_file_once() -> None:
    """Have every figure's file hold the first one of its kind: a run draws one at its end."""
    first: dict[str, bytes] = {}

    def rendered(figure: Figure, kind: str) -> bytes:
        if kind not in first:
            first[kind] = _rendered(figure, kind)
        return first[kind]

    vars(style)["rendered"] = rendered


@contextmanager
def figures_drawn() -> Iterator[None]:
    """Have every figure drawn, for tests that look at some."""
    spared = style.rendered
    vars(style)["rendered"] = _rendered
    yield
    vars(style)["rendered"] = spared


def _return_at_once(handle: int) -> None:
    pass


def build_commands_once() -> None:
    """Have Typer keep the tree of commands, which it builds for each call of the command line."""
    vars(typer.main)["get_command"] = functools.cache(typer.main.get_command)

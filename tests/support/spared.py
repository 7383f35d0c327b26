"""What processes of tests are spared, that run command after command."""

from __future__ import annotations

import functools
import importlib
import os

import typer.main

LATE = (
    *("torch.fx.experimental.symbolic_shapes", "matplotlib.figure", "minari", "mujoco"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
)
"""What commands import when they come to it: for gradients, figures, datasets, environments."""


def import_ahead() -> None:
    """Have forked processes find imported what they would import in their course."""
    for name in LATE:
        importlib.import_module(name)


def wait_for_no_disk() -> None:
    """Have this process's fsync return at once: a run has a hundred, and no test pulls the plug."""
    vars(os)["fsync"] = _return_at_once


def _return_at_once(handle: int) -> None:
    pass


def build_commands_once() -> None:
    """Have Typer keep the tree of commands, which it builds for each call of the command line."""
    vars(typer.main)["get_command"] = functools.cache(typer.main.get_command)

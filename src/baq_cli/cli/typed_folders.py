"""Folders of runs, comparisons and searches at and below what is typed, for a shell to offer.

Nothing heavy is imported here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

MOST_FOLDERS, MOST_DEPTH = 2_000, 10
"""Folders that are looked into for runs, and how far below the one that is typed."""
RUN, COMPARISON, SEARCH = "recipe.yaml", "matrix.json", "search.json"
CHECKPOINTS, AGENT = "checkpoints", "agent.safetensors"
_PLAIN = re.compile(r"[\w./+,@%-]+")


def is_plain(name: str) -> bool:
    """Return whether a name means nothing else to a shell; zsh evaluates what it is offered."""
    return _PLAIN.fullmatch(name) is not None


def holding(marks: tuple[str, ...], incomplete: str) -> Iterator[str]:
    """Yield the folders with a file of a name in `marks`, as they may be typed; near ones first."""
    base = incomplete[: incomplete.rfind("/") + 1]
    level, seen = [base], 0
    for _ in range(MOST_DEPTH):
        below = []
        for folder in level:
            for name in _folders(folder):
                path = folder + name
                if not path.startswith(incomplete[: len(path)]):
                    continue
                seen += 1
                if path.startswith(incomplete) and any(_has(path, mark) for mark in marks):
                    yield path
                elif seen <= MOST_FOLDERS:
                    below.append(f"{path}/")
        level = below


def run_around(typed: str) -> list[str]:
    """Return the run that a path being typed leads into, alone in a list; [] without one."""
    inside = typed.rpartition("/")[0].removesuffix(f"/{CHECKPOINTS}")
    return [inside] if _has(inside, RUN) else []


def checkpoints_of(run: str) -> Iterator[str]:
    """Yield the checkpoints of a run that have an agent's file."""
    root = f"{run}/{CHECKPOINTS}/"
    yield from (root + name for name in _folders(root) if _has(root + name, AGENT))


def _folders(folder: str) -> list[str]:
    """Return the names of the folders inside one, sorted; none where it can't be read."""
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            plain = [entry for entry in entries if is_plain(entry.name)]
    except OSError:
        return []
    inside = (entry.name for entry in plain if os.path.isdir(entry.path))
    return sorted(name for name in inside if not name.startswith("."))


def _has(folder: str, name: str) -> bool:
    return bool(folder) and Path(os.path.expanduser(folder), name).is_file()

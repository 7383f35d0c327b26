"""Running the command as a user does, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from support.forked import SERVER

SMALL = [
    "shared.hidden=[16,16]",
    "shared.batch_size=32",
    "threads=1",
    "evaluation.episodes=1",
]
"""Overrides that make a run cheap."""


def baq(*words: str | Path, data: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `baq` with a Minari folder of its own; fail unless its status is the expected one."""
    env = os.environ | {"MINARI_DATASETS_PATH": str(data), "COLUMNS": "120"}
    done = SERVER.run([str(word) for word in words], env, seconds=300)
    assert done.returncode == expect, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def baq_json(*words: str | Path, data: Path) -> Any:
    """Run `baq … --json` and read what it prints."""
    return json.loads(baq(*words, "--json", data=data).stdout)

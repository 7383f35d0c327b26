"""Running the command as a user does, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SMALL = [
    "shared.hidden=[16,16]",
    "shared.batch_size=32",
    "threads=1",
    "evaluation.episodes=1",
]
"""Overrides that make a run cheap."""


def baq(*words: str | Path, data: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `baq` with a Minari folder of its own; fail unless its status is the expected one."""
    done = subprocess.run(
        [sys.executable, "-m", "baq_cli.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"MINARI_DATASETS_PATH": str(data), "COLUMNS": "120"},
    )
    assert done.returncode == expect, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def baq_json(*words: str | Path, data: Path) -> Any:
    """Run `baq … --json` and read what it prints."""
    return json.loads(baq(*words, "--json", data=data).stdout)

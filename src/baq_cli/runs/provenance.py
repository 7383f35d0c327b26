"""What a run was made with: versions, machine, revision and time."""

from __future__ import annotations

import platform
import subprocess
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "baq-cli",
    "torch",
    "numpy",
    "gymnasium",
    "mujoco",
    "box2d",
    "minari",
    "safetensors",
    "pydantic",
)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions that decide a run's numbers."""
    return dict(_installed())


@cache  # each checkpoint says them, and packages' metadata are slow to read
def _installed() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Return the revision of the source that runs, when it runs from a git checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

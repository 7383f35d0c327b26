"""A run's directory: recipe, manifest, metrics and checkpoints."""

from __future__ import annotations

import csv
import io
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from baq_cli.engine.files import disk_errors, json_bytes, read_json, replace_file
from baq_cli.errors import DataError, UsageError

METRICS = (
    "phase",
    "seed",
    "gradient_steps",
    "env_steps",
    "episodes",
    "return_mean",
    "return_std",
    "length_env_steps",
    "evaluation_episodes",
    "wall_seconds",
)
DIAGNOSTICS = ("phase", "seed", "gradient_steps", "env_steps", "name", "value")
PACKAGES = (
    "baq-cli",
    "torch",
    "numpy",
    "gymnasium",
    "mujoco",
    "minari",
    "safetensors",
    "pydantic",
)

Row = dict[str, Any]


class RunDirectory:
    """The folder that `--out` names. It holds at most one run."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def holds_run(self) -> bool:
        return (self.path / "recipe.yaml").exists()

    def check_free(self, resume: bool) -> None:
        """Raise UsageError when a run can't be kept here: a file, or another run's folder."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file: choose a folder")
        if self.holds_run and not resume:
            raise UsageError(
                f"{self.path} already holds a run: choose another --out, or continue that run by "
                "adding --resume to the command that made it."
            )

    def begin(self, recipe_yaml: str, manifest: dict[str, Any]) -> None:
        """Start a run here."""
        with disk_errors(f"start a run in {self.path}"):
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_manifest(manifest | {"started": now()})
            for name, header in (("metrics", METRICS), ("diagnostics", DIAGNOSTICS)):
                replace_file(self.path / f"{name}.csv", _csv_bytes([header]))
            replace_file(self.path / "recipe.yaml", recipe_yaml.encode())

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        replace_file(self.path / "manifest.json", json_bytes(manifest))

    def finish(self, facts: dict[str, Any]) -> None:
        """Note when the run ended, and what is known of it by then."""
        manifest = read_json(self.path / "manifest.json")
        with disk_errors(f"finish the run in {self.path}"):
            self.write_manifest(manifest | {"ended": now()} | facts)

    def append(self, name: str, header: Sequence[str], rows: Iterable[Row]) -> None:
        """Add rows to `<name>.csv`."""
        with (
            disk_errors(f"write {self.path / name}.csv"),
            (self.path / f"{name}.csv").open("ab") as file,
        ):
            file.write(_csv_bytes([[_cell(row[key]) for key in header] for row in rows]))

    def sizes(self) -> dict[str, int]:
        """Return the byte length of each CSV, for a checkpoint to remember."""
        return {
            name: (self.path / f"{name}.csv").stat().st_size for name in ("metrics", "diagnostics")
        }

    def truncate(self, sizes: dict[str, int]) -> None:
        """Drop what was written after the checkpoint that a run resumes from."""
        for name, size in sizes.items():
            os.truncate(self.path / f"{name}.csv", size)


def read_metrics(run: Path) -> list[Row]:
    """Read a run's metrics.csv, numbers as numbers.

    Raises DataError when it is missing or has other columns.
    """
    path = run / "metrics.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [
            {key: row[key] if key == "phase" else float(row[key]) for key in METRICS}
            for row in rows
        ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} can't be read as a run's metrics: {error!r}") from error


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: str) -> dict[str, Any]:
    """Describe the machine."""
    import torch

    found: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device == "cuda":
        found["card"] = torch.cuda.get_device_name()
        found["tf32"] = torch.backends.cuda.matmul.allow_tf32
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


def _cell(value: Any) -> Any:
    return repr(value) if isinstance(value, float) else value


def _csv_bytes(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()

"""A run's directory: recipe, manifest, metrics and checkpoints."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from baq_cli.engine.events import UNITS, Note, Observer
from baq_cli.engine.files import disk_errors, hash_of, json_bytes, read_json, replace_file
from baq_cli.errors import DataError, UsageError
from baq_cli.plain_files import MOST_LOG, appended, make_folder, opened, read

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
COUNTERS = ("seed", "gradient_steps", "env_steps", "episodes", "evaluation_episodes")
DIAGNOSTICS = ("phase", "seed", "gradient_steps", "env_steps", "name", "value")
LOGS = {"metrics": METRICS, "diagnostics": DIAGNOSTICS}
MOST_SCORE = 1e30
"""The size of a return: whatever is computed of smaller ones is finite."""
MANIFEST, RECIPE, FILES = "manifest.json", "recipe.yaml", "files"
"""`files` in the manifest: the SHA-256 of the recipe, and of the CSVs once the run has ended."""
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
Seal = dict[str, Any]
"""A file as it once was: its length in `bytes`, and its `sha256` up to there."""


class RunDirectory:
    """The folder that `--out` names. It holds at most one run."""

    def __init__(self, path: Path):
        self.path = path
        self._seals: dict[str, list[Seal]] = {name: [] for name in LOGS}

    @property
    def holds_run(self) -> bool:
        return (self.path / RECIPE).exists()

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
            make_folder(self.path)
            recipe = recipe_yaml.encode()
            self.write_manifest(manifest | {"started": now(), FILES: {RECIPE: hash_of(recipe)}})
            for name, header in LOGS.items():
                replace_file(self.path / f"{name}.csv", _csv_bytes([header]))
            replace_file(self.path / RECIPE, recipe)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        replace_file(self.path / MANIFEST, json_bytes(manifest))

    def finish(self, facts: dict[str, Any]) -> None:
        """Note when the run ended, what is known of it by then, and the hashes of its files."""
        manifest = read_json(self.path / MANIFEST)
        with disk_errors(f"finish the run in {self.path}"):
            names = (*(f"{name}.csv" for name in LOGS), RECIPE)
            hashes = {name: hash_of(_synced(self.path / name)) for name in names}
            self.write_manifest(manifest | {"ended": now()} | facts | {FILES: hashes})

    def append(self, name: str, header: Sequence[str], rows: Iterable[Row]) -> None:
        """Add rows to `<name>.csv`."""
        with (
            disk_errors(f"write {self.path / name}.csv"),
            appended(self.path / f"{name}.csv") as file,
        ):
            file.write(_rows_bytes(header, rows))

    def sizes(self) -> dict[str, dict[str, Any]]:
        """Wait until the disk has the CSVs; return the seal of each, for a checkpoint to remember.

        With it go, as `earlier`, those at the checkpoints before.
        """
        found = {}
        for name, seals in self._seals.items():
            path = self.path / f"{name}.csv"
            with disk_errors(f"write {path}"):
                content = _synced(path)
            seal = {"bytes": len(content), "sha256": hash_of(content)}
            earlier = [before for before in seals if before["bytes"] < len(content)]
            self._seals[name] = [*earlier, seal]
            found[name] = seal | {"earlier": earlier}
        return found

    def restore(self, sizes: dict[str, Any], history: Sequence[Row], observer: Observer) -> None:
        """Take the CSVs back to where they were at a checkpoint, and the run to one that goes on.

        Metrics that are no longer what was written are written anew, from the checkpoint's history.
        Of diagnostics, which it doesn't hold, what a checkpoint before knew is kept. Both are said.
        """
        manifest = read_json(self.path / MANIFEST)
        files = dict(manifest.get(FILES) or {}) if isinstance(manifest.get(FILES), dict) else {}
        files = {name: known for name, known in files.items() if name == RECIPE}
        ended = {key: value for key, value in manifest.items() if key != "ended"}
        with disk_errors(f"continue the run in {self.path}"):
            self.write_manifest(ended | {FILES: files})
            for name, header in LOGS.items():
                path = self.path / f"{name}.csv"
                known = sizes[name]
                length = known if isinstance(known, int) else known["bytes"]
                content = _as_it_was(path, known)
                if len(content) < length:
                    rows = history if name == "metrics" else ()
                    what = "written anew from the checkpoint" if rows else "begun anew"
                    if content and not rows:
                        what = f"{len(content.splitlines()) - 1} lines are kept"
                    if rows or not content:
                        content = _csv_bytes([header]) + _rows_bytes(header, rows)
                    observer(Note(f"{path} is not what was written (its SHA-256 differs): {what}"))
                replace_file(path, content)
                self._seals[name] = [s for s in _seals(known) if s["bytes"] <= len(content)]


def _as_it_was(path: Path, known: Any) -> bytes:
    """Return a CSV's content at a checkpoint, or as much of it as one before knew.

    Checkpoints of the first versions know its length alone.
    """
    try:
        content = read(path, MOST_LOG)
    except FileNotFoundError:
        return b""
    if isinstance(known, int):
        return content[:known] if len(content) >= known else b""
    digest, hashed, good = hashlib.sha256(), 0, 0
    for seal in _seals(known):
        digest.update(content[hashed : seal["bytes"]])
        hashed = seal["bytes"]
        if digest.hexdigest() == seal["sha256"]:
            good = hashed
    return content[:good]


def _seals(known: Any) -> list[Seal]:
    """Return what a checkpoint knows of a CSV, the shortest first."""
    if isinstance(known, int):
        return []
    seal = {key: known[key] for key in ("bytes", "sha256")}
    return sorted([*known.get("earlier", ()), seal], key=lambda each: int(each["bytes"]))


def _synced(path: Path) -> bytes:
    """Return a file's content once the disk has it."""
    with opened(path) as file:
        os.fsync(file.fileno())
        return file.read()


def read_metrics(run: Path) -> list[Row]:
    """Read a run's metrics.csv, numbers as numbers.

    Of a run that goes on, or was killed, a last line that is half written doesn't count.
    Raises DataError when it is missing, has other columns or values, or is not what a finished run
    wrote.
    """
    path = run / "metrics.csv"
    content, ended = read_logged(run, path.name)
    try:
        if not ended:
            content = content[: content.rfind(b"\n") + 1]
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)
        if not set(METRICS) <= set(rows.fieldnames or ()):
            raise ValueError(f"its columns are {rows.fieldnames}")
        return [_numbers(row) for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path} can't be read as a run's metrics: {error}") from error


def read_logged(run: Path, name: str) -> tuple[bytes, bool]:
    """Return a file of a run, and whether the run has ended, which fixes what is in it.

    Raises DataError when it can't be read, or is not what the manifest says was written.
    """
    path = run / name
    manifest = read_json(run / MANIFEST) if (run / MANIFEST).exists() else {}
    try:
        content = read(path, MOST_LOG)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    files = manifest.get(FILES)
    seal = files.get(name) if isinstance(files, dict) else None
    if seal is not None and seal != hash_of(content):
        mend = "" if name == RECIPE else ", or continue the run with --resume, which mends it"
        raise DataError(
            f"{path} is damaged: its content is not what was written (its SHA-256 differs from "
            f"that in {MANIFEST}). Restore it from a copy{mend}."
        )
    return content, seal is not None or "ended" in manifest


def _numbers(row: dict[str, Any]) -> Row:
    if None in row or None in row.values():
        raise ValueError(f"a line has more or fewer cells than the header: {list(row.values())}")
    if row["phase"] not in UNITS:
        raise ValueError(f"a phase is '{row['phase']}', expected one of {', '.join(UNITS)}")
    found = {key: row[key] if key == "phase" else float(row[key]) for key in METRICS}
    if not abs(found["return_mean"]) <= MOST_SCORE:
        raise ValueError(f"a return is {row['return_mean']}, expected a number")
    for key in COUNTERS:
        if not (found[key].is_integer() and 0 <= found[key] < 2**63):
            raise ValueError(f"{key} is '{row[key]}', expected a whole number")
    return found


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


def _rows_bytes(header: Sequence[str], rows: Iterable[Row]) -> bytes:
    return _csv_bytes([[_cell(row[key]) for key in header] for row in rows])


def _csv_bytes(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()

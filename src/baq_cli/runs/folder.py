"""A run's directory: recipe, manifest, metrics and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from baq_cli.errors import DataError, UsageError
from baq_cli.plain_files import MOST_LOG, make_folder, read
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.files import disk_errors, hash_of, json_bytes, read_json, replace_file
from baq_cli.runs.log import LOGS, Log, Row, RunLog, parse_metrics
from baq_cli.runs.provenance import now

MANIFEST, RECIPE, FILES = "manifest.json", "recipe.yaml", "files"
"""`files` in the manifest: the SHA-256 of the recipe, and of the CSVs once the run has ended."""
ESTIMATE = "estimate.json"
"""What a dataset alone says of the run's last policies, where that was asked for."""
MATRIX, SEARCH = "matrix.json", "search.json"
HELD = {RECIPE: "a run", MATRIX: "a comparison", SEARCH: "a search"}
"""What a folder holds, by the file that says so."""


def check_kind(folder: Path, marker: str) -> None:
    """Raise UsageError where a folder is to hold what a file marks, and holds something else."""
    for name, what in HELD.items():
        if name != marker and (folder / name).exists():
            raise UsageError(
                f"{folder} already holds {what}, and this command makes {HELD[marker]}: choose "
                "another --out."
            )


class RunDirectory:
    """The folder that `--out` names. It holds at most one run."""

    def __init__(self, path: Path):
        self.path = path
        self._logs = {name: RunLog(path / f"{name}.csv", header) for name, header in LOGS.items()}

    @property
    def holds_run(self) -> bool:
        return (self.path / RECIPE).exists()

    def check_free(self, resume: bool) -> None:
        """Raise UsageError when a run can't be kept here: a file, or another run's folder."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file: choose a folder")
        check_kind(self.path, RECIPE)
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
            for log in self._logs.values():
                log.begin()
            replace_file(self.path / RECIPE, recipe)

    def write_recipe(self, recipe_yaml: str) -> None:
        """Write the recipe by which a run goes on; a kill in between leaves it unsealed."""
        manifest = read_json(self.path / MANIFEST)
        going = {key: value for key, value in manifest.items() if key != "ended"}
        recipe = recipe_yaml.encode()
        with disk_errors(f"continue the run in {self.path}"):
            self.write_manifest(going | {FILES: {}})
            replace_file(self.path / RECIPE, recipe)
            self.write_manifest(going | {FILES: {RECIPE: hash_of(recipe)}})

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        replace_file(self.path / MANIFEST, json_bytes(manifest))

    def note(self, facts: dict[str, Any]) -> None:
        """Add to the manifest of a run that goes on."""
        with disk_errors(f"write the manifest in {self.path}"):
            self.write_manifest(read_json(self.path / MANIFEST) | facts)

    def add_to_manifest(self, facts: dict[str, Any]) -> None:
        """Note what the manifest doesn't say yet."""
        manifest = read_json(self.path / MANIFEST)
        if not facts.keys() <= manifest.keys():
            with disk_errors(f"write {self.path / MANIFEST}"):
                self.write_manifest(facts | manifest)

    def finish(self, facts: dict[str, Any]) -> None:
        """Note when the run ended, what is known of it by then, and the hashes of its files."""
        manifest = read_json(self.path / MANIFEST)
        hashes = {log.path.name: log.synced()["sha256"] for log in self._logs.values()}
        with disk_errors(f"finish the run in {self.path}"):
            files = _recipe_seal(manifest) | hashes
            self.write_manifest(manifest | {"ended": now()} | facts | {FILES: files})

    def append(self, log: Log, rows: Iterable[Row]) -> None:
        """Add rows to `<log>.csv`."""
        self._logs[log].append(rows)

    def sizes(self) -> dict[str, dict[str, Any]]:
        """Wait until the disk has the CSVs; return the seal of each, for a checkpoint to remember.

        With it go, as `earlier`, those at the checkpoints before.
        """
        return {name: log.seal() for name, log in self._logs.items()}

    def restore(self, sizes: dict[str, Any], history: Sequence[Row], observer: Observer) -> None:
        """Take the CSVs back to where they were at a checkpoint, and the run to one that goes on.

        Metrics that are no longer what was written are written anew, from the checkpoint's history.
        Of diagnostics, which it doesn't hold, what a checkpoint before knew is kept. Both are said.
        """
        manifest = read_json(self.path / MANIFEST)
        ended = {key: value for key, value in manifest.items() if key != "ended"}
        with disk_errors(f"continue the run in {self.path}"):
            self.write_manifest(ended | {FILES: _recipe_seal(manifest)})
            for name, log in self._logs.items():
                done = log.restore(sizes[name], history if name == "metrics" else ())
                if done:
                    what = "is not what was written (its SHA-256 differs)"
                    observer(Note(f"{log.path} {what}: {done}"))


def _recipe_seal(manifest: dict[str, Any]) -> dict[str, Any]:
    files = manifest.get(FILES)
    return {RECIPE: files[RECIPE]} if isinstance(files, dict) and RECIPE in files else {}


def read_metrics(run: Path) -> list[Row]:
    """Read a run's metrics.csv, numbers as numbers.

    Of a run that goes on, or was killed, a last line that is half written doesn't count.
    Raises DataError when it is missing, has other columns or values, or is not what a finished run
    wrote.
    """
    path = run / "metrics.csv"
    content, ended = read_logged(run, path.name)
    try:
        return parse_metrics(content, ended)
    except ValueError as error:
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

"""Which files a log is made of: as they were named, and those in folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from baq_cli.errors import DataError, UsageError, listed

_DIGITS = re.compile(r"([0-9]+)")


def log_files(paths: Sequence[Path], kinds: Sequence[Collection[str]]) -> list[Path]:
    """Return the files that paths stand for, a folder for the logs in it, 2 before 10.

    `kinds` are the suffixes of each format. Hidden files, and those of no format, are no logs.
    Raises UsageError for a file that comes twice and for a folder of several formats, DataError
    for a folder without a log.
    """
    files = [file for path in paths for file in (_inside(path, kinds) if path.is_dir() else [path])]
    known: dict[Path, Path] = {}
    for file in files:
        other = known.setdefault(file.resolve(), file)
        if other is not file:
            raise UsageError(f"{file} comes twice: name each file once")
    return files


def _inside(folder: Path, kinds: Sequence[Collection[str]]) -> list[Path]:
    suffixes = {suffix for kind in kinds for suffix in kind}
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        logs = [e for e in entries if e.suffix.lower() in suffixes and e.is_file()]
        folders = sorted((e for e in entries if e.is_dir()), key=natural)
    except OSError as error:
        raise DataError(f"{folder}: can't be read: {error}") from error
    found = [kind for kind in kinds if any(log.suffix.lower() in kind for log in logs)]
    if len(found) > 1:
        several = " and ".join(sorted({log.suffix.lower() for log in logs}))
        raise UsageError(
            f"{folder} holds {several} files: name those that make one log, as "
            f"{folder}/*{sorted(log.suffix for log in logs)[0]}"
        )
    if not logs:
        below = f". There are folders in it: name those, {listed([str(f) for f in folders[:3]])}"
        raise DataError(
            f"{folder}: a folder without a log; expected files of {', '.join(sorted(suffixes))}"
            f"{below if folders else ''}"
        )
    return sorted(logs, key=natural)


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return what sorts names by their numbers, 2 before 10, and by letters between."""
    parts = _DIGITS.split(path.name)
    return [(int(part), "") if k % 2 else (-1, part) for k, part in enumerate(parts)], path.name

"""What imports of several files say of their reading, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from baq_cli.data.logs.logfile import IMPORTED
from baq_cli.data.logs.several import one_recording
from baq_cli.data.recording import Recording
from baq_cli.errors import DataError, listed


def with_account(
    recordings: Sequence[Recording], paths: Sequence[Path]
) -> tuple[Recording, tuple[str, ...]]:
    """Lay recordings end to end; return them, and notes on how their files were read.

    What says where episodes end must be the same for all: their entries `IMPORTED` become one.
    Raises DataError where it isn't.
    """
    entries = [dict(r.about.get(IMPORTED, {})) for r in recordings]
    notes: dict[str, list[str]] = {}
    left: dict[str, str] = {}
    for entry, path in zip(entries, paths, strict=True):
        if entry.get("ends_from") != entries[0].get("ends_from"):
            raise _told_otherwise(entry, entries[0], path, paths[0])
        left |= entry.get("columns_not_used", {})
        for note in entry.pop("notes", []):
            notes.setdefault(note, []).append(path.name)
    said = [
        n if len(names) == len(paths) else f"{n} ({listed(names)})" for n, names in notes.items()
    ]
    whole, facts = one_recording(recordings), {**entries[0], "columns_not_used": left}
    about = {name: entry for name, entry in whole.about.items() if name != IMPORTED}
    facts = {name: fact for name, fact in facts.items() if fact}
    return replace(whole, about={**about, **({IMPORTED: facts} if facts else {})}), tuple(said)


def _told_otherwise(
    entry: dict[str, Any], first: dict[str, Any], path: Path, other: Path
) -> DataError:
    told = [dict(e.get("ends_from", {})) for e in (entry, first)]
    mine, its = (listed([f"{role} from '{c}'" for role, c in t.items()]) or "nothing" for t in told)
    return DataError(
        f"{path} isn't read as {other.name} is: {mine}, there {its}. Say it for all of them with "
        "--ends ROLE=COLUMN, or import them by themselves"
    )

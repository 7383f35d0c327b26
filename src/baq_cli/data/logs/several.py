"""Several files as one log: where an episode goes on in the next file, and what they must share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import FlatLog
from baq_cli.data.logs.ends.clues import together
from baq_cli.data.logs.logfile import LogFile, Setting, SpecAndSpaces, place_of
from baq_cli.data.recording import Recording
from baq_cli.errors import DataError, UsageError, listed
from baq_cli.surroundings import in_utf8
from baq_cli.units import amount

Array = npt.NDArray[Any]
Parts = dict[str, Array]
NOTES = "import_notes"
"""The entry of a dataset's metadata that says how its log was read."""


@dataclass(frozen=True)
class Part:
    """A file of a log, as it was read."""

    path: Path
    file: LogFile


def check_alike(parts: Sequence[Part]) -> None:
    """Raise DataError for the first file that isn't made as the first one is."""
    first = parts[0]
    for part in parts[1:]:
        if part.file.columns != first.file.columns:
            raise _differs(part, first, "the columns", *_told(part, first))
        for what in ("observations", "actions"):
            mine, its = _shapes(part.file.log, what), _shapes(first.file.log, what)
            if mine != its:
                raise _differs(part, first, f"{what} of the shape", str(mine), str(its))
        if (part.file.card is None) != (first.file.card is None):
            raise _differs(part, first, "baq's own card:", *_has_card(part), *_has_card(first))


def check_place(file: LogFile, setting: Setting, place: SpecAndSpaces) -> None:
    """Raise DataError where a file's card names other spaces, or another environment."""
    if file.card is None or setting.env is not None or setting.action_low is not None:
        return
    mine, others = (
        (None if spec is None else spec.to_json(), observation, action)
        for spec, observation, action in (place_of(file, setting), place)
    )
    if mine != others:
        raise DataError("its card names other spaces, or another environment, than the first's")


def _has_card(part: Part) -> tuple[str]:
    return ("none" if part.file.card is None else "there",)


def _told(part: Part, first: Part) -> tuple[str, str]:
    """Return the columns that only one of two files has; all of them, where the order differs."""
    mine, its = part.file.columns, first.file.columns
    only = [name for name in mine if name not in its], [name for name in its if name not in mine]
    if not any(only):
        return listed(mine), f"{listed(its)} in this order: name each by itself in the mapping"
    return listed(only[0]) or "fewer", listed(only[1]) or "fewer"


def _differs(part: Part, first: Part, what: str, mine: str, its: str) -> DataError:
    return DataError(
        f"{part.path} isn't made as {first.path.name} is: it has {what} {mine}, that one {its}. "
        "Files of one log have the same columns; import others by themselves"
    )


def _shapes(log: FlatLog, what: str) -> Any:
    if what == "actions":
        return list(log.actions.reshape(len(log.rewards), -1).shape[1:])
    return {name: list(part.shape[1:]) for name, part in log.observations.items()}


# -- episodes that go on in the next file


def joined(parts: Sequence[Part], join: bool | None) -> list[list[Part]]:
    """Return the files in groups: an episode may go on from one file of a group into the next.

    `join` says whether one goes on where the next file could say so; None: what the files say.
    Without episode numbers none does, unless `join` says so.
    Raises UsageError where the files can be read either way.
    """
    groups = [[parts[0]]]
    for part, following in pairwise(parts):
        if _goes_on(part, following, join):
            groups[-1].append(following)
        else:
            groups.append([following])
    return groups


def _goes_on(part: Part, following: Part, join: bool | None) -> bool:
    one, other = part.file.episode_span, following.file.episode_span
    if one is None or other is None:
        return bool(join)
    if one[1] != other[0] or _ends(part.file.log) or join is False:
        return False
    if join is None and one[0] == other[0]:
        raise UsageError(
            f"{part.path.name} ends in episode {one[1]} and {following.path.name} begins in one of "
            "that number: say with --join-files that it is the same episode, or with "
            "--split-files that it is another"
        )
    return True


def _ends(log: FlatLog) -> bool:
    flags = [log.terminated[-1], False if log.truncated is None else log.truncated[-1]]
    return any(bool(np.nan_to_num(flag)) for flag in flags)


def one_file(group: Sequence[Part]) -> LogFile:
    """Return the rows of files as those of one, episodes numbered through.

    An episode goes on in the next file where its first row has the number of the last one.
    """
    if len(group) == 1:
        return group[0].file
    logs = [part.file.log for part in group]

    def column(name: str) -> Any:
        columns = [getattr(log, name) for log in logs]
        return None if columns[0] is None else np.concatenate(columns)

    following = [log.next_observations for log in logs if log.next_observations is not None]
    log = FlatLog(
        observations=_together([log.observations for log in logs]),
        actions=np.concatenate([log.actions.reshape(len(log.rewards), -1) for log in logs]),
        rewards=column("rewards"),
        terminated=column("terminated"),
        truncated=column("truncated"),
        episode=_numbered_through(group),
        next_observations=_together(following) if following else None,
        infos=_together([log.infos for log in logs]),
        lost=sum(log.lost for log in logs),
    )
    clues = together([part.file.clues for part in group], [len(part.rewards) for part in logs])
    return replace(group[0].file, log=log, reset_infos={}, clues=clues)


def _numbered_through(group: Sequence[Part]) -> Array | None:
    numbers: list[Array] = []
    count = 0
    for k, part in enumerate(group):
        if part.file.log.episode is None:
            return None
        own = np.unique(part.file.log.episode, return_inverse=True)[1].reshape(-1)
        ids = count + own
        if k and _goes_on(group[k - 1], part, True):
            ids[own == own[0]] = numbers[-1][-1]
        numbers.append(ids)
        count += len(own)
    return np.concatenate(numbers)


def _together(files: Sequence[Parts]) -> Parts:
    """Lay arrays of several files end to end, those that every file has in one shape."""
    shared = [
        name
        for name, array in files[0].items()
        if all(name in parts and parts[name].shape[1:] == array.shape[1:] for parts in files)
    ]
    return {name: np.concatenate([parts[name] for parts in files]) for name in shared}


def in_one_type(parts: Sequence[Part]) -> list[Part]:
    """Give each part of the observations, and the actions, the type that holds every file's."""
    logs = [part.file.log for part in parts]
    types = {
        name: np.result_type(*(log.observations[name].dtype for log in logs))
        for name in logs[0].observations
    }
    action = np.result_type(*(log.actions.dtype for log in logs))

    def typed(given: Parts) -> Parts:
        return {name: part.astype(types[name], copy=False) for name, part in given.items()}

    def of_one_type(log: FlatLog) -> FlatLog:
        following = log.next_observations
        return replace(
            log,
            observations=typed(log.observations),
            actions=log.actions.astype(action, copy=False),
            next_observations=None if following is None else typed(following),
        )

    return [Part(p.path, replace(p.file, log=of_one_type(p.file.log))) for p in parts]


def one_recording(recordings: Sequence[Recording]) -> Recording:
    """Lay the episodes of recordings end to end; infos that not all of them have are left out."""
    first = recordings[0]
    if len(recordings) == 1:
        return first

    def column(name: str) -> Array:
        return np.concatenate([getattr(recording, name) for recording in recordings])

    seeds = [r.seeds or (None,) * len(r.lengths) for r in recordings]
    from_reset = [{n: len(a) != len(r.rewards) for n, a in r.infos.items()} for r in recordings]
    infos = [
        {n: a for n, a in r.infos.items() if all(k.get(n) == mine[n] for k in from_reset)}
        for r, mine in zip(recordings, from_reset, strict=True)
    ]
    return replace(
        first,
        observations=_together([recording.observations for recording in recordings]),
        actions=column("actions"),
        rewards=column("rewards"),
        terminated=column("terminated"),
        truncated=column("truncated"),
        lengths=column("lengths"),
        seeds=tuple(chain(*seeds)) if any(recording.seeds for recording in recordings) else (),
        infos=_together(infos),
    )


# -- what is said of it


def notes_of(groups: Sequence[Sequence[Part]]) -> tuple[str, ...]:
    """Return how files were read: what holds of all of them once, the rest with their names."""
    parts = list(chain(*groups))
    by_note: dict[str, list[str]] = {}
    for part in parts:
        for note in part.file.notes:
            by_note.setdefault(note, []).append(part.path.name)
    notes = [
        note if len(names) == len(parts) else f"{note} ({listed(names)})"
        for note, names in by_note.items()
    ]
    if len(parts) > 1:
        across = len(parts) - len(groups)
        goes_on = f"{'once' if across == 1 else amount(across, 'time')} an" if across else "no"
        files = f"{len(parts):,} files, {_first_and_last(parts)}"
        notes.insert(0, f"{files}: {goes_on} episode goes on in the next one")
    return tuple(notes)


def notes_in(metadata: dict[str, Any]) -> list[str]:
    """Return what a dataset's metadata say of how its log was read."""
    notes = metadata.get(NOTES)
    return [str(note) for note in notes] if isinstance(notes, list) else []


def with_about(recording: Recording, parts: Sequence[Part]) -> Recording:
    """Give a recording the entries of its dataset's metadata."""
    card = parts[0].file.card
    said = {} if card is None else card.about.model_dump(exclude_unset=True)
    about = {"description": f"Imported from {_first_and_last(parts)}."}
    return replace(recording, about={**about, **said, **recording.about})


def _first_and_last(parts: Sequence[Part]) -> str:
    names = (in_utf8(part.path.name) for part in (parts[0], parts[-1]))
    return " to ".join(dict.fromkeys(names))

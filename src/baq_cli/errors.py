"""What can go wrong, and the exit status that each kind of it has."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    FAULT = 1
    USAGE = 2
    DATA = 3
    ENVIRONMENT = 4
    NON_FINITE = 5
    LIMIT = 6
    INTERRUPTED = 130
    PIPE = 141


class BaqError(Exception):
    """A failure that the user can mend. The message says what was found, expected, and to do."""

    status = ExitStatus.USAGE


class UsageError(BaqError):
    """A command line or recipe that asks for something that can't be (status 2)."""

    status = ExitStatus.USAGE


class DataError(BaqError):
    """A dataset, checkpoint or file that is missing, damaged or unsupported (status 3)."""

    status = ExitStatus.DATA


class Unreadable(DataError):
    """A file that may be whole, but can't be read now, or not by this version (status 3)."""


class EnvironmentMismatch(BaqError):
    """An environment that is missing or doesn't fit the data or the policy (status 4)."""

    status = ExitStatus.ENVIRONMENT


class NonFiniteError(BaqError):
    """Training that produced NaN or infinity (status 5)."""

    status = ExitStatus.NON_FINITE


class LimitReached(BaqError):
    """A run that one of its limits stopped, after its checkpoint was written (status 6)."""

    status = ExitStatus.LIMIT


class Interrupted(BaqError):
    """A run that was asked to stop, after its checkpoint was written (status 130)."""

    status = ExitStatus.INTERRUPTED


class PipeClosed(BaqError):
    """Output that nobody reads any more, as after `| head` (status 141, without a word)."""

    status = ExitStatus.PIPE


MOST_SHOWN = 80
"""Characters of somebody's word that a message repeats."""
MOST_LISTED, MOST_COMPARED = 100, 1_000
"""Names that a message lists; names that are compared with a mistyped one."""


def clipped(word: object) -> str:
    """Return a word as a message repeats it: its beginning, where it is long."""
    text = str(word)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def clipped_path(path: object) -> str:
    """Return a path as a message repeats it: its end, which says most, where it is long."""
    text = str(path)
    return text if len(text) <= MOST_SHOWN else f"…{text[-MOST_SHOWN:]}"


def nearest(name: str, known: list[str], most: int = 1, elsewhere: str | None = None) -> str:
    """Return `did you mean 'x'?` for the closest known names, or the list of them.

    Capitals count as small letters, and `-`, `+` and spaces as `_`: TD3+BC is close to td3_bc.
    `most` names are given at most, with `or`. `elsewhere` says where all are listed, in the place
    of their list; it is said in either case.
    """
    import difflib

    near = {_plain(word): word for word in known[:MOST_COMPARED] if len(word) <= MOST_SHOWN}
    close = difflib.get_close_matches(_plain(name[:MOST_SHOWN]), near, n=most, cutoff=0.5)
    quoted = " or ".join(f"'{near[found]}'" for found in close)
    meant = f"did you mean {quoted}?" if close else ""
    if elsewhere is not None:
        return f"{meant} {elsewhere}".lstrip()
    return meant or "known: " + listed(sorted(known))


def _plain(name: str) -> str:
    return name.lower().translate(dict.fromkeys(map(ord, "-+ "), "_"))


def listed(names: Sequence[str]) -> str:
    """Return names as a message lists them: the first ones, where there are many."""
    more = len(names) - MOST_LISTED
    return ", ".join(map(clipped, names[:MOST_LISTED])) + (f", and {more:,} more" * (more > 0))

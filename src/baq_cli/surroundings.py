"""What a command runs on: the user's folders, and what the system refuses, said in words."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baq_cli.errors import BaqError, DataError, Interrupted, UsageError, clipped_path
from baq_cli.signals import Stopped

MINARI, CACHE, TEMPORARY, MATPLOTLIB = (
    "MINARI_DATASETS_PATH",
    "BAQ_CACHE",
    "TMPDIR",
    "MPLCONFIGDIR",
)
"""The variable that moves each folder which no option names."""
KEPT = "what was complete before is kept"
"""Of a command that was stopped where nothing waited to be saved."""
UNANSWERED = (
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)
"""How the system refuses to read what may be whole."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_MENDS = {
    **dict.fromkeys(
        NO_ROOM,
        "Nothing that was complete is lost: make room, then give the command again (with --resume "
        "where a run had begun).",
    ),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE),
        "Too much is open at once: raise the limit with 'ulimit -n', or do less at once (--workers "
        "1, evaluation.background=false).",
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM), "Give this user access to it, or name another place."
    ),
    errno.EROFS: "That file system can only be read: name a place on another.",
    errno.EFBIG: "Files may not be that large here: raise the limit with 'ulimit -f'.",
    errno.ENAMETOOLONG: "Give it a shorter name.",
    errno.ENOTDIR: "What stands where a folder should be is none: name another place.",
    errno.EEXIST: "What is there already is in the way: name another place.",
    errno.EISDIR: "It is a folder, and a file is expected: name another.",
    errno.ELOOP: "Its links lead in a circle: name what they should lead to.",
    errno.ENOENT: "Look whether each folder of that path is there, also the one you are in.",
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
        "The disk or its network doesn't answer: give the command again once it does.",
    ),
}
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")
_OTHERWISE = "Choose a folder that can be written to."


# -- folders


def check_here() -> None:
    """Raise DataError where the current folder is gone: libraries would end the process."""
    try:
        os.getcwd()
    except OSError as error:
        raise DataError(
            f"the folder that you are in is not there any more ({error.strerror}): cd to one that "
            "is, or to this one anew"
        ) from error


def minari_folder() -> Path:
    """Return the Minari folder, there or not: $MINARI_DATASETS_PATH, or `~/.minari/datasets`.

    It is absolute: Minari's own storage joins a relative one to itself.
    Raises DataError where nothing says which it is.
    """
    named = os.environ.get(MINARI)
    if named == "":
        raise DataError(f"{MINARI} is set, and names no folder: name one with it, or unset it")
    return Path(os.path.abspath(named)) if named else _home(MINARI) / ".minari" / "datasets"


def cache_folder() -> Path:
    """Return the cache's folder, there or not: $BAQ_CACHE, or `baq` in the user's cache folder.

    Raises DataError where nothing says which it is.
    """
    import platformdirs

    named = os.environ.get(CACHE)
    if named:
        return Path(named)
    try:
        found = platformdirs.user_cache_path("baq")
    except RuntimeError:  # as it says that there is no home, or returns ~
        return _home(CACHE) / ".cache" / "baq"
    return found if found.is_absolute() else _home(CACHE)


def _home(variable: str) -> Path:
    found = Path(os.path.expanduser("~"))
    if not found.is_absolute():
        raise DataError(
            f"this user has no home folder ($HOME is not set): name a folder with {variable}"
        )
    return found


def _moved_by(path: str) -> str:
    """Return the variable that moves the place of a path; none where an option names it."""
    for variable, folder in ((MINARI, minari_folder), (CACHE, cache_folder)) if path else ():
        try:
            if Path(path).is_relative_to(folder()):
                return variable
        except DataError:
            continue
    return ""


# -- names that are not UTF-8


def in_utf8(text: str) -> str:
    """Return text that any file takes: bytes of a name that are not UTF-8 as `\\xe4`."""
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of characters that no file's name can have
        return text


def in_shell(words: Sequence[str]) -> str:
    """Return words as a shell takes them, in characters that any file takes."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if not _NOT_UTF_8.search(word):
        return shlex.quote(word)
    letters = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\{byte:03o}"
        for byte in os.fsencode(word)
    )
    return f"$'{''.join(letters)}'"  # as bash, zsh and POSIX of 2024 read it


# -- what is refused


def refused(doing: str, error: OSError, variable: str = "") -> DataError:
    """Return the error to raise where the system refused something.

    It says what was being done, the path, the reason, and what to do: `variable` moves the place.
    """
    path = _path_of(error)
    reason = error.strerror or str(error) or type(error).__name__
    where = f" ({clipped_path(path)})" if path and path not in doing and path not in reason else ""
    if error.errno is None:  # a library's, or our own, in words
        return DataError(f"cannot {doing}: {reason.rstrip('.')}{where}.")
    if "temporary directory" in reason:
        return DataError(f"cannot {doing}: {reason}. Name a folder with {TEMPORARY}.")
    mend = _MENDS.get(error.errno, _OTHERWISE)
    variable = variable or _moved_by(path)
    moved = f" {variable} names another folder." if variable else ""
    return DataError(f"cannot {doing}: {reason}{where}. {mend}{moved}")


def _path_of(error: OSError) -> str:
    paths = [error.filename2, error.filename]
    found: list[Any] = [path for path in paths if isinstance(path, str | bytes | os.PathLike)]
    return os.fsdecode(found[0]) if found else ""


def known(error: BaseException) -> BaqError | None:
    """Return an exception as a failure that the user can mend, or None where it is a fault of ours.

    The last net, for what no room has said in words of its own.
    """
    if isinstance(error, BaqError):
        return error
    if isinstance(error, KeyboardInterrupt):
        by = f" by {error}" if isinstance(error, Stopped) else ""
        return Interrupted(f"stopped at once{by}; {KEPT}")
    if isinstance(error, OSError):
        return refused(f"use {_path_of(error)}" if _path_of(error) else "go on", error)
    if isinstance(error, UnicodeError):
        return DataError(
            f"cannot write down a name or a text that is not UTF-8 ({' '.join(str(error).split())})"
            ". Rename it, or choose another."
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # as PyTorch says
        said = " ".join(str(error).split())
        why = f" ({said})" if said else ""
        return UsageError(
            f"this machine hasn't the memory that was asked for{why}. Lower what sizes it: "
            "seeds, hidden, critics, batch_size, capacity or the dataset."
        )
    return None

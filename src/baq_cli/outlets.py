"""stdout and stderr as they may be: of any encoding, full, closed, read by nobody.

What an encoding lacks is written in ASCII. What can't be written is dropped, since no work shall
end for want of somebody to tell; of stdout, `lost` knows it afterwards.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import unicodedata
from typing import Any

from baq_cli.errors import DataError, PipeClosed

IN_ASCII = "baq.in_ascii"
"""The name under which `in_ascii` is an error handler of Python's codecs."""
STDOUT, STDERR = 1, 2
SIGNS = {
    **{"±": "+-", "×": "x", "÷": "/", "·": "-", "•": "*", "√": "sqrt", "∞": "inf", "∑": "sum"},
    **{"≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "→": "->", "←": "<-", "∈": "in", "°": "deg"},
    **dict.fromkeys("‐‑‒–—−─━┄┅╌╍═╴╶╸╺", "-"),
    **dict.fromkeys("│┃┆┇╎╏║┤├┨┠╵╷", "|"),
    **dict.fromkeys("┌┐└┘┬┴┼┏┓┗┛┳┻╋╇╈┡┢╭╮╯╰", "+"),
    **dict.fromkeys("‘’‚′", "'"),
    **dict.fromkeys("“”„″«»", '"'),
    **dict(zip("▁▂▃▄▅▆▇█", "_.:-=+*#", strict=True)),
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "eps", "λ": "lambda"},
    **{"μ": "mu", "π": "pi", "σ": "sigma", "τ": "tau", "Σ": "Sigma", "Δ": "Delta"},
    **{"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "đ": "d", "ł": "l", "Ł": "L"},
}
"""What stands for signs that Unicode itself takes apart into no ASCII."""


def in_ascii(text: str) -> str:
    """Return text in ASCII: signs by what stands for them, letters without accents, else `?`."""
    return "".join(map(_letter, text))


def _letter(letter: str) -> str:
    if letter.isascii():
        return letter
    if letter in SIGNS:
        return SIGNS[letter]
    apart = (SIGNS.get(part, part) for part in unicodedata.normalize("NFKD", letter))
    return "".join(part for part in apart if part.isascii()) or "?"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end


class _Descriptor(io.RawIOBase):
    """Bytes on their way to a file descriptor, which stays open."""

    def __init__(self, number: int, encoding: str):
        self._number = number
        self._is_ascii = codecs.lookup(encoding).name == "ascii"
        self.error: OSError | None = None
        self.name = "<stdout>" if number == STDOUT else "<stderr>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, content: Any) -> int:
        """Write all of it, or note in `error` why it can't be."""
        wanted = bytes(content)
        left = wanted
        if self._is_ascii:  # Typer's help and usage come in UTF-8 all the same
            left = in_ascii(left.decode("utf-8", "replace")).encode()
        try:
            while left:
                left = left[self._some(left) :]
        except OSError as error:
            self.error = self.error or error
        return len(wanted)

    def _some(self, content: bytes) -> int:
        try:
            return os.write(self._number, content)
        except BlockingIOError:  # its other end was made not to wait
            select.select([], [self._number], [])
            return 0


def lost() -> DataError | PipeClosed | None:
    """Return what to say where stdout didn't take all that this process printed, else None."""
    error = getattr(getattr(sys.stdout, "buffer", None), "error", None)
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.EPIPE:
        return PipeClosed("nobody reads what is written to stdout")
    reason = "it is closed" if error.errno == errno.EBADF else error.strerror
    return DataError(
        f"cannot write to stdout: {reason}. The command is done, and what it saves is saved; "
        "what it prints is lost."
    )


def guard() -> None:
    """Make this process's stdout and stderr take whatever is written to them.

    Where one of the three standard descriptors is closed, nothing else shall get its number.
    """
    codecs.register_error(IN_ASCII, _replaced)
    for number in range(3):
        _occupy(number)
    sys.stdout = _guarded(sys.stdout, sys.__stdout__, STDOUT)
    sys.stderr = _guarded(sys.stderr, sys.__stderr__, STDERR)


def _occupy(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        how = os.O_RDWR if number == STDERR else os.O_RDONLY  # stdout goes on refusing
        handle = os.open(os.devnull, how)
        if handle != number:
            os.dup2(handle, number)
            os.close(handle)
        os.set_inheritable(number, True)


def _guarded(stream: Any, own: Any, number: int) -> Any:
    """Return a stream that writes to a descriptor as said above; somebody else's stays as it is."""
    if stream is not own:
        return stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    if os.name == "nt":  # a console there takes no bytes
        if stream is not None:
            stream.reconfigure(errors=IN_ASCII)
        return stream
    if stream is not None:
        stream.flush()
    raw: Any = _Descriptor(number, encoding)
    return io.TextIOWrapper(raw, encoding, IN_ASCII, write_through=True)

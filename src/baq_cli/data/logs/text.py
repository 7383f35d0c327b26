"""A log's text: which letters a file's bytes are."""

from __future__ import annotations

import codecs
from pathlib import Path

from baq_cli.errors import DataError
from baq_cli.plain_files import read

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
"""Byte order marks, the longer ones first: UTF-32's begins with UTF-16's."""
NUL_SHARE = 0.1


def decoded(path: Path) -> tuple[str, str]:
    """Read a file's text, and what to say of its encoding: nothing, where that is UTF-8.

    UTF-16 and UTF-32 are known by their byte order marks. Bytes that are not UTF-8 are kept apart
    from each other, and from all letters: they may stand where nothing asks for them.
    Raises DataError for what is no text.
    """
    try:
        content = read(path, None, follow=True)
    except OSError as error:
        raise DataError(f"can't be read as a .csv file: {error}") from error
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    start = content[:1_000]
    if encoding == "utf-8" and start.count(0) > NUL_SHARE * len(start):
        raise DataError(
            "can't be read as a .csv file: it holds NUL bytes. It may be UTF-16 without a byte "
            "order mark, or no text at all: save it with the encoding UTF-8"
        )
    try:
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        text = content.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise DataError(f"can't be read as a .csv file: {error}") from error
    return text, "" if encoding.startswith("utf-8") else encoding.upper()


def shown(word: str) -> str:
    """Return a word as it can be shown, � in the place of bytes that are no letters."""
    return word.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

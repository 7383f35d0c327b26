"""Names as renderings need them: a name may hold any character."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable

_SPACES = re.compile(r"\s+")
_TURNING = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNSEEN = "\u00ad\u180e\u200b-\u200d\u2028\u2029\u2060-\u2064\ufeff\U000e0000-\U000e007f"
_NOT_TEXT = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff{_TURNING}{_UNSEEN}]")
"""Control characters, halves of characters, what XML forbids, what turns text around or has no
width: two names that look the same shall be the same."""
_NOT_SAFE = re.compile(r"[^a-z0-9._]+")
LONGEST_SLUG = 80
PUBLISHED = ("corl",)
"""What `--curves` calls those that ship with the tool."""


def plain(text: str) -> str:
    """Return text on one line, whitespace made single spaces, control characters �."""
    return printable(_SPACES.sub(" ", text).strip())


def printable(text: str) -> str:
    """Return text with � for its control characters, line ends among them."""
    return _NOT_TEXT.sub("\ufffd", text)


def printable_lines(text: str) -> str:
    """Return text as `printable` does, its line ends kept."""
    return "\n".join(map(printable, text.split("\n")))


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """Return a name in lines of at most `width` characters; what is longer ends with …"""
    whole = textwrap.wrap(plain(text), width)
    if len(whole) > lines:
        whole[lines - 1 :] = [f"{whole[lines - 1][: width - 1]}…"]
    return "\n".join(whole)


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """Return a part of a file's name for each name: ASCII, lower case, no separators.

    Names that come out the same get the beginning of their SHA-256 behind it.
    """
    slugs = {name: _slug(name) for name in names}
    counts = Counter(slugs.values())
    return {
        name: slug if counts[slug] == 1 else f"{slug}-{_digest(name)}"
        for name, slug in slugs.items()
    }


def _slug(name: str) -> str:
    slug = _NOT_SAFE.sub("-", name.lower())[:LONGEST_SLUG].strip("-.")
    return slug or "unnamed"


def _digest(name: str) -> str:
    import hashlib  # every command imports this file, and few need it

    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]

"""Markdown as GitHub reads it: text that shows as it is, tables, code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from baq_cli.report.names import plain, printable

_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "*_[]~#"}
    | {character: f"&#{ord(character)};" for character in "\\|`${}@"}
    | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
)
"""Pipes and backslashes are references: readers disagree on how a backslash escapes them."""
_BEGINNING = re.compile(r"^(\d*)([-+=.)])(?=[-+= ]|$)")
"""What would begin a list or draw a rule."""
_ADDRESS = re.compile(r"(?<=:)//|(?<=www)\.", re.IGNORECASE)
_BACKTICKS = re.compile("`+")


def escaped(text: str) -> str:
    """Return Markdown of one line that shows any text as it is, in a table too.

    Nothing of it becomes HTML, a link, an image, a formula, emphasis, code or a list.
    """
    line = plain(text).translate(_ESCAPES)
    line = _ADDRESS.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), line)
    return _BEGINNING.sub(r"\1\\\2", line)


def unbroken(text: str) -> str:
    """Return text that no line end divides."""
    return text.replace(" ", "\u00a0")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """Return a table of Markdown cells; columns after the first ones are aligned right."""
    rules = ["---" if i < text_columns else "---:" for i in range(len(header))]
    lines = (f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))
    return "\n".join(lines)


def code(lines: Iterable[str]) -> str:
    """Return a block of code: its fence is longer than any row of backticks in it."""
    text = "\n".join(printable(part) for line in lines for part in line.splitlines())
    fence = "`" * max(3, 1 + max(map(len, _BACKTICKS.findall(text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"


def bullets(items: Iterable[str]) -> str:
    """Return a list of Markdown items."""
    return "\n".join(f"- {item}" for item in items)

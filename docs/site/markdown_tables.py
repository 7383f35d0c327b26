"""Tables in Markdown, of text that may hold what Markdown reads as its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(text: str) -> str:
    """Return text as a cell that shows it letter by letter, on one line; `code` stays code."""
    parts = " ".join(text.split()).replace("|", r"\|").split("`")
    if len(parts) % 2 == 0:
        return "".join(map(_escaped, parts))
    return "".join(f"`{part}`" if i % 2 else _escaped(part) for i, part in enumerate(parts))


def code(text: str) -> str:
    """Return text as code in a cell."""
    return f"`{text}`".replace("|", r"\|") if text else ""


def _escaped(text: str) -> str:
    for sign in "*_[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("<", "&lt;").replace(">", "&gt;")

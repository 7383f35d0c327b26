"""Numbers and words of a report as its page and its Markdown print them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

MISSING = "–"
UNITS = {"env_steps": "environment steps", "gradient_steps": "gradient steps"}


def fixed(value: float | None, decimals: int) -> str:
    """Return a number with so many decimals, its thousands apart; a dash when there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def plain(value: Any) -> str:
    """Return a value of a run's record as words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {plain(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(part) for part in value)
    return MISSING if value is None else str(value)


def in_words(unit: str) -> str:
    """Return a unit of the document as a reader calls it."""
    for known, words in UNITS.items():
        unit = unit.replace(known, words)
    return unit


def instant(text: str | None) -> str:
    """Return an ISO time as words, to the minute; any other text as it is."""
    try:
        return f"{datetime.fromisoformat(text or ''):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return text or MISSING


def took(begin: str | None, end: str | None) -> str:
    try:
        seconds = (
            datetime.fromisoformat(end or "") - datetime.fromisoformat(begin or "")
        ).total_seconds()
    except (ValueError, TypeError):  # TypeError: one of them names its zone, the other doesn't
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def span(counts: Iterable[int]) -> str:
    found = sorted(set(counts))
    return "–".join(map(str, dict.fromkeys((found[0], found[-1])))) if found else "0"


def of_seeds(seeds: Sequence[int]) -> str:
    """Return the seeds of what is missing, to stand behind its name; nothing for none."""
    word = "seed" if len(seeds) == 1 else "seeds"
    return f" ({word} {', '.join(map(str, seeds))})" if seeds else ""


def many(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")

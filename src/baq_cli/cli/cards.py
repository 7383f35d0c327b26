"""A method's card: what its docstring says of it, in sections.

A docstring begins with what the method is and its paper in parentheses, as `Name (Authors YEAR,
arXiv ID): …`. Then come the sections, each `Heading:` with text behind or below. Lines that are
indented within a section are kept as they are, which is how equations are written; others flow.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from baq_cli.agents.base import Agent

OFFLINE, ONLINE, HAND_OVER, DEPARTURES = "Offline", "Online", "At the hand-over", "Departures"
SECTIONS = {
    "offline": OFFLINE,
    "online": ONLINE,
    "hand_over": HAND_OVER,
    "departures": DEPARTURES,
}
"""Headings, by the name that a section has in JSON."""
_HEADING = re.compile(rf"^({'|'.join(SECTIONS.values())}):[ \t]*", re.MULTILINE)
_PAPER = re.compile(r"\(([^()]*\b\d{4}\b[^()]*)\)")
_ARXIV = re.compile(r",?\s*arXiv\s+(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Card:
    """What a method's docstring says.

    paper: authors and year; arxiv: the paper's id, where it has one.
    sections: text by heading, in the docstring's order.
    """

    summary: str
    paper: str
    arxiv: str | None
    sections: dict[str, str]


def card_of(method: type[Agent]) -> Card:
    """Return a method's card.

    Raises ValueError for a docstring that isn't one, or that lacks a section that the method's
    phases need.
    """
    card = parse_card(method.__doc__ or "")
    missing = [heading for heading in needed_of(method) if not card.sections.get(heading)]
    if missing:
        raise ValueError(f"the docstring of {method.__name__} lacks '{missing[0]}:'")
    return card


def needed_of(method: type[Agent]) -> tuple[str, ...]:
    """Return the headings that a method's docstring must have."""
    offline, online = method.learns_offline, method.learns_online
    asked = {OFFLINE: offline, ONLINE: online, HAND_OVER: offline and online, DEPARTURES: True}
    return tuple(heading for heading in SECTIONS.values() if asked[heading])


def parse_card(docstring: str) -> Card:
    """Read a docstring; raises ValueError for one without a paper, or with a section twice."""
    begin, *rest = _HEADING.split(inspect.cleandoc(docstring))
    paper = _PAPER.search(begin)
    if paper is None:
        raise ValueError("a method's docstring begins 'Name (Authors YEAR, arXiv ID): …'")
    headings = rest[::2]
    if len(set(headings)) != len(headings):
        raise ValueError("a section of a method's docstring stands there twice")
    sections = {
        heading: text.strip("\n").rstrip()
        for heading, text in zip(headings, rest[1::2], strict=True)
    }
    said, arxiv = " ".join(paper[1].split()), _ARXIV.search(paper[1])
    return Card(begin.strip(), _ARXIV.sub("", said), arxiv[1] if arxiv else None, sections)


def blocks(text: str) -> list[str]:
    """Return a section's text as paragraphs in one line each, and runs of indented lines as such.

    A line that is indented belongs to its run with its spaces, less those that the run shares.
    """
    found: list[list[str]] = []
    kind = ""
    for line in text.split("\n"):
        now = "" if not line.strip() else "kept" if line[0] == " " else "prose"
        if now and now == kind:
            found[-1].append(line)
        elif now:
            found.append([line])
        kind = now
    return [_kept(lines) if lines[0][0] == " " else " ".join(lines) for lines in found]


def _kept(lines: list[str]) -> str:
    shared = min(len(line) - len(line.lstrip()) for line in lines)
    return "\n".join(" " * 4 + line[shared:] for line in lines)

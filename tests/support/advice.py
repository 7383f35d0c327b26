"""What the tool's messages tell the user to do, read from its source."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import baq_cli
from support.places import TESTS

SOURCE = Path(baq_cli.__file__).parent
_VERBS = """
    add allow ask build check choose clip continue copy correct cut declare delete divide drop fill
    fix free get give install join keep leave look lower make measure mend move name open pick
    pre-train put raise record register remove rename repeat resume restore run save say see set
    sort split start stop store subtract take try turn unset upgrade use wait write
"""
_TOLD = re.compile(
    rf"(?:^|[.:;,?] |\n|, or | or |, and | and )(?:{'|'.join(_VERBS.split())})\b(?!-| is\b)"
    r"|import (?:it|them|others|the)\b|number each|'baq |'minari |'ray |pip install"
    r"|(?<!^)(?<![\w-])--[a-z]",
    re.IGNORECASE,
)
_DOING = ("disk_errors", "refused", "refusals")
"""What is given a text that says what was being done, for messages of the disk."""
Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True)
class Advice:
    """A message that tells the user to do something; `{}` stands for what it fills in."""

    place: str
    text: str


def follows(*parts: str) -> Callable[[Test], Test]:
    """Mark a test that provokes messages, does what they say, and sees that it helps.

    `parts` are of the messages' source, with `{}` for what is filled in.
    """
    return lambda test: test


def followed() -> list[str]:
    """Return the parts of messages that tests anywhere are marked to follow."""
    trees = [ast.parse(file.read_text()) for file in sorted(TESTS.rglob("*.py"))]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    marks = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == follows.__name__]
    return [ast.literal_eval(part) for mark in marks for part in mark.args]


def given() -> list[Advice]:
    """Return every piece of advice in the source, in order."""
    files = sorted(SOURCE.rglob("*.py"))
    return [advice for file in files for advice in _of_file(file)]


def _of_file(file: Path) -> Iterator[Advice]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    aside = {id(part) for node in ast.walk(tree) for part in _aside(node)}
    for node in ast.walk(tree):
        if id(node) not in aside and isinstance(node, ast.JoinedStr | ast.Constant):
            text = _text(node)
            if " " in text and _TOLD.search(text):
                yield Advice(f"{file.relative_to(SOURCE)}:{node.lineno}", text)


def _aside(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is no message: docstrings, help texts, parts of a text counted whole."""
    if isinstance(node, ast.JoinedStr):
        yield from node.values
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in _DOING:
            yield from ast.walk(node)
        for word in node.keywords:
            if word.arg in ("help", "description"):
                yield from ast.walk(word.value)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
        return "".join(map(str, parts))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@dataclass(frozen=True)
class Terminal:
    """Types commands, in this process; a run's settings are small unless they are given."""

    run: Callable[..., tuple[int, str, str]]

    def done(self, *words: str | Path) -> str:
        """Give a command that must succeed; return all that it wrote."""
        status, out, said = self.run(*words)
        assert status == 0, said
        return out + said

    def told(self, *words: str | Path, status: int = 2) -> str:
        """Give a command that must fail with a status; return its message in one line."""
        found, _, said = self.run(*words)
        assert found == status, said
        return " ".join(said.split())


def quoted(said: str, begins: str) -> list[str]:
    """Return the words, without `baq`, of the command in quotes that begins so in a message."""
    (command,) = re.findall(rf"'({begins}[^']*)'", said)
    return shlex.split(command)[1:]

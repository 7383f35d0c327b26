"""Groups of options: a command line is the same whether options stand in a group or alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from baq_cli.cli import options as opt

Speed = Annotated[int, typer.Option(help="How fast.", min=1)]
Names = Annotated[list[str] | None, typer.Option("--name", help="Whose. Repeatable.")]
Loud = Annotated[bool, typer.Option("--loud", help="Also says it.")]
heard: list[Any] = []


@dataclass(frozen=True)
class Pace:
    """Two of the options."""

    speed: Speed = 3
    names: Names = None


def alone(first: str, speed: Speed = 3, names: Names = None, loud: Loud = False) -> None:
    """Say what was given."""
    heard.append((first, speed, names, loud))


@opt.grouped
def together(first: str, *, pace: Pace, loud: Loud = False) -> None:
    """Say what was given."""
    heard.append((first, pace.speed, pace.names, loud))


def run(command: Any, words: list[str]) -> tuple[int, str, Any]:
    """Return the status of a command, what it said, and what it was given."""
    heard.clear()
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command("move")(command)
    done = CliRunner().invoke(app, words, prog_name="move")
    return done.exit_code, done.output, [*heard]


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["a"],
        ["a", "--speed", "7", "--name", "x", "--name", "y", "--loud"],
        ["--name", "x", "a", "--speed", "2"],
        ["a", "--speed", "0"],
        ["a", "--pace", "1"],
        ["--speed", "2"],
    ],
)
def test_a_command_line_is_as_without_the_group(words: list[str]) -> None:
    assert run(together, words) == run(alone, words)


def test_what_is_given_arrives_in_the_group() -> None:
    assert run(together, ["a", "--speed", "7", "--name", "x"])[2] == [("a", 7, ["x"], False)]

"""The tutorial, run as it stands, from its own text: its files written, its commands in order."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
from pathlib import Path

import pytest

from support.here import run_baq, settle
from support.pages import Command, blocks, commands

PAGE = "docs/tutorial.md"
TRAINED = ("pretrain", "finetune", "eval", "ope", "advise", "compare")
"""Commands whose decimals depend on the machine: on the order of its sums."""
CLOCK = re.compile(r"^\d\d:\d\d:\d\d ")
DECIMAL = re.compile(r"[-−]?\d[\d,]*\.\d+")
REST = "…"
"""What a page writes where a line, or a number, goes on otherwise."""


def run(command: Command) -> str:
    """Run a command of the page; return what it wrote."""
    program, *words = shlex.split(command.text)
    if program == "python":
        with contextlib.redirect_stdout(io.StringIO()) as out:
            runpy.run_path(words[0], run_name="__main__")
        return out.getvalue()
    assert program == "baq"
    status, out, err = run_baq(*words)
    assert status == 0, f"{command.text}\n{err}"
    return f"{err}\n{out}"


def told(line: str, exact: bool) -> str:
    """Return a line without its time and its spaces; decimals stand for each other if inexact."""
    line = " ".join(CLOCK.sub("", line).split())
    return line if exact else DECIMAL.sub("#", line)


def check_shown(command: Command, output: str) -> None:
    """Fail unless the output has the lines that the page shows, in their order."""
    exact = shlex.split(command.text)[1] not in TRAINED
    left = iter([told(line, exact) for line in output.splitlines()])
    for line in command.shown:
        start, rest, _ = told(line, exact).partition(REST)
        end = len(start.strip()) if rest else None
        found = start.strip() in (of[:end] for of in left)
        assert found, f"{command.text}\nno line {line!r} in\n{output}"


def test_the_tutorial_is_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)
    done = []
    for block in blocks(PAGE):
        if block.file_name is not None:
            Path(block.file_name).write_text(block.text)
        for command in commands(block):
            check_shown(command, run(command))
            done.append(command.text.split()[1])
    assert {*TRAINED, "data", "export"} <= set(done)
    assert Path("policy.onnx").stat().st_size > 1000
    assert Path("runs/compare/report.html").stat().st_size > 1000


def test_a_line_that_isnt_there_is_found_out() -> None:
    (block,) = (b for b in blocks(PAGE) if "baq pretrain" in b.text)
    (command,) = commands(block)
    shown = "\n".join(f"12:00:00  {line.replace('193.2', '7.5')}" for line in command.shown)
    check_shown(command, shown.replace(REST, "(at 40 start states)"))
    with pytest.raises(AssertionError, match="no line"):
        check_shown(command, shown.replace("1,000", "900"))

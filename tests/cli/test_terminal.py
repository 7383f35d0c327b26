"""What a file says can't command the terminal that it is shown on."""

from __future__ import annotations

import ast
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import baq_cli
from baq_cli.cli.results import print_json
from baq_cli.cli.screen import Screen
from baq_cli.errors import ExitStatus
from baq_cli.launch.journal import STATE, read_state
from baq_cli.runs.files import json_bytes
from support.logs import written

SOURCE = Path(baq_cli.__file__).parent
EVIL = "\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x1b\\\x1b[2J\x9b2J\x1b[31mFAKE\u202e"
"""Sets the title and the clipboard, clears the screen, colours, and turns text around."""
HEADER = "dataset,algo,seed_index,phase,eval_index,return\n"


def commands_of(shown: str) -> set[str]:
    """Return what in a terminal's input is none of the colours and moves that Rich makes."""
    return {
        part for part in ("\x1b]", "\x1b[2J", "\x1b[31mFAKE", "\x9b", "\u202e") if part in shown
    }


def on_a_terminal(*words: object, folder: Path) -> tuple[int, str]:
    """Run `baq` on a terminal; return its status and all that it sent there."""
    ours, theirs = pty.openpty()
    code = "from baq_cli.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "200"},
        cwd=folder,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65_536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return process.wait(), shown.decode()


def test_names_and_errors_from_a_file_command_no_terminal(tmp_path: Path) -> None:
    names = written(tmp_path / "a.csv", f'{HEADER}"d{EVIL}","a{EVIL}",0,online,0,1.5\n')
    status, shown = on_a_terminal("report", "--curves", names, "--out", "r", folder=tmp_path)
    assert (status, commands_of(shown)) == (0, set())
    assert "FAKE" in shown
    phase = written(tmp_path / "b.csv", f'{HEADER}d,a,0,"x{EVIL}",0,1.5\n')
    words = ("report", "--curves", phase, "--out", "r")
    for more in ((), ("--debug",)):
        status, shown = on_a_terminal(*words, *more, folder=tmp_path)
        assert (status, commands_of(shown)) == (ExitStatus.DATA, set())
        assert "FAKE" in shown


def test_what_rich_shows_is_without_commands_but_its_own() -> None:
    out = io.StringIO()
    screen = Screen(file=out, force_terminal=True, color_system="standard", width=300)
    table = Table("name")
    table.add_row(Text(EVIL, style="bold"))
    screen.print(table)
    screen.print(Text(f"two\nlines {EVIL}", style="bold"))
    screen.print(EVIL, markup=False)
    shown = out.getvalue()
    assert not commands_of(shown)
    assert shown.count("FAKE") >= 2
    assert "\x1b[1m" in shown, "its own"
    assert "two\x1b[0m\n" in shown or "two\n" in shown, "lines stay lines"


def test_what_a_pipe_gets_is_printable_too(
    tmp_path: Path, baq_here: Callable[..., tuple[int, str, str]]
) -> None:
    cell = tmp_path / "cell"
    cell.mkdir()
    (cell / STATE).write_bytes(json_bytes({"stage": "failed", "error": EVIL}))
    assert read_state(cell).error == EVIL
    recipe = written(tmp_path / "r.yaml", 'algo: "iql\\e]52;c;ZXZpbA==\\e[2J"\n')
    status, out, said = baq_here("pretrain", "--recipe", recipe, "--out", tmp_path / "run")
    assert status == ExitStatus.USAGE
    assert "\x1b" not in out + said


def test_json_keeps_every_letter_and_prints_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"name": EVIL + "\x7f\ud83d é"}
    print_json(whole)
    shown = capsys.readouterr().out
    assert json.loads(shown) == whole
    assert shown.isascii()
    assert shown.replace("\n", "").isprintable()


# -- the source

SPEAKING = {"print", "Console", "typer.echo", "typer.secho", "click.echo", "rich.print"}
SPEAKING |= {"traceback.print_exc", "sys.stdout.write", "sys.stderr.write", "Console.print"}
ALLOWED = {
    "print": {
        "cli/say.py",
        "launch/worker.py",  # into its log, made printable
        "bench/d3rlpy_side.py",  # JSON for the process that started it
    },
}


def test_no_module_speaks_to_a_terminal_but_through_what_makes_text_printable() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).as_posix()
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                name = ast.unparse(call.func)
                if name in SPEAKING and place not in ALLOWED.get(name, ()):
                    raise AssertionError(f"{place}, line {call.lineno}: {name}")

"""What is said in lines, on stdout or stderr. Imports nothing heavy."""

from __future__ import annotations

import typer

from baq_cli.report.names import printable_lines


def say(text: object, err: bool = False, nl: bool = True) -> None:
    """Print text; control characters, which could command the terminal, are printed as �."""
    typer.echo(printable_lines(str(text)), err=err, nl=nl)

"""The page of the commands: what each one's --help says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from markdown_tables import code, plain, table

from baq_cli.cli.main import app


def tables() -> str:
    """Return the commands, each with its options."""
    return "\n\n".join(_shown(typer.main.get_command(app), "baq", top=True))


def _shown(command: Any, path: str, top: bool = False) -> Iterator[str]:
    """Give the lines of a command, then those of the commands inside it."""
    context = typer.Context(command, info_name=path)
    inside = getattr(command, "commands", {})
    if not top:
        yield f"## `{path}`" if path.count(" ") == 1 else f"### `{path}`"
        yield plain(command.help or "")
    if not inside:
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"```\n{path} {usage}\n```"
    records = [
        record
        for parameter in command.params
        if not getattr(parameter, "hidden", False) and "--help" not in parameter.opts
        for record in [parameter.get_help_record(context)]
        if record is not None
    ]
    if records:
        yield table(("option", "meaning"), [(code(name), plain(said)) for name, said in records])
    for name, nested in inside.items():
        if not nested.hidden:
            yield from _shown(nested, f"{path} {name}")

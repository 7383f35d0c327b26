"""`baq data import`, `export`, `download`: datasets in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.added import show_added, warn
from baq_cli.cli.log_flags import ActionFlags, ContentFlags, CutFlags, TextFlags
from baq_cli.cli.say import say
from baq_cli.errors import clipped, listed
from baq_cli.units import amount

DatasetId = Annotated[
    str,
    typer.Argument(metavar="ID", help="A dataset id.", autocompletion=completion.dataset),
]


@opt.grouped
def import_dataset(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="A .hdf5 (D4RL, robomimic), .npz, .parquet or .csv file; several, or a folder: "
            "one log; a LeRobot dataset's folder.",
        ),
    ],
    id: Annotated[str, typer.Option(help="The id of the new dataset, as me/task/name-v0.")],
    env: Annotated[
        str | None, typer.Option(help="The environment it was logged in (Gymnasium id).")
    ] = None,
    env_arg: opt.EnvArg = None,
    mapping: Annotated[
        Path | None, typer.Option(help="A YAML that says which columns mean what (docs/data.md).")
    ] = None,
    *,
    actions: ActionFlags,
    content: ContentFlags,
    cut: CutFlags,
    join_files: Annotated[
        bool | None,
        typer.Option(
            "--join-files/--split-files",
            help="Whether an episode goes on in the next file, where files don't say.",
        ),
    ] = None,
    text: TextFlags,
    json: opt.Json = False,
) -> None:
    """Make a Minari dataset of a log: checked first, saved whole or not at all."""
    from baq_cli.data.exchange import import_files
    from baq_cli.data.logs.ends.roles import parse_ends
    from baq_cli.data.logs.layouts import said
    from baq_cli.data.logs.mapping import read_mapping, with_ends

    told = None if mapping is None else read_mapping(mapping)
    mapped = said(told, content.layout, **content.of_mapping(), **text.of_mapping())
    mapped = with_ends(mapped, parse_ends(cut.ends or []))
    setting = actions.setting(opt.environment(env, env_arg), mapped, cut.rules())
    done = import_files(files, id, setting, mapped, join_files)
    episodes = done.episodes
    for note in done.notes:
        say(note, err=True)
    left = done.account.get("columns_not_used", {})
    if left:
        named = listed([f"'{clipped(name)}' ({what})" for name, what in left.items()])
        say(f"not used, though the names look like it: {named}", err=True)
    warn(episodes)
    if done.lost:
        say(
            f"left out: {amount(done.lost, 'transition')}, where a truncated episode ends: the "
            "next observation isn't in the log, or you asked to drop it",
            err=True,
        )
    show_added(
        *(id, episodes, done.notes, json),
        left_out=done.lost,
        ends_from=done.account.get("ends_from", {}),
        columns_not_used=left,
        clipped_actions=None if done.clipped is None else done.clipped.facts,
    )


def export_dataset(
    dataset: DatasetId,
    to: Annotated[str, typer.Option(help="d4rl, npz or parquet.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: the id's last part, here.")
    ] = None,
) -> None:
    """Write a dataset as one file; importing it again gives the same episodes."""
    from baq_cli.data.exchange import SUFFIXES, export_file

    path = out or Path(f"{dataset.rpartition('/')[2]}{SUFFIXES.get(to, '')}")
    export_file(dataset, to, path)
    say(path)


def download_dataset(dataset: DatasetId) -> None:
    """Fetch a public Minari dataset into the Minari folder; one with errors is not kept."""
    from baq_cli.data.minari.download import download

    say(f"downloading {dataset} …", err=True)
    warn(download(dataset))
    say(dataset)

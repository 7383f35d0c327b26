"""`baq data import`, `export`, `download`: datasets in and out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baq_cli.cli import options as opt
from baq_cli.cli.say import say
from baq_cli.errors import UsageError

if TYPE_CHECKING:
    from baq_cli.data.logs.logfile import Setting
    from baq_cli.data.logs.mapping import Mapping

DatasetId = Annotated[str, typer.Argument(metavar="ID", help="A dataset id.")]
Bounds = Annotated[
    str | None,
    typer.Option(help="Action bounds without --env: a number for all, or 0,-1,… for each."),
]


def import_dataset(
    file: Annotated[Path, typer.Argument(help="A .hdf5 (D4RL), .npz, .parquet or .csv file.")],
    id: Annotated[str, typer.Option(help="The id of the new dataset, as me/task/name-v0.")],
    env: Annotated[
        str | None, typer.Option(help="The environment it was logged in (Gymnasium id).")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="A YAML that says which columns mean what (docs/data.md).")
    ] = None,
    action_low: Bounds = None,
    action_high: Bounds = None,
    max_episode_steps: Annotated[
        int | None, typer.Option(help="Without timeouts: episodes end after N steps.", min=1)
    ] = None,
    only_terminations: Annotated[
        bool, typer.Option("--only-terminations", help="Without timeouts: nothing else ends one.")
    ] = False,
    split_gaps: Annotated[
        bool, typer.Option("--split-gaps", help="Begin a new episode where rows are missing.")
    ] = False,
    drop_last_truncated: Annotated[
        bool,
        typer.Option(
            "--drop-last-truncated",
            help="Leave out what D4RL's qlearning_dataset leaves out, for parity.",
        ),
    ] = False,
    json: opt.Json = False,
) -> None:
    """Make a Minari dataset of a log: checked first, saved whole or not at all."""
    from baq_cli.cli.results import print_json
    from baq_cli.data.exchange import import_file
    from baq_cli.data.logs.cutting import CutRules
    from baq_cli.data.logs.mapping import read_mapping

    rules = CutRules(max_episode_steps, only_terminations, split_gaps, drop_last_truncated)
    mapped = None if mapping is None else read_mapping(mapping)
    setting = _setting(env, action_low, action_high, mapped, rules)
    done = import_file(file, id, setting, mapped)
    episodes = done.episodes
    for finding in episodes.findings:
        say(f"warning: {finding.text}", err=True)
    if done.lost:
        say(
            f"{done.lost} transitions were left out: the last ones of truncated episodes, whose "
            "next observation the log doesn't hold or that you asked to drop",
            err=True,
        )
    facts = {
        "dataset": id,
        "episodes": len(episodes.lengths),
        "env_steps": len(episodes),
        "left_out": done.lost,
        "return_mean": float(episodes.returns.mean()),
        "sha256": episodes.content_hash,
        "warnings": [finding.text for finding in episodes.findings],
    }
    if json:
        print_json(facts)
        return
    say(
        f"{id}: {facts['episodes']:,} episodes, {facts['env_steps']:,} steps, "
        f"mean return {facts['return_mean']:.1f}"
    )


def _setting(
    env: str | None, low: str | None, high: str | None, mapping: Mapping | None, rules: Any
) -> Setting:
    """Put flags before what the mapping says."""
    from baq_cli.data.logs.logfile import Setting

    bounds = [_numbers("--action-low", low), _numbers("--action-high", high)]
    if mapping is not None and env is None and bounds == [None, None]:
        env = mapping.env
        bounds = [_listed(mapping.action_low), _listed(mapping.action_high)]
    if (bounds[0] is None) != (bounds[1] is None):
        raise UsageError("actions have two bounds: give --action-low and --action-high")
    if env is not None and bounds[0] is not None:
        raise UsageError(
            f"{env} has action bounds of its own: leave --action-low and --action-high out"
        )
    return Setting(env, bounds[0], bounds[1], rules)


def _listed(bound: float | Sequence[float] | None) -> list[float] | None:
    if bound is None:
        return None
    return [bound] if isinstance(bound, float | int) else list(bound)


def _numbers(name: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{name} {text}: expected a number, or several with commas") from error


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
    """Fetch a public Minari dataset into the Minari folder."""
    from baq_cli.data.minari.place import download

    say(f"downloading {dataset} …", err=True)
    download(dataset)
    say(dataset)

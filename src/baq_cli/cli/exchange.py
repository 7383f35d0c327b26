"""`baq data import`, `export`, `download`: datasets in and out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.added import show_added, warn
from baq_cli.cli.say import say
from baq_cli.errors import UsageError, clipped, listed

if TYPE_CHECKING:
    from baq_cli.data.logs.logfile import Setting
    from baq_cli.data.logs.mapping import Mapping
    from baq_cli.envs.ref import EnvChoice

DatasetId = Annotated[
    str,
    typer.Argument(metavar="ID", help="A dataset id.", autocompletion=completion.dataset),
]
Bounds = Annotated[
    str | None,
    typer.Option(help="Action bounds without --env: a number for all, or 0,-1,… for each."),
]


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
    action_low: Bounds = None,
    action_high: Bounds = None,
    clip_actions: Annotated[
        bool, typer.Option("--clip-actions", help="Move actions beyond their bounds onto them.")
    ] = False,
    reward: Annotated[
        str | None, typer.Option(help="constant:0, or another number, where a log has none.")
    ] = None,
    reward_from: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="A column of success marks to make rewards of."),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="steps, or ogbench (an episode's last row is no step).")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="lerobot or robomimic, where that can't be told by the content."),
    ] = None,
    obs_keys: Annotated[
        str | None,
        typer.Option(help="Of a robot's log: the observations to take, in order, as state,object."),
    ] = None,
    mask: Annotated[
        str | None, typer.Option(help="Of robomimic's: the filter key to take, as train.")
    ] = None,
    max_episode_steps: Annotated[
        int | None, typer.Option(help="Without timeouts: episodes end after N steps.", min=1)
    ] = None,
    only_terminations: Annotated[
        bool, typer.Option("--only-terminations", help="Without timeouts: nothing else ends one.")
    ] = False,
    split_gaps: Annotated[
        bool, typer.Option("--split-gaps", help="Begin a new episode where rows are missing.")
    ] = False,
    ends: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=COLUMN",
            help="What a column says of the ends: terminated=done, last=is_last, unused=success "
            "(docs/data.md). Repeat it for more.",
        ),
    ] = None,
    drop_last_truncated: Annotated[
        bool,
        typer.Option(
            "--drop-last-truncated",
            help="Leave out what D4RL's qlearning_dataset leaves out, for parity.",
        ),
    ] = False,
    join_files: Annotated[
        bool | None,
        typer.Option(
            "--join-files/--split-files",
            help="Whether an episode goes on in the next file, where files don't say.",
        ),
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="What stands between a .csv's cells, where it can't be told.")
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(help="A .csv's decimal mark, . or , where it can't be told.")
    ] = None,
    units_row: Annotated[
        bool, typer.Option("--units-row", help="A .csv's line below the header holds units.")
    ] = False,
    json: opt.Json = False,
) -> None:
    """Make a Minari dataset of a log: checked first, saved whole or not at all."""
    from baq_cli.data.exchange import import_files
    from baq_cli.data.logs.cutting import CutRules
    from baq_cli.data.logs.ends.roles import parse_ends
    from baq_cli.data.logs.layouts import said
    from baq_cli.data.logs.mapping import read_mapping, with_ends

    rules = CutRules(max_episode_steps, only_terminations, split_gaps, drop_last_truncated)
    mapped = said(
        None if mapping is None else read_mapping(mapping),
        layout,
        reward=_reward(reward, reward_from),
        format=format,
        obs_keys=None if obs_keys is None else tuple(obs_keys.split(",")),
        mask=mask,
        delimiter=_delimiter(delimiter),
        decimal=decimal,
        units_row=units_row or None,
    )
    mapped = with_ends(mapped, parse_ends(ends or []))
    choice = opt.environment(env, env_arg)
    setting = _setting(choice, action_low, action_high, mapped, rules, clip_actions)
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
            f"{done.lost} transitions were left out: the last ones of truncated episodes, whose "
            "next observation the log doesn't hold or that you asked to drop",
            err=True,
        )
    show_added(
        *(id, episodes, done.notes, json),
        left_out=done.lost,
        ends_from=done.account.get("ends_from", {}),
        columns_not_used=left,
        clipped_actions=None if done.clipped is None else done.clipped.facts,
    )


def _reward(text: str | None, marks: str | None) -> dict[str, Any] | None:
    """Read `constant:NUMBER`, or the column of success marks that rewards are made of."""
    if text is not None and marks is not None:
        raise UsageError("--reward and --reward-from both say what the reward is: give one of them")
    if marks is not None:
        return {"success": marks}
    if text is None:
        return None
    kind, _, number = text.partition(":")
    try:
        constant = float(number)
    except ValueError:
        constant = math.nan
    if kind != "constant" or not math.isfinite(constant):
        raise UsageError(f"--reward {text}: expected constant:NUMBER, as constant:0")
    return {"constant": constant}


def _delimiter(text: str | None) -> str | None:
    named = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}
    return None if text is None else named.get(text, text)


def _setting(
    choice: EnvChoice,
    low: str | None,
    high: str | None,
    mapping: Mapping | None,
    rules: Any,
    clip_actions: bool,
) -> Setting:
    """Put flags before what the mapping says."""
    from baq_cli.data.logs.logfile import Setting
    from baq_cli.envs.ref import EnvChoice

    env = choice.over(None)
    bounds = [_numbers("--action-low", low), _numbers("--action-high", high)]
    if mapping is not None and env is None and bounds == [None, None]:
        env = EnvChoice(mapping.env, choice.args).over(None)
        bounds = [_listed(mapping.action_low), _listed(mapping.action_high)]
    if env is None and choice.args:
        raise UsageError("--env-arg is of an environment: name it with --env ID")
    if (bounds[0] is None) != (bounds[1] is None):
        raise UsageError("actions have two bounds: give --action-low and --action-high")
    if env is not None and bounds[0] is not None:
        raise UsageError(
            f"{env} has action bounds of its own: leave --action-low and --action-high (in a "
            "mapping action_low and action_high) out"
        )
    return Setting(env, bounds[0], bounds[1], rules, clip_actions)


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
    """Fetch a public Minari dataset into the Minari folder; one with errors is not kept."""
    from baq_cli.data.minari.download import download

    say(f"downloading {dataset} …", err=True)
    warn(download(dataset))
    say(dataset)

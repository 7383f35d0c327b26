"""What is said of a log that is imported, as groups of flags."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baq_cli.errors import UsageError

if TYPE_CHECKING:
    from baq_cli.data.logs.cutting import CutRules
    from baq_cli.data.logs.logfile import Setting
    from baq_cli.data.logs.mapping import Mapping
    from baq_cli.envs.ref import EnvChoice

Bounds = Annotated[
    str | None,
    typer.Option(help="Action bounds without --env: a number for all, or 0,-1,… for each."),
]
DELIMITERS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}
"""What a user may call them."""


@dataclass(frozen=True)
class ActionFlags:
    """Where actions lie."""

    action_low: Bounds = None
    action_high: Bounds = None
    clip_actions: Annotated[
        bool, typer.Option("--clip-actions", help="Move actions beyond their bounds onto them.")
    ] = False

    def setting(self, choice: EnvChoice, mapping: Mapping | None, rules: CutRules) -> Setting:
        """Put flags before what the mapping says."""
        from baq_cli.data.logs.logfile import Setting
        from baq_cli.envs.ref import EnvChoice

        env = choice.over(None)
        bounds = [
            _numbers("--action-low", self.action_low),
            _numbers("--action-high", self.action_high),
        ]
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
        return Setting(env, bounds[0], bounds[1], rules, self.clip_actions)


@dataclass(frozen=True)
class ContentFlags:
    """What a log holds where it doesn't say so itself."""

    reward: Annotated[
        str | None, typer.Option(help="constant:0, or another number, where a log has none.")
    ] = None
    reward_from: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="A column of success marks to make rewards of."),
    ] = None
    layout: Annotated[
        str | None, typer.Option(help="steps, or ogbench (an episode's last row is no step).")
    ] = None
    format: Annotated[
        str | None,
        typer.Option(help="lerobot or robomimic, where that can't be told by the content."),
    ] = None
    obs_keys: Annotated[
        str | None,
        typer.Option(help="Of a robot's log: the observations to take, in order, as state,object."),
    ] = None
    mask: Annotated[
        str | None, typer.Option(help="Of robomimic's: the filter key to take, as train.")
    ] = None

    def of_mapping(self) -> dict[str, Any]:
        """Return those of the flags that a mapping's keys are."""
        obs_keys = None if self.obs_keys is None else tuple(self.obs_keys.split(","))
        own = {"format": self.format, "obs_keys": obs_keys, "mask": self.mask}
        return {"reward": _reward(self.reward, self.reward_from)} | own


@dataclass(frozen=True)
class CutFlags:
    """Where episodes end."""

    max_episode_steps: Annotated[
        int | None, typer.Option(help="Without timeouts: episodes end after N steps.", min=1)
    ] = None
    only_terminations: Annotated[
        bool, typer.Option("--only-terminations", help="Without timeouts: nothing else ends one.")
    ] = False
    split_gaps: Annotated[
        bool, typer.Option("--split-gaps", help="Begin a new episode where rows are missing.")
    ] = False
    ends: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=COLUMN",
            help="What a column says of the ends: terminated=done, last=is_last, unused=success "
            "(docs/data.md). Repeat it for more.",
        ),
    ] = None
    drop_last_truncated: Annotated[
        bool,
        typer.Option(
            "--drop-last-truncated",
            help="Leave out what D4RL's qlearning_dataset leaves out, for parity.",
        ),
    ] = False

    def rules(self) -> CutRules:
        """Return what decides where the file leaves it open."""
        from baq_cli.data.logs.cutting import CutRules

        gaps, last = self.split_gaps, self.drop_last_truncated
        return CutRules(self.max_episode_steps, self.only_terminations, gaps, last)


@dataclass(frozen=True)
class TextFlags:
    """How a table is written as text."""

    delimiter: Annotated[
        str | None, typer.Option(help="What stands between a .csv's cells, where it can't be told.")
    ] = None
    decimal: Annotated[
        str | None, typer.Option(help="A .csv's decimal mark, . or , where it can't be told.")
    ] = None
    units_row: Annotated[
        bool, typer.Option("--units-row", help="A .csv's line below the header holds units.")
    ] = False

    def of_mapping(self) -> dict[str, Any]:
        """Return those of the flags that a mapping's keys are: all."""
        named = self.delimiter and DELIMITERS.get(self.delimiter, self.delimiter)
        own = {"decimal": self.decimal, "units_row": self.units_row or None}
        return {"delimiter": named} | own


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

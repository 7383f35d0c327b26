"""What follows of a regime: what to hold on to, which methods do, and by which commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baq_cli.advice.anchors import (
    Anchors,
    Settings,
    Stance,
    anchors_of,
    can_go_on,
    configured,
    with_data,
    without_data,
)
from baq_cli.advice.regimes import Comparison, Regime
from baq_cli.agents.base import CONSTRAINTS, Agent
from baq_cli.agents.registry import METHODS
from baq_cli.engine.checkpoints.continuing import carried
from baq_cli.engine.checkpoints.document import BEHAVIOR
from baq_cli.envs.ref import EnvRef
from baq_cli.surroundings import in_shell

STANCES: dict[Regime | None, Stance] = {
    "superior": "policy",
    "comparable": "both",
    "inferior": "data",
    None: "both",
}
"""What a fine-tuning should hold on to. Where it is too close to tell: the middle, which is next to
either."""


@dataclass(frozen=True)
class Option:
    """A fine-tuning that has the stance that is wanted.

    settings: keys of the method's section that give it; empty where it has it already.
    command: what starts it, as a shell takes it. scratch: whether it leaves the checkpoint.
    """

    method: str
    title: str
    scratch: bool
    settings: Settings
    anchors: Anchors
    command: str

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self) | {"anchors": asdict(self.anchors) | {"stance": self.anchors.stance}}


@dataclass(frozen=True)
class Continued:
    """What is fine-tuned: a checkpoint with its document, beside a dataset, in an environment.

    same_dataset, same_env: whether the checkpoint itself names them. env: None where nobody does.
    """

    checkpoint: Path
    document: Mapping[str, Any]
    dataset: str
    same_dataset: bool
    env: EnvRef | None
    same_env: bool

    @property
    def algo(self) -> str:
        """The checkpoint's method."""
        return str(self.document["algo"])

    def section(self, method: str) -> dict[str, Any]:
        """Return what a method's section of the recipe would have of the checkpoint's."""
        own = self.document["recipe"][self.algo]
        return dict(own) if method == self.algo else carried(method, own)

    def command(self, method: str, settings: Settings) -> str:
        """Return the command that goes on from the checkpoint by a method."""
        words = ["baq", "finetune", "--checkpoint", str(self.checkpoint)]
        words += [] if method == self.algo else ["--algo", method]
        words += [] if self.same_dataset else ["--dataset", self.dataset]
        words += [] if self.same_env else self._env()
        return self._shell(words, method, settings)

    def from_scratch(self, method: str) -> str:
        """Return the command that begins anew beside the data."""
        words = ["baq", "finetune", "--algo", method, "--dataset", self.dataset, *self._env()]
        return self._shell(words, method, {})

    def _env(self) -> list[str]:
        return ["--env", "ID"] if self.env is None else shlex.split(self.env.flags())

    def _shell(self, words: list[str], method: str, settings: Settings) -> str:
        out = ["--out", str(Path("runs") / f"{method}-online")]
        return in_shell([*words, *out, *(f"{method}.{k}={v:g}" for k, v in settings.items())])


def follow(found: Comparison, continued: Continued, little_to_lose: bool) -> dict[str, Any]:
    """Return what follows of a comparison: the stance, what of the dataset, and the options."""
    stance = STANCES[found.regime]
    return {
        "stability": stance,
        "dataset_in_batches": stance != "policy",
        "because": [*_because(found), *(_LITTLE if little_to_lose else ())],
        "options": [option.facts() for option in options(stance, continued, little_to_lose)],
    }


def options(stance: Stance, continued: Continued, little_to_lose: bool = False) -> list[Option]:
    """Return the fine-tunings of a stance, the checkpoint's own method first.

    Then come those that have an offline phase themselves; of these those that need no setting; of
    these, where the policy is held on to, those with the longest warm-up. Where the data are, from
    scratch beside them goes before all, and behind it the loosest constraint first: there the
    policy may move. With little to lose, every start from scratch goes before all.
    """
    scratch = list(_scratch(continued))
    if not little_to_lose:
        scratch = [option for option in scratch if option.anchors.stance == stance]

    def rank(option: Option) -> tuple[int, bool, bool, bool, int]:
        loose = CONSTRAINTS.index(option.anchors.constraint) if stance == "data" else 0
        held = option.anchors.warmup_env_steps if stance == "policy" else 0
        made_for_it = METHODS[option.method].learns_offline
        another = option.method != continued.algo
        return -loose, another, not made_for_it, bool(option.settings), -held

    return [*scratch, *sorted(_continuing(stance, continued), key=rank)]


def _continuing(stance: Stance, continued: Continued) -> Iterator[Option]:
    held: Callable[[type[Agent], Mapping[str, Any]], Settings | None]
    held = without_data if stance == "policy" else with_data
    if continued.document.get("kind") == BEHAVIOR:
        return
    for name in can_go_on(continued.algo):
        method, section = METHODS[name], continued.section(name)
        settings = held(method, section)
        if settings is not None:
            anchors = anchors_of(method, configured(name, {**section, **settings}))
            command = continued.command(name, settings)
            yield Option(name, method.title, False, settings, anchors, command)


def _scratch(continued: Continued) -> Iterator[Option]:
    for name, method in METHODS.items():
        if not method.learns_offline:
            command = continued.from_scratch(name)
            anchors = anchors_of(method, scratch=True)
            yield Option(name, method.title, True, {}, anchors, command)


# -- in words

_BECAUSE: dict[Regime, tuple[str, ...]] = {
    "superior": (
        "The policy is worth more than its data: fine-tuning should stay close to the policy.",
        "The dataset isn't needed in the batches, where it pulls back towards worse behaviour. The "
        "policy is held by its own experience from before the first update (a warm-up), and by the "
        "constraint that it was trained with.",
    ),
    "comparable": (
        "Policy and data are worth the same: fine-tuning should stay close to both.",
        "The dataset belongs in the batches, and the policy's constraint or warm-up with it.",
    ),
    "inferior": (
        "The data are worth more than the policy: fine-tuning should stay close to the data, and "
        "may let go of the policy.",
        "The dataset belongs in every batch. A start from scratch beside it was better than replay "
        "alone in 13 of the authors' 23 cases like this.",
    ),
}
_UNTOLD = (
    "Until more episodes tell, the middle way is next to either: the dataset in the batches, and "
    "the policy's constraint or warm-up with it.",
)
_LITTLE = (
    "Policy and data are both near what random actions reach: there is little to lose, and a start "
    "from scratch is a fair rival to all of this.",
)


def _because(found: Comparison) -> tuple[str, ...]:
    return _UNTOLD if found.regime is None else _BECAUSE[found.regime]

"""Somebody asked before every step of one seed's episodes, and who acts by what they want."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from baq_cli.engine.phases.hands.module import HandFault
from baq_cli.hand import Decision, Hand, Moment
from baq_cli.recipes.intervention import InterventionConfig
from baq_cli.runs.events import Acting, Observer

Array = npt.NDArray[Any]


@dataclass
class Asked:
    """A hand, and the step of the episode that it is asked about."""

    hand: Hand
    config: InterventionConfig
    episode: int = -1
    step: int = 0

    def ask(self, own: Array, obs: Array, episode: int, asked_for: str = "") -> Decision | str:
        """Return what they want of the step that comes, or by whom the run is stopped.

        The policy would do `own [action_dim]` at raw `obs [obs_dim]`; `asked_for` is why a limit
        wants somebody to take over.
        """
        if episode != self.episode:
            self.episode, self.step = episode, 0
        try:
            wanted = self.hand.decide(Moment(obs, own, episode, self.step, asked_for))
        except HandFault as fault:
            return str(fault)
        if not wanted.stop:
            return wanted
        return f"the {self.config.by}" if self.config.is_person else self.config.by


class WhoActs:
    """Says who acts, whenever that changes."""

    def __init__(self, config: InterventionConfig, observer: Observer):
        self._config, self._observer = config, observer
        self._said = ""

    def say(self, decisions: Sequence[Decision], asked_for: str = "") -> None:
        """Say who acts by the decisions of a step, of which one that is `pause` is given alone."""
        text = who_acts(self._config, decisions, asked_for)
        if text != self._said:
            self._said = text
            self._observer(Acting(text, self._config.is_person))


def who_acts(config: InterventionConfig, decisions: Sequence[Decision], asked_for: str = "") -> str:
    """Return in a line who acts by decisions of a step; `asked_for` is why a limit wants somebody.

    One that is `pause` is given alone.
    """
    if decisions[0].pause:
        return "paused: nothing moves"
    count = sum(decision.action is not None for decision in decisions)
    if count:
        of = "" if len(decisions) == 1 else f" for {count} of {len(decisions)} seeds"
        return f"{'you act' if config.is_person else f'{config.by} acts'}{of}"
    return f"somebody is asked to take over: {asked_for}" if asked_for else "the policy acts"

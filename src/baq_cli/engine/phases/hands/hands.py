"""Those who may act in the policy's place, asked before every step: one for each seed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.phases.hands.asked import Asked, WhoActs
from baq_cli.engine.phases.hands.gamepad import LEGEND, gamepad
from baq_cli.engine.phases.hands.keyboard import keyboard, legend
from baq_cli.engine.phases.hands.module import module_class
from baq_cli.engine.phases.origin import Origin
from baq_cli.errors import UsageError
from baq_cli.hand import SUCCESS, UNMARKED, Decision, OpenHand, Setting
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.intervention import PERSON_HZ, InterventionConfig, KeysConfig
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.interrupt import Interruption

if TYPE_CHECKING:
    from baq_cli.engine.phases.run import Run

Array = npt.NDArray[Any]
ASK_SECONDS = 0.05
"""Between two questions during a pause."""


@dataclass(frozen=True)
class SomebodyAtHand:
    """Who may act in the policy's place, found but not opened: one for each seed of a run."""

    opens: OpenHand
    config: InterventionConfig
    settings: tuple[Setting, ...]

    @classmethod
    def find(
        cls, recipe: Recipe, origin: Origin, named: str | None, observer: Observer
    ) -> SomebodyAtHand:
        """Look for the device or class that a recipe has take over.

        `named` is what the command line itself says of it.
        Raises UsageError where it is not there, or can't serve so many seeds.
        """
        config, seeds = recipe.run.intervention, recipe.run.seeds
        assert config is not None
        spaces = origin.spaces
        if config.is_person and len(seeds) > 1:
            raise UsageError(
                f"somebody at a {config.kind} watches one robot, and there are {len(seeds)} seeds: "
                "run one (--seeds 1)"
            )
        settings = [Setting(origin.acts_in, s, spaces.obs_dim, spaces.action_dim) for s in seeds]
        if config.kind == "keyboard":
            keys = config.keys or KeysConfig()
            opens, said = keyboard(keys, spaces.action_dim), legend(keys, spaces.action_dim)
        elif config.kind == "gamepad":
            opens, said = gamepad(spaces.action_dim), LEGEND
        else:
            opens, said = module_class(config.by, named), f"may take over: {config.by}"
        observer(Note(said))
        return cls(opens, config, tuple(settings))

    def streams(self, seeds: Sequence[int]) -> dict[str, SeedStream]:
        """Return no streams: they don't act by chance of the run's."""
        return {}

    def begin(self, run: Run) -> Hands:
        """Return them in a run; devices are opened before the first step."""
        return Hands(self, run.observer, run.interruption)


class Hands:
    """Somebody for each seed, asked before every step what they want of it.

    `taken [S]` says whose action the last one chosen was, `marks [S]` what was said of its episode
    (1 success, −1 failure). What they want is no part of a checkpoint: after a resume the policy
    acts until somebody takes over. With `paced`, a person's steps come no faster than the recipe
    says; another clock may see to that. `waited_seconds` is for how long the last step waited for
    that, and in a pause.
    """

    def __init__(
        self,
        somebody: SomebodyAtHand,
        observer: Observer,
        interruption: Interruption,
        paced: bool = True,
    ):
        self._somebody, self._config = somebody, somebody.config
        self._interruption = interruption
        self._paced = paced and self._config.is_person
        count = len(somebody.settings)
        self._asked: list[Asked] = []
        self._at = [(-1, 0)] * count
        self.taken, self._cut = (np.zeros(count, dtype=np.bool_) for _ in range(2))
        self.marks = np.zeros(count, dtype=np.int64)
        self._who_acts, self._acted = WhoActs(self._config, observer), -np.inf
        self.waited_seconds = 0.0

    def choose(
        self, own: Array, obs: Array, episode: Array, asked_for: Sequence[str | None] = ()
    ) -> Array | None:
        """Return what is done in place of the policy's `own` actions, `[S, action_dim]`.

        `obs [S, obs_dim]` is raw, and `episode [S]` the number of the episode that each seed is in.
        `asked_for` says why a limit wants somebody to take over, seed by seed, where it does. None:
        nothing is to be done any more, for the run is to stop.
        """
        if not self._asked:
            opened = map(self._somebody.opens, self._somebody.settings)
            self._asked = [
                Asked(hand, self._config, *at) for hand, at in zip(opened, self._at, strict=True)
            ]
        decisions, self.waited_seconds = [], 0.0
        for i, asked in enumerate(self._asked):
            why = (asked_for[i] or "") if asked_for else ""
            decision = self._wanted(asked, own[i].copy(), obs[i].copy(), int(episode[i]), why)
            if decision is None:
                return None
            decisions.append(decision)
        reasons = [
            why for why, one in zip(asked_for, decisions, strict=False) if one.action is None
        ]
        return self._settle(decisions, own, next(filter(None, reasons), ""))

    def _wanted(
        self, asked: Asked, own: Array, obs: Array, episode: int, asked_for: str
    ) -> Decision | None:
        """Return what somebody wants once they don't pause; None when the run is to stop."""
        paused = waited = 0.0
        while True:
            wanted = asked.ask(own, obs, episode, asked_for)
            if isinstance(wanted, str):
                self._interruption.requested = self._interruption.requested or wanted
                return None
            if not wanted.pause:
                self.waited_seconds += waited
                return wanted
            paused = paused or time.monotonic()
            if self._interruption.requested:
                return None
            self._who_acts.say([wanted])
            time.sleep(ASK_SECONDS)
            waited = time.monotonic() - paused

    def _settle(self, decisions: list[Decision], own: Array, asked_for: str) -> Array:
        self.taken = np.array([decision.action is not None for decision in decisions])
        self.marks = np.array([decision.mark for decision in decisions], dtype=np.int64)
        self._cut = np.array([decision.end for decision in decisions])
        self._who_acts.say(decisions, asked_for)
        if self._paced and self.taken.any():
            self._wait_for_a_person()
        theirs = [
            mine if decision.action is None else decision.action
            for decision, mine in zip(decisions, own, strict=True)
        ]
        return np.stack(theirs).astype(np.float32)

    def _wait_for_a_person(self) -> None:
        """Let no two steps of theirs come faster than the recipe says."""
        seconds = 1 / (self._config.hz or PERSON_HZ)
        began = time.monotonic()
        time.sleep(max(0.0, self._acted + seconds - began))
        self._acted = time.monotonic()
        self.waited_seconds += self._acted - began

    def judged(
        self, reward: Array, terminated: Array, truncated: Array
    ) -> tuple[Array, Array, Array]:
        """Return what a step led to, `[S]` each, once what was said of its episodes counts."""
        added = (self.marks == SUCCESS) * (self._config.success_reward or 0.0)
        return reward + added, terminated | (self.marks != UNMARKED), truncated | self._cut

    def done(self) -> None:
        """Go on to the step after the one that was chosen."""
        for asked in self._asked:
            asked.step += 1

    def close(self) -> None:
        """Let go of the devices."""
        while self._asked:
            self._asked.pop().hand.close()

    # -- checkpoints

    def state(self) -> dict[str, Any]:
        """Return nothing: a person can't be repeated."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing either."""
        return {}

    def restore(self, saved: ckpt.Checkpoint) -> None:
        """Go on in the middle of the episodes of a checkpoint."""
        steps = [len(running["rewards"]) for running in saved.state["running"]]
        self._at = list(zip(saved.state["episodes"], steps, strict=True))

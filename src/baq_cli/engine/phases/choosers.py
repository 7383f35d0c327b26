"""Who acts in the policy's place in the process that acts; see `engine/robot/chooser.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.engine.checkpoints.intervention_state import STREAM
from baq_cli.engine.phases.hands.asked import Asked, WhoActs
from baq_cli.engine.phases.hands.hands import SomebodyAtHand
from baq_cli.engine.phases.in_place import Somebody
from baq_cli.engine.phases.intervention import Intervention, TakeOver
from baq_cli.engine.phases.origin import Origin
from baq_cli.engine.robot.chooser import Choice, MakeChooser, Policy
from baq_cli.hand import SUCCESS
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Observer
from baq_cli.runs.transitions import POLICY, SOMEBODY

Array = npt.NDArray[Any]


def chooser_of(recipe: Recipe, origin: Origin, other: Somebody | None) -> MakeChooser:
    """Return what makes who acts by a recipe, in the process that acts."""
    if recipe.run.takes_over is None:
        return Policy
    if isinstance(other, SomebodyAtHand):
        return partial(ByHand, other)
    return partial(ByRule, recipe, origin)


class ByHand:
    """Somebody at a device, or an object of the user's, asked before every step; see `Hand`."""

    def __init__(self, somebody: SomebodyAtHand, env_step: int, observer: Observer):
        self._config = somebody.config
        self._asked = Asked(somebody.opens(somebody.settings[0]), somebody.config)
        self._who_acts = WhoActs(somebody.config, observer)

    def choose(self, own: Array, obs: Array, episode: int, hand_over: str | None = None) -> Choice:
        """Return what they want of the step."""
        wanted = self._asked.ask(own, obs, episode, hand_over or "")
        if isinstance(wanted, str):
            return Choice(own, stop=wanted)
        self._who_acts.say([wanted], hand_over or "")
        if wanted.pause:
            return Choice(own, pause=True)
        theirs = wanted.action is not None
        reward = self._config.success_reward or 0.0
        return Choice(
            own if wanted.action is None else wanted.action,
            SOMEBODY if theirs else POLICY,
            *(wanted.mark, wanted.end, reward if wanted.mark == SUCCESS else 0.0),
        )

    def done(self) -> None:
        """Go on to the step after the one that was chosen."""
        self._asked.step += 1

    def close(self) -> None:
        """Let go of the device."""
        self._asked.hand.close()


class ByRule:
    """Another policy that takes over as a recipe says, by chance; see `Intervention`."""

    def __init__(self, recipe: Recipe, origin: Origin, env_step: int, observer: Observer):
        rule, seeds = recipe.run.takes_over, recipe.run.seeds
        assert rule is not None
        other = TakeOver.read(rule.policy_path, seeds, origin)
        stream = SeedStream(seeds, f"{STREAM}/online/{env_step}", "cpu")
        self._intervention = Intervention(rule, other, stream)

    def choose(self, own: Array, obs: Array, episode: int, hand_over: str | None = None) -> Choice:
        """Return the other's action where it has taken over."""
        moment = own[None], obs[None], np.array([episode]), [hand_over]
        chosen = self._intervention.choose(*moment)
        taken = bool(self._intervention.taken[0])
        return Choice(chosen[0], SOMEBODY if taken else POLICY)

    def done(self) -> None:
        """Go on to the step after the one that was chosen."""
        self._intervention.done()

    def close(self) -> None:
        """Let go of nothing."""

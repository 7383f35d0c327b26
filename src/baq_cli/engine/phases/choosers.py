"""Who acts in the policy's place in the process that acts; see `engine/robot/chooser.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.engine.checkpoints.intervention_state import STREAM
from baq_cli.engine.phases.intervention import Intervention, TakeOver
from baq_cli.engine.phases.origin import Origin
from baq_cli.engine.robot.chooser import Choice, MakeChooser, Policy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Observer
from baq_cli.runs.transitions import POLICY, SOMEBODY

Array = npt.NDArray[Any]


def chooser_of(recipe: Recipe, origin: Origin) -> MakeChooser:
    """Return what makes who acts by a recipe, in the process that acts."""
    if recipe.run.intervention is None:
        return Policy
    return partial(ByRule, recipe, origin)


class ByRule:
    """Another policy that takes over as a recipe says, by chance; see `Intervention`."""

    def __init__(self, recipe: Recipe, origin: Origin, env_step: int, observer: Observer):
        rule, seeds = recipe.run.intervention, recipe.run.seeds
        assert rule is not None
        other = TakeOver.read(rule.policy_path, seeds, origin)
        stream = SeedStream(seeds, f"{STREAM}/online/{env_step}", "cpu")
        self._intervention = Intervention(rule, other, stream)

    def choose(self, own: Array, obs: Array, episode: int) -> Choice:
        """Return the other's action where it has taken over."""
        chosen = self._intervention.choose(own[None], obs[None], np.array([episode]))
        taken = bool(self._intervention.taken[0])
        return Choice(chosen[0], SOMEBODY if taken else POLICY)

    def done(self) -> None:
        """Go on to the step after the one that was chosen."""
        self._intervention.done()

    def close(self) -> None:
        """Let go of nothing."""

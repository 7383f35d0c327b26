"""What was not the policy's doing in an online phase, counted by seed."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from baq_cli.engine.phases.limits import LimitsActed
from baq_cli.engine.phases.shadow import Agreement
from baq_cli.engine.phases.taken import TakenOver
from baq_cli.envs.safety import Rules
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.log import Row
from baq_cli.units import Phase

Array = npt.NDArray[Any]


class Counts:
    """Of each seed's env_steps, those that somebody else, or a limit, decided on.

    With a shadow also how near the policy's proposals were to what was done.
    """

    def __init__(self, recipe: Recipe, phase: Phase, rules: Rules | None):
        seeds, online = recipe.run.seeds, phase == "online"
        self.taken = TakenOver(seeds)
        self.limited = LimitsActed(seeds, rules if online else None)
        has_shadow = online and recipe.run.shadow is not None
        self.agreement = Agreement(seeds) if has_shadow else None
        self._all: list[TakenOver | LimitsActed | Agreement] = [self.taken, self.limited]
        self._all += [] if self.agreement is None else [self.agreement]

    def add(
        self,
        taken: Array,
        marks: Array | None,
        proposed: Array | None,
        done: Array,
        limits: Array,
    ) -> None:
        """Count a step of each seed: `[S]` whether it was taken over, and how it was marked.

        What was proposed and done, `[S, action_dim]`, is in [−1, 1]; where what was proposed isn't
        known any more, after a failure, nothing is compared. `limits [S]` uint8 are the limits that
        acted, as `StepRecord` has them.
        """
        self.taken.add(taken, marks)
        self.limited.add(limits)
        if self.agreement is not None and proposed is not None:
            self.agreement.add(proposed, done)

    def rows(self) -> list[Row]:
        """Return rows for `diagnostics.csv`, `seed`, `name` and `value`."""
        return [row for count in self._all for row in count.rows()]

    def facts(self, env_steps: int) -> dict[str, Any]:
        """Return what a run's manifest says of so many env_steps a seed."""
        return {key: v for count in self._all for key, v in count.facts(env_steps).items()}

    def state(self) -> dict[str, Any]:
        """Return the counts, for a checkpoint."""
        return {key: value for count in self._all for key, value in count.state().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state()` returned."""
        for count in self._all:
            count.restore(state)

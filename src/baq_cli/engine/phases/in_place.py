"""Who may act in the policy's place online, whoever it is: what the loop asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt
from torch import Tensor

from baq_cli.engine.checkpoints.folder import Checkpoint
from baq_cli.engine.phases.hands.hands import SomebodyAtHand
from baq_cli.engine.phases.intervention import TakeOver
from baq_cli.engine.phases.origin import Origin
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer

if TYPE_CHECKING:
    from baq_cli.engine.phases.run import Run

Array = npt.NDArray[Any]


class InPlace(Protocol):
    """Somebody in a run, asked before every step; see `Intervention` and `Hands`.

    `waited_seconds` is for how long they had the last step wait, on purpose.
    """

    taken: Array
    marks: Array
    waited_seconds: float

    def choose(
        self, own: Array, obs: Array, episode: Array, asked_for: Sequence[str | None] = ()
    ) -> Array | None:
        """Return what is done in place of the policy's actions; None when the run is to stop."""

    def judged(
        self, reward: Array, terminated: Array, truncated: Array
    ) -> tuple[Array, Array, Array]:
        """Return what a step led to, `[S]` each, once what was said of its episodes counts."""

    def done(self) -> None:
        """Go on to the step after the one that was chosen."""

    def close(self) -> None:
        """Let go of devices."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint's state keeps."""

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint's tensors keep."""

    def restore(self, saved: Checkpoint) -> None:
        """Go on from what they returned."""


class Somebody(Protocol):
    """Who may act in a run that is about to begin."""

    def streams(self, seeds: Sequence[int]) -> dict[str, SeedStream]:
        """Return the random streams that they act by, by name."""

    def begin(self, run: Run) -> InPlace:
        """Return them in a run."""


def who_takes_over(
    recipe: Recipe, origin: Origin, named: str | None, observer: Observer
) -> Somebody | None:
    """Return who may act in the policy's place, where the recipe says that somebody may.

    `named` is what the command line itself says of it: a class is imported because of that alone.
    Raises DataError, EnvironmentMismatch and UsageError where they are not there, or don't fit.
    """
    config, shadow = recipe.run.takes_over, recipe.run.shadow
    if config is None:
        return None
    if config.kind != "policy":
        return SomebodyAtHand.find(recipe, origin, named, observer)
    other = TakeOver.read(config.policy_path, recipe.run.seeds, origin)
    how = "takes over now and then" if shadow is None else "acts at every step, this one proposes"
    observer(Note(f"{how}: {other.about}"))
    return other

"""What a policy is worth while it is trained on a dataset alone: an estimate at each evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints.expected import ESTIMATE, check_shapes, damaged, shape_of
from baq_cli.engine.estimation.estimate import discount_of, discounted_returns
from baq_cli.engine.estimation.fitted_q import FittedQ
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.recipes.schema import Recipe
from baq_cli.units import amount

Array = npt.NDArray[Any]


class RunningEstimate:
    """Estimate the policy of a run at its evaluations, where no episode can be played.

    One fitted Q evaluation follows the policy through its training: at each evaluation it takes
    the recipe's `evaluation.estimate_updates` from where it was, so the first estimates lean on
    the behaviour's own returns. Its batches and noise are drawn from streams of its own: what is
    learned is the same with it and without.
    """

    in_background = False

    def __init__(self, recipe: Recipe, agent: Agent, episodes: Episodes, inputs: Inputs):
        discount, own = discount_of(agent), discounted_returns(episodes, discount_of(agent))
        self._agent, self._updates = agent, recipe.run.evaluation.estimate_updates
        self._fitted = FittedQ(
            *(agent.spec, episodes, inputs, discount),
            chunk=agent.chunk,
            capture=recipe.run.capture,
        )
        self._facts = {
            "discount": discount,
            "updates": self._updates,
            "behavior_mean": float(own.mean()),
            "behavior_std": float(own.std()),
        }
        self.idle = True

    def __str__(self) -> str:
        return (
            f"without an environment: {amount(self._updates, 'update')} of fitted Q evaluation "
            "at each evaluation estimate what the policies are worth"
        )

    def facts(self) -> dict[str, float]:
        """Return what a manifest says of it, and the data's own discounted returns."""
        return self._facts

    def begin(self, acting: dict[str, Tensor], number: str) -> None:
        """Take what is to be estimated: the agent as it is, which doesn't change meanwhile."""
        self.idle = False

    def end(self, stop: Callable[[], bool]) -> tuple[Array, None]:
        """Return what the policy is worth at each episode's first state, `[S, K]`, and no lengths.

        Discounted raw returns; whoever asks to stop waits for the updates.
        """
        self._fitted.fit(self._agent.act, self._updates)
        self.idle = True
        return self._fitted.values(), None

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps of it."""
        return {f"{ESTIMATE}{name}": tensor for name, tensor in self._fitted.state().items()}

    def restore(self, tensors: dict[str, Tensor], folder: Path) -> None:
        """Go on from what `tensors` returned; others are passed over.

        Raises DataError where they can't be what was saved in a checkpoint's folder.
        """
        kept = {n.removeprefix(ESTIMATE): t for n, t in tensors.items() if n.startswith(ESTIMATE)}
        expected = {name: shape_of(tensor) for name, tensor in self._fitted.state().items()}
        check_shapes({name: shape_of(tensor) for name, tensor in kept.items()}, expected, folder)
        try:
            self._fitted.restore(kept)
        except RuntimeError as error:
            raise damaged(folder, f"its estimate can't go on: {error}") from error

    def close(self) -> None:
        """Let go of nothing: it holds no process."""

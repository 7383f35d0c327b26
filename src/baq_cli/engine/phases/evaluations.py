"""A phase's evaluations: made here or in a process beside, and kept when a run is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.engine.evaluation.background import (
    BackgroundEvaluator,
    Setting,
    SnapshotEvaluator,
    acting_tensors,
    evaluates_in_background,
)
from baq_cli.engine.evaluation.evaluator import NotFinite
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.phases.faults import Faults
from baq_cli.engine.phases.origin import Origin
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Observer
from baq_cli.runs.log import Row
from baq_cli.units import Phase

Array = npt.NDArray[Any]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Pending:
    """An evaluation that has begun: of which parameters, and its rows as far as they are known.

    `done` is the phase's counter; `number` decides the episodes' start states.
    """

    done: int
    number: str
    counters: list[Row]
    acting: Tensors


class Evaluating(Protocol):
    """What measures a policy: begun with the parts that act, it is asked for what came of it."""

    in_background: bool

    @property
    def idle(self) -> bool:
        """Whether nothing has begun."""
        ...

    def begin(self, acting: Tensors, number: str) -> None:
        """Take the parts that act; `number` decides the episodes' start states."""

    def end(self, stop: Callable[[], bool]) -> tuple[Array, Array | None] | None:
        """Return returns and lengths, `[S, episodes]`; None once `stop` says so.

        Without lengths the returns are estimates.
        """

    def tensors(self) -> Tensors:
        """Return what a checkpoint keeps of it."""

    def restore(self, tensors: Tensors, folder: Path) -> None:
        """Go on from what `tensors` returned; raises DataError, naming the checkpoint's folder."""

    def close(self) -> None:
        """Let go of what it holds."""


class Unplayed:
    """Stands where no episodes are played apart: a robot is one, and acts by its own clock."""

    idle, in_background = True, False

    def begin(self, acting: Tensors, number: str) -> None:
        """Raise AssertionError: nobody may ask."""
        raise AssertionError("a robot plays no episodes apart")

    def end(self, stop: Callable[[], bool]) -> tuple[Array, Array] | None:
        """Return nothing."""
        return None

    def tensors(self) -> Tensors:
        """Return nothing."""
        return {}

    def restore(self, tensors: Tensors, folder: Path) -> None:
        """Go on from nothing."""

    def close(self) -> None:
        """Let go of nothing."""


def player_of(
    recipe: Recipe, phase: Phase, agent: Agent, origin: Origin, inputs: Inputs, observer: Observer
) -> Evaluating:
    """Return what plays a policy's episodes: here, or in a process beside where cores are free."""
    if recipe.run.control is not None and phase == "online":
        return Unplayed()
    spec = replace(agent.spec, device=torch.device("cpu"))
    rules = None if origin.rules is None else origin.rules.apart()
    setting = Setting(recipe, phase, spec, origin.acts_in, save(inputs.tensors()), rules)
    if evaluates_in_background(recipe, agent.spec.device):
        return BackgroundEvaluator(setting, observer)
    return SnapshotEvaluator(setting)


class Evaluations:
    """Evaluate the policy as it was when each evaluation began, one after the other.

    What has begun survives a stop: the checkpoint holds the parameters that acted, and the
    resumed run makes the evaluation before anything else. `stop` says that the run was asked to.
    """

    def __init__(
        self,
        phase: Phase,
        agent: Agent,
        evaluator: Evaluating,
        faults: Faults,
        stop: Callable[[], bool],
    ):
        self._phase, self._agent, self._faults, self._stop = phase, agent, faults, stop
        self.count = 0
        self.pending: list[Pending] = []
        self._evaluator = evaluator
        self.in_background = evaluator.in_background

    def begin(self, done: int, counters: list[Row]) -> None:
        """Begin an evaluation of the parameters as they are now."""
        number = f"{self._phase}/{self.count}"
        self.count += 1
        self.pending.append(Pending(done, number, counters, acting_tensors(self._agent)))
        self._hand_over()

    def end(self) -> tuple[Pending, Array, Array | None] | None:
        """Wait for the oldest evaluation that has begun; return it with returns and lengths.

        Shapes `[S, episodes]`; estimates have no lengths. None when none has begun, or the run was
        asked to stop meanwhile.
        """
        if not self.pending:
            return None
        self._hand_over()
        found = self._returns(self.pending[0])
        if found is None:
            return None
        first = self.pending.pop(0)
        return first, *found

    def _returns(self, pending: Pending) -> tuple[Array, Array | None] | None:
        """Wait for returns and lengths; when environments fail, begin again with others."""
        while True:
            try:
                return self._evaluator.end(self._stop)
            except NotFinite as odd:
                raise self._faults.refuse_evaluation(odd, pending.number) from odd
            except EnvironmentFault as fault:
                if self._stop():
                    return None
                found = EnvironmentFault(f"evaluation {pending.number}: {fault}")
                self._faults.failed(found, int(pending.counters[0]["env_steps"]))

    def _hand_over(self) -> None:
        if self._evaluator.idle:
            self._evaluator.begin(self.pending[0].acting, self.pending[0].number)

    # -- checkpoints

    def state(self) -> dict[str, Any]:
        """Return the counters of what has begun, for a checkpoint."""
        return {
            "evaluations": self.count,
            "pending": [
                {"done": p.done, "number": p.number, "counters": p.counters} for p in self.pending
            ],
        }

    def tensors(self) -> Tensors:
        """Return the parameters that act in what has begun, and what the evaluator keeps."""
        return self._evaluator.tensors() | {
            f"pending.{i}.{name}": tensor
            for i, pending in enumerate(self.pending)
            for name, tensor in pending.acting.items()
        }

    def restore(self, state: dict[str, Any], tensors: Tensors, folder: Path) -> None:
        """Continue from what `state()` and `tensors()` returned."""
        self.count = int(state["evaluations"])
        self._evaluator.restore(tensors, folder)
        for i, kept in enumerate(state["pending"]):
            prefix = f"pending.{i}."
            acting = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
            self.pending.append(Pending(**kept, acting=acting))

    def close(self) -> None:
        """Let go of the environments."""
        self._evaluator.close()

"""Evaluation in a process of its own, while training goes on."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors.torch import load, save
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import make_agent
from baq_cli.engine.evaluation.evaluator import Evaluator
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.updates.device import on_threads
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.safety import Rules
from baq_cli.envs.workers import leave_signals_to_main, signals_held
from baq_cli.errors import BaqError
from baq_cli.machine import usable_cores
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer
from baq_cli.units import Phase

Array = npt.NDArray[Any]
POLL_SECONDS = 0.1
PROCESS = "baq evaluation"
"""What the process in the background is called, in what Python says of it and its children."""
FREE_CORES = 2
"""Cores beside the training threads from which evaluating in the background takes none away."""


def evaluates_in_background(recipe: Recipe, device: torch.device) -> bool:
    """Whether a run's evaluations leave its own process: as asked, or where cores are free."""
    asked = recipe.run.evaluation.background
    if recipe.run.env_timeout_seconds is not None:
        return False  # its environments need processes, which such a process can't have
    if asked is not None:
        return asked
    busy = 1 if device.type == "cuda" else torch.get_num_threads()
    return usable_cores() - busy >= FREE_CORES


def acting_tensors(agent: Agent) -> dict[str, Tensor]:
    """Return a copy of the parts of an agent that act, as they are now, on the CPU."""
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in agent.state_dict().items()
        if name.startswith(agent.acting_parts())
    }


@dataclass(frozen=True)
class Setting:
    """What policies of a run are played with away from it; it can be sent to another process.

    `inputs` are the tensors of `Inputs`, packed; `rules` the limits that the environments have;
    `share` says which of the episodes are played, see `Evaluator`.
    """

    recipe: Recipe
    phase: Phase
    spec: Spec
    env: EnvRef | str
    inputs: bytes
    rules: Rules | None = None
    share: tuple[int, int] = (0, 1)


class _Stateless:
    """What measures each policy anew: a checkpoint keeps nothing of it."""

    in_background = False

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps of it."""
        return {}

    def restore(self, tensors: dict[str, Tensor], folder: Path) -> None:
        """Go on from what `tensors` returned."""


class SnapshotEvaluator(_Stateless):
    """Evaluate the parts of a policy that act, as they were once; here, when it is asked for.

    It has an agent of its own on the CPU: acting for a few episodes is little work.
    """

    def __init__(self, setting: Setting):
        recipe, spec = setting.recipe, setting.spec
        self._agent = make_agent(recipe.run.algo, recipe.method, spec, setting.phase)
        self._inputs = Inputs.from_tensors(load(setting.inputs))
        self._evaluator = Evaluator(
            *(setting.env, spec.seeds, recipe.run.evaluation.episodes),
            timeout_seconds=recipe.run.env_timeout_seconds,
            rules=setting.rules,
            share=setting.share,
        )
        self._begun: tuple[dict[str, Tensor], str] | None = None

    @property
    def idle(self) -> bool:
        return self._begun is None

    def begin(self, acting: dict[str, Tensor], number: str) -> None:
        """Take what is to be evaluated."""
        self._begun = acting, number

    def end(self, stop: Callable[[], bool]) -> tuple[Array, Array] | None:
        """Return returns and lengths, `[S, episodes]`; None once `stop` says so."""
        assert self._begun is not None
        acting, number = self._begun
        self._agent.load_state_dict(acting, strict=False)
        with on_threads(1):  # too few observations at a time for several to share
            found = self._evaluator.evaluate_unless(stop, self._agent, self._inputs, number)
        if found is not None:
            self._begun = None
        return found

    def close(self) -> None:
        self._evaluator.close()


class BackgroundEvaluator(_Stateless):
    """Evaluate snapshots of a policy in a process of its own; one at a time.

    The episodes, their start states and their returns are those of a `SnapshotEvaluator` here.
    When the process is gone (it was killed, or it can't make an environment that only this process
    knows), evaluations are made here from then on.
    """

    in_background = True

    def __init__(self, setting: Setting, observer: Observer):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._setting, self._observer = setting, observer
        self._begun: tuple[dict[str, Tensor], str] | None = None
        self._here: SnapshotEvaluator | None = None
        self._sending = threading.Thread()
        self._process = context.Process(
            target=_serve, args=(theirs, setting), name=PROCESS, daemon=True
        )
        with signals_held():
            self._process.start()
        theirs.close()

    @property
    def idle(self) -> bool:
        return self._begun is None

    def begin(self, acting: dict[str, Tensor], number: str) -> None:
        """Hand over the parts that act, without waiting until the process takes them."""
        self._begun = acting, number
        self._sending = threading.Thread(target=self._send, args=self._begun, daemon=True)
        self._sending.start()

    def _send(self, acting: dict[str, Tensor], number: str) -> None:
        with contextlib.suppress(OSError):  # a process that is gone is found gone at the end
            self._connection.send_bytes(number.encode())
            self._connection.send_bytes(save(acting))

    def end(self, stop: Callable[[], bool]) -> tuple[Array, Array] | None:
        """Wait for the returns and lengths, `[S, episodes]`; None once `stop` says so."""
        assert self._begun is not None
        if self._here is None:
            try:
                while not self._connection.poll(POLL_SECONDS):
                    if stop():
                        return None
                found = load(self._connection.recv_bytes())
            except (EOFError, OSError):
                self._observer(Note("the evaluation process is gone; evaluating in the run's own"))
                self._here = SnapshotEvaluator(self._setting)
            else:
                self._begun = None
                return found["returns"].numpy(), found["lengths"].numpy()
        if self._here.idle:
            self._here.begin(*self._begun)
        here = self._here.end(stop)
        if here is not None:
            self._begun = None
        return here

    def close(self) -> None:
        if self._sending.is_alive():
            self._process.kill()  # which also ends the sending
            self._sending.join()
        self._connection.close()
        self._process.join(timeout=1)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        if self._here is not None:
            self._here.close()


def _serve(connection: Connection, setting: Setting) -> None:
    """Evaluate what comes, until the other end is closed."""
    leave_signals_to_main()
    torch.set_flush_denormal(True)
    with (
        contextlib.suppress(EOFError, OSError, BaqError),  # the run will see for itself
        contextlib.closing(SnapshotEvaluator(setting)) as evaluator,
    ):
        while True:
            number = connection.recv_bytes().decode()
            evaluator.begin(load(connection.recv_bytes()), number)
            played = evaluator.end(lambda: False)
            assert played is not None
            found = dict(zip(("returns", "lengths"), map(torch.from_numpy, played), strict=True))
            connection.send_bytes(save(found))

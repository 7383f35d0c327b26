"""Evaluation in a process of its own, while training goes on."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy.typing as npt
import torch
from safetensors.torch import load, save
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import make_agent
from baq_cli.engine.device import on_threads
from baq_cli.engine.evaluation import Evaluator
from baq_cli.engine.events import Note, Observer, Phase
from baq_cli.engine.inputs import Inputs
from baq_cli.recipes.schema import Recipe

Array = npt.NDArray[Any]
FREE_CORES = 2
"""Cores beside the training threads from which evaluating in the background takes none away."""


def evaluates_in_background(recipe: Recipe, device: torch.device) -> bool:
    """Whether a run's evaluations leave its own process: as asked, or where cores are free."""
    asked = recipe.run.evaluation.background
    if asked is not None:
        return asked
    busy = 1 if device.type == "cuda" else torch.get_num_threads()
    return (os.cpu_count() or 1) - busy >= FREE_CORES


class SnapshotEvaluator:
    """Evaluate the parts of a policy that act, as they were once."""

    def __init__(self, recipe: Recipe, phase: Phase, spec: Spec, env_id: str, inputs: bytes):
        self._agent = make_agent(recipe.run.algo, recipe.method, spec)
        if phase == "online":
            self._agent.begin_online()
        self._inputs = Inputs.from_tensors(load(inputs))
        self._evaluator = Evaluator(env_id, spec.seeds, recipe.run.evaluation.episodes)

    def evaluate(self, acting: dict[str, Tensor], number: str) -> tuple[Array, Array]:
        """Return returns and lengths, `[S, episodes]`."""
        self._agent.load_state_dict(acting, strict=False)
        with on_threads(1):
            return self._evaluator.evaluate(self._agent, self._inputs, number)

    def close(self) -> None:
        self._evaluator.close()


class BackgroundEvaluator:
    """Evaluate snapshots of a policy in a process of its own; one at a time.

    The episodes, their start states and their returns are those of an `Evaluator` here. When the
    process is gone (it was killed, or it can't make an environment that only this process knows),
    evaluations are made here from then on.
    """

    def __init__(
        self,
        recipe: Recipe,
        phase: Phase,
        agent: Agent,
        env_id: str,
        inputs: Inputs,
        observer: Observer,
    ):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        spec = replace(agent.spec, device=torch.device("cpu"))
        self._arguments = recipe, phase, spec, env_id, save(inputs.tensors())
        self._observer = observer
        self._begun: tuple[dict[str, Tensor], str] = {}, ""
        self._here: SnapshotEvaluator | None = None
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, agent: Agent, number: str) -> None:
        """Hand over the parts that act, as they are now."""
        acting = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in agent.state_dict().items()
            if name.startswith(agent.acting_parts())
        }
        self._begun = acting, number
        with contextlib.suppress(OSError):  # a process that is gone is found gone at the end
            self._connection.send_bytes(number.encode())
            self._connection.send_bytes(save(acting))

    def end(self) -> tuple[Array, Array]:
        """Wait for the returns and lengths, `[S, episodes]`."""
        if self._here is None:
            try:
                found = load(self._connection.recv_bytes())
                return found["returns"].numpy(), found["lengths"].numpy()
            except (EOFError, OSError):
                self._observer(Note("the evaluation process is gone; evaluating in the run's own"))
                self._here = SnapshotEvaluator(*self._arguments)
        return self._here.evaluate(*self._begun)

    def close(self) -> None:
        self._connection.close()
        self._process.join(timeout=1)
        if self._process.is_alive():
            self._process.kill()
        if self._here is not None:
            self._here.close()


def _serve(
    connection: Connection, recipe: Recipe, phase: Phase, spec: Spec, env_id: str, inputs: bytes
) -> None:
    """Evaluate what comes, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to handle
    torch.set_flush_denormal(True)
    evaluator = SnapshotEvaluator(recipe, phase, spec, env_id, inputs)
    with contextlib.suppress(EOFError, OSError):
        while True:
            number = connection.recv_bytes().decode()
            returns, lengths = evaluator.evaluate(load(connection.recv_bytes()), number)
            found = {"returns": torch.from_numpy(returns), "lengths": torch.from_numpy(lengths)}
            connection.send_bytes(save(found))
    evaluator.close()

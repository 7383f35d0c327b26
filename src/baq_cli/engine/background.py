"""Evaluation in a process of its own, while training goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy.typing as npt
import torch
from safetensors.torch import load, save

from baq_cli.agents.base import Agent
from baq_cli.agents.registry import make_agent
from baq_cli.engine.device import on_threads
from baq_cli.engine.evaluation import Evaluator
from baq_cli.engine.events import Phase
from baq_cli.engine.inputs import Inputs
from baq_cli.errors import EnvironmentMismatch
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


class BackgroundEvaluator:
    """Evaluate snapshots of a policy elsewhere; one at a time.

    The episodes, their start states and their returns are those of an `Evaluator` here.
    """

    def __init__(self, recipe: Recipe, phase: Phase, agent: Agent, env_id: str, inputs: Inputs):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        spec = replace(agent.spec, device=torch.device("cpu"))
        arguments = (theirs, recipe, phase, spec, env_id, save(inputs.tensors()))
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, agent: Agent, number: str) -> None:
        """Hand over the parts that act, as they are now."""
        acting = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in agent.state_dict().items()
            if name.startswith(agent.acting_parts())
        }
        self._connection.send_bytes(number.encode())
        self._connection.send_bytes(save(acting))

    def end(self) -> tuple[Array, Array]:
        """Wait for the returns and lengths, `[S, episodes]`.

        Raises EnvironmentMismatch when the process is gone.
        """
        try:
            found = load(self._connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise EnvironmentMismatch(
                "the evaluation process ended before its answer; its error is above. Continue "
                "with --resume, and evaluation.background=false to evaluate in the run's process."
            ) from error
        return found["returns"].numpy(), found["lengths"].numpy()

    def close(self) -> None:
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()


def _serve(
    connection: Connection, recipe: Recipe, phase: Phase, spec: Any, env_id: str, inputs: bytes
) -> None:
    """Evaluate what comes, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to handle
    torch.set_flush_denormal(True)
    agent = make_agent(recipe.run.algo, recipe.method, spec)
    if phase == "online":
        agent.begin_online()
    known = Inputs.from_tensors(load(inputs))
    evaluator = Evaluator(env_id, spec.seeds, recipe.run.evaluation.episodes)
    try:
        while True:
            number = connection.recv_bytes().decode()
            agent.load_state_dict(load(connection.recv_bytes()), strict=False)
            with on_threads(1):
                returns, lengths = evaluator.evaluate(agent, known, number)
            found = {"returns": torch.from_numpy(returns), "lengths": torch.from_numpy(lengths)}
            connection.send_bytes(save(found))
    except EOFError:
        evaluator.close()

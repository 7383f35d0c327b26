"""How many CPU threads a run's updates are worth, by measurement."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from baq_cli.agents.interface import Spec
from baq_cli.engine.updates.device import on_threads
from baq_cli.engine.updates.synthetic import operations_of, synthetic_updater
from baq_cli.engine.updates.updater import Updater
from baq_cli.machine import usable_cores
from baq_cli.recipes.schema import Recipe
from baq_cli.units import Phase

CORES = min(torch.get_num_threads(), usable_cores())
"""What PyTorch found to be its share of the machine, before any run changed it; none that this
process may not use."""
SMALL_UPDATE = 1e8
"""Operations of an update's matrix products, below which threads wait longer than they work."""
WORTH = 1.15
"""All cores must be this much faster than one to be taken."""
ROUNDS = 3
LEAST_SECONDS = 0.1
MOST_SECONDS = 2.0
"""After so many seconds no other round begins: on a busy machine one takes many, and who starts a
run waits for it."""


def choose_threads(recipe: Recipe, spec: Spec) -> int:
    """Return 1 or the number of cores, whichever updates faster on this machine now.

    Measured on an agent of its own, so that nothing of the run moves. Small updates take one
    thread without being measured.
    """
    cores = CORES
    if cores == 1 or spec.device.type != "cpu":
        return cores
    updater = synthetic_updater(recipe, spec)
    if operations_of(updater) < SMALL_UPDATE:
        return 1
    times: dict[int, list[float]] = {1: [], cores: []}
    until = time.monotonic() + MOST_SECONDS
    for number in range(ROUNDS):
        if number and time.monotonic() > until:
            break
        for count, found in times.items():
            with on_threads(count):
                found.append(seconds_an_update(updater))
    return cores if min(times[1]) > WORTH * min(times[cores]) else 1


def same_digits(recipe: Recipe, spec: Spec, phase: Phase, counts: Iterable[int]) -> bool:
    """Tell whether updates come to the same digits on these numbers of threads.

    Seen on an agent of its own, on random transitions: how many parts a sum is made of depends on
    shapes and threads, and random numbers show any other order in their last bits.
    """
    ends: list[dict[str, torch.Tensor]] = []
    for count in counts:
        with on_threads(count):
            updater = synthetic_updater(recipe, spec, phase)
            learner = updater.learner
            for _ in range(1 + max(learner.agent.every.values(), default=1)):
                updater.step()
        ends.append({name: tensor.clone() for name, tensor in learner.agent.state_dict().items()})
    first, *others = ends
    return all(first[name].equal(each[name]) for each in others for name in first)


def seconds_an_update(updater: Updater) -> float:
    """Return the seconds of an update on the threads that there are; a first one is not timed."""
    updater.step()
    started, count, spent = time.perf_counter(), 0, 0.0
    while spent < LEAST_SECONDS:
        updater.step()
        count += 1
        spent = time.perf_counter() - started
    return spent / count

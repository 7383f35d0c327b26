"""The parts of a policy that act, in memory that the learning and the acting process share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baq_cli.agents.base import Agent

ALIGNED = 64
"""Bytes that a tensor's place is a multiple of."""


def acting_parts(agent: Agent) -> dict[str, Tensor]:
    """Return the tensors of an agent that acting needs, as they are, by name."""
    parts = agent.acting_parts()
    return {name: t.detach() for name, t in agent.state_dict().items() if name.startswith(parts)}


class Snapshot:
    """One policy and its version, written by who learns and read by who acts; a flag to stop by.

    Whoever acts never waits: while a policy is being written, it goes on with the one that it has.
    It can be handed to a process that is being started.
    """

    def __init__(self, agent: Agent, context: SpawnContext):
        sizes = [t.numel() * t.element_size() for t in acting_parts(agent).values()]
        room = sum(-(-size // ALIGNED) * ALIGNED for size in sizes)
        self._lock = context.Lock()
        # the version; whether to stop; since when the environment has been waited for, or 0
        self._numbers: Any = context.RawArray("q", 3)
        self._memory: Any = context.RawArray("B", max(room, 1))

    @property
    def version(self) -> int:
        """The number of the policy that is there."""
        return int(self._numbers[0])

    @property
    def stopped(self) -> bool:
        """Whether who acts is to stop."""
        return bool(self._numbers[1])

    def stop(self) -> None:
        """Ask who acts to stop; a signal's handler may do so."""
        self._numbers[1] = 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Say that the environment is waited for, inside the block."""
        self._numbers[2] = time.monotonic_ns()
        yield
        self._numbers[2] = 0

    @property
    def waited_seconds(self) -> float:
        """How long who acts has been waiting for its environment."""
        since = int(self._numbers[2])
        return (time.monotonic_ns() - since) / 1e9 if since else 0.0

    def publish(self, agent: Agent, version: int) -> None:
        """Write an agent's policy."""
        tensors = {name: tensor.cpu() for name, tensor in acting_parts(agent).items()}
        if not self._lock.acquire(timeout=1.0):
            return  # who acts was killed while it read
        try:
            for place, tensor in zip(self._places(tensors), tensors.values(), strict=True):
                place.copy_(tensor)
            self._numbers[0] = version
        finally:
            self._lock.release()

    def read(self, agent: Agent) -> int | None:
        """Give an agent the policy that is there; return its version, None while it is written."""
        if not self._lock.acquire(block=False):
            return None
        try:
            tensors = acting_parts(agent)
            for place, tensor in zip(self._places(tensors), tensors.values(), strict=True):
                tensor.copy_(place)
            return self.version
        finally:
            self._lock.release()

    def _places(self, tensors: dict[str, Tensor]) -> list[Tensor]:
        """Return where each tensor lies, in the order of their names' dictionary."""
        whole, start, found = np.frombuffer(self._memory, dtype=np.uint8), 0, []
        for tensor in tensors.values():
            size = tensor.numel() * tensor.element_size()
            part = torch.from_numpy(whole[start : start + size])
            found.append(part.view(tensor.dtype).view(tensor.shape))
            start += -(-size // ALIGNED) * ALIGNED
        return found

"""Drawing a batch and learning from it: one operation after the other, or a captured graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.engine.learner import Learner
from baq_cli.engine.replay import Replay

EAGER_FIRST = 3
"""Updates before a capture: libraries allocate and choose their kernels in the first ones."""


@dataclass
class Captured:
    """A whole update as a CUDA graph: its static batch and metrics are overwritten by a replay."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    metrics: dict[str, Tensor]


class Updater:
    """Take gradient steps with batches from a replay.

    On a CUDA device, unless `capture` is off, an update (draw, gather, losses, backward pass,
    optimisers, targets) is recorded once for each set of groups that it trains, and replayed from
    then on. Both ways compute the same: each seed's generators are registered with the graph and
    advance as they do without it; what the host decides (the learning rates, how far the online
    store is filled) is read from the device.
    """

    def __init__(self, learner: Learner, replay: Replay, capture: bool = True):
        self.learner, self.replay = learner, replay
        self.captures = capture and learner.agent.spec.device.type == "cuda"
        self._graphs: dict[frozenset[str], Captured] = {}
        self._eager = 0
        self._side = torch.cuda.Stream() if self.captures else None

    def step(self) -> Batch:
        """Take one gradient step; return its batch, which the next step may overwrite."""
        learner = self.learner
        learner.prepare()
        with learner.scaled():
            batch = self._learn(learner.active())
        learner.count()
        return batch

    def _learn(self, active: frozenset[str]) -> Batch:
        learner = self.learner
        if not self.captures:
            batch = self._compute(active)
        elif self._eager < EAGER_FIRST * (1 + max(learner.agent.every.values(), default=1)):
            batch = self._on_side_stream(active)
        else:
            captured = self._graphs.get(active) or self._capture(active)
            captured.graph.replay()
            batch, learner.metrics = captured.batch, captured.metrics
        return batch

    def _compute(self, active: frozenset[str]) -> Batch:
        batch = self.replay.batch()
        self.learner.compute(batch, active)
        return batch

    def _on_side_stream(self, active: frozenset[str]) -> Batch:
        """Update eagerly where a capture will record, as PyTorch asks for before a capture."""
        assert self._side is not None
        self._eager += 1
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            batch = self._compute(active)
        torch.cuda.current_stream().wait_stream(self._side)
        return batch

    def _capture(self, active: frozenset[str]) -> Captured:
        graph = torch.cuda.CUDAGraph()
        for stream in (self.learner.noise, self.replay.stream):
            for generator in stream.generators:
                graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self._side):
            batch = self._compute(active)
        self._graphs[active] = Captured(graph, batch, self.learner.metrics)
        return self._graphs[active]

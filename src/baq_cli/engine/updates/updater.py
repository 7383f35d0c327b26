"""Drawing a batch and learning from it: as methods say it, or as captured or recorded once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import Stage
from baq_cli.engine.experience.replay import Reached, Replay
from baq_cli.engine.updates.card_graph import EAGER_FIRST, SideStream
from baq_cli.engine.updates.cpu_record import RECORD_AFTER, Record, Recorder
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.update import Update
from baq_cli.nets.streams import SeedStream


@dataclass
class Captured:
    """A whole update as a CUDA graph: its static batch and metrics are overwritten by a replay."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    metrics: dict[str, Tensor]


class Updater:
    """Take gradient steps with batches from a replay.

    Unless `capture` is off, an update (draw, gather, losses, backward pass, optimisers, targets) is
    taken down once for each set of groups that it trains, and replayed from then on: as a CUDA
    graph, or on a CPU, after `record_after` updates, as a record. All ways compute the same:
    what is drawn on a card depends on counts that lie there; what the host decides (the learning
    rates, how far the online store is filled) is read from the device.
    With a `stage` the updates are the stage's, and their numbers come from `noise`. `graphs` are
    what is captured on a card, for each set of groups; `records` what is recorded on a CPU.
    """

    def __init__(
        self,
        learner: Learner,
        replay: Replay,
        capture: bool = True,
        record_after: int | None = None,
        stage: Stage | None = None,
        noise: SeedStream | None = None,
    ):
        self.learner, self.replay = learner, replay
        self._update = Update(learner, replay, stage, noise)
        after = RECORD_AFTER if record_after is None else record_after
        device = learner.agent.spec.device
        self.captures, on_cpu = (capture and device.type == kind for kind in ("cuda", "cpu"))
        self._recording = Recorder(self._update, after) if on_cpu else None
        self.graphs: dict[frozenset[str], Captured] = {}
        self._reached: tuple[Reached, ...] = ()
        self._eager = 0
        self._side = SideStream() if self.captures else None

    @property
    def records(self) -> dict[frozenset[str], Record]:
        """What is recorded of updates on a CPU, for each set of groups."""
        return self._recording.records if self._recording else {}

    def step(self) -> Batch:
        """Take one gradient step; return its batch, which the next step may overwrite."""
        learner = self.learner
        learner.prepare()
        with learner.scaled():
            batch = self._learn(self._update.active())
        self._update.count()
        return batch

    def _learn(self, active: frozenset[str]) -> Batch:
        learner, reached = self.learner, self.replay.reached
        if reached != self._reached:  # a store had no rows, or too few, at the updates before
            self._reached = reached
            self.records.clear()
            self.graphs.clear()
        if self._recording is not None:
            batch = self._recording.learn(active)
        elif not self.captures:
            batch = self._update.make(active)
        elif self._eager < EAGER_FIRST * (1 + max(learner.agent.every.values(), default=1)):
            batch = self._on_side_stream(active)
        else:
            captured = self.graphs.get(active) or self._capture(active)
            captured.graph.replay()
            batch, learner.metrics = captured.batch, captured.metrics
        return batch

    def _on_side_stream(self, active: frozenset[str]) -> Batch:
        assert self._side is not None
        self._eager += 1
        return self._side.run(lambda: self._update.make(active))

    def _capture(self, active: frozenset[str]) -> Captured:
        assert self._side is not None
        graph, batch = self._side.capture(lambda: self._update.make(active))
        self.graphs[active] = Captured(graph, batch, self.learner.metrics)
        return self.graphs[active]

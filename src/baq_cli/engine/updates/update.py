"""One update: draw a batch, learn from it, and say what its rows are worth now."""

from __future__ import annotations

from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import Stage
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.updates.learner import Following, Learner
from baq_cli.nets.streams import SeedStream


class Update:
    """Updates of a learner with batches from a replay; with a `stage`, of its groups alone.

    All numbers that losses draw come from `noise`; without it, from the learner's.
    """

    def __init__(
        self,
        learner: Learner,
        replay: Replay,
        stage: Stage | None = None,
        noise: SeedStream | None = None,
    ):
        self.learner, self.replay, self.stage = learner, replay, stage
        self.noise = noise or learner.noise

    def active(self) -> frozenset[str]:
        """Return the groups that the next update trains."""
        return self.learner.active() if self.stage is None else self.stage.groups

    def make(
        self,
        active: frozenset[str],
        stream: SeedStream | None = None,
        noise: SeedStream | None = None,
    ) -> Batch:
        """Do the tensor work of an update; `stream` and `noise` stand in for its own.

        In a stage no target follows, or every one. Returns the batch.
        """
        batch, stage = self.replay.batch(stream), self.stage
        targets: Following = "active" if stage is None else "all" if stage.follow else "none"
        self.learner.compute(batch, active, noise or self.noise, targets)
        if self.stage is None and self.learner.agent.reprioritises:
            self.replay.set_priorities(self.learner.reprioritised(batch))
        return batch

    def count(self) -> None:
        """Note that an update was made; those of a stage count as no gradient steps."""
        if self.stage is None:
            self.learner.count()

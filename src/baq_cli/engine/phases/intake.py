"""What an online phase learns from, and how: transitions into its stores, and updates from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.agents.interface import ONLINE
from baq_cli.agents.plans import StoreName
from baq_cli.data.episodes import INTERVENTION
from baq_cli.engine.checkpoints.folder import Checkpoint
from baq_cli.engine.experience.columns import DATA_COLUMNS, data_layout
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.store import PRIORITY, Store
from baq_cli.engine.experience.stores import (
    Stores,
    annotate,
    make_stores,
    model_store,
    odds_of,
    own_columns,
)
from baq_cli.engine.experience.windows import Window
from baq_cli.engine.phases.run import Run
from baq_cli.engine.phases.stages import Stages
from baq_cli.engine.updates.updater import Updater

Array = npt.NDArray[Any]


@dataclass
class Behind:
    """The updates made at once behind the warm-up: of critics alone, then of all."""

    critics: int = 0
    updates: int = 0


class Intake:
    """The stores of an online phase, what enters them, and the updates that are made from them.

    `online` holds the phase's own transitions; `behind` is how many of the updates that come at
    once behind the warm-up were made: of critics alone, and of all.
    """

    def __init__(self, run: Run, offline: Store | None, own: Tensor | None = None):
        self._run, self.plan = run, run.learner.plan
        env_steps = max(run.recipe.run.env_steps, run.env_steps)
        reached, self.online = make_stores(run.agent, self.plan, offline, env_steps, own)
        model = model_store(run.agent, self.plan, self.online.layout)
        self.stores = Stores(reached, self.online, model)
        self.stages = Stages(run, self.plan, self.stores)
        self.behind = Behind()
        self._own = own_columns(run.agent)
        self._known = data_layout(self.online.layout)
        self._discount = run.learner.discount
        replay = Replay(
            self.plan.draws,
            self.stores.by_name(),
            run.streams["batch"],
            run.recipe.method.batch_size,
            self._discount,
            odds_of(run.agent, self.plan),
            Window.of(self.plan),
        )
        self._updater = Updater(run.learner, replay, run.recipe.run.capture)

    @classmethod
    def restored(cls, run: Run, offline: Store | None, saved: Checkpoint) -> Intake:
        """Return the stores of a run that a checkpoint was restored to, with what it holds."""
        kept = [block["own"] for block in saved.kept()["offline"]]
        own = torch.cat(kept, dim=1).to(run.spec.device) if kept else None
        intake = cls(run, offline, own)
        state = saved.state
        intake.stages.restore(state)
        intake.behind = Behind(**state.get("behind") or {})
        written: dict[StoreName, int]
        written = {"online": state["written"], "model": state.get("model_written", 0)}
        intake.stores.refill(saved.kept(), written, saved.training)
        return intake

    def store(
        self,
        obs: Array,
        action: Array,
        reward: Array,
        next_obs: Array,
        terminated: Array,
        taken: Array,
    ) -> int:
        """Write a transition a seed, as the environment gave it; return the slot it went to.

        Shapes: observations `[S, obs_dim]`, actions `[S, action_dim]` in [−1, 1], the rest `[S]`;
        `taken` says where somebody else than the policy acted.
        """
        run = self._run
        device = run.spec.device
        fields = {
            "obs": run.inputs.obs(obs),
            "action": torch.from_numpy(action),
            "next_obs": run.inputs.obs(next_obs),
            "reward": torch.from_numpy(run.inputs.reward(reward)),
            "bootstrap": torch.from_numpy(~terminated),
        }
        for name in self._known.columns:
            fields[name] = torch.full((len(run.spec.seeds),), DATA_COLUMNS[name].running)
        if INTERVENTION in fields:
            fields[INTERVENTION] = torch.from_numpy(taken)
        row = self._known.pack(fields).to(device)  # one transfer
        if not self._own:
            return self.online.append(row)
        source = torch.full((len(run.spec.seeds), 1), ONLINE, device=device)
        batch = self._known.batch(row.unsqueeze(1), source, self._discount)
        annotated = {n: c.squeeze(1) for n, c in annotate(run.agent, batch).items()}
        whole = self.online.layout.pack(self._known.unpack(row) | annotated)
        return self.online.append(whole, annotated.get(PRIORITY))

    def catch_up(self, stop: Callable[[], bool]) -> bool:
        """Make the updates that come at once behind the warm-up; return whether all are made.

        They are those of `fit`, then the plan's `first_updates`. Where `stop` says so between two,
        the next call goes on.
        """
        if not self.fit(stop):
            return False
        while self.behind.updates < self.plan.first_updates:
            if stop():
                return False
            self.update(1)
            self.behind.updates += 1
        return True

    def fit(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Make the updates of critics alone, where the plan asks for them after the warm-up.

        Return and stop as `catch_up` does.
        """
        run, stage = self._run, self.plan.fit
        if stage is None or self.behind.critics == stage.steps:
            return True
        self._tell_the_clock()
        updater = Updater(run.learner, self._updater.replay, run.recipe.run.capture, stage=stage)
        self.behind.critics = self.stages.fit(updater, self.behind.critics, stop)
        return self.behind.critics == stage.steps

    def update(self, count: int) -> None:
        """Take so many gradient steps."""
        self._tell_the_clock()
        for _ in range(count):
            self._run.after_update(self._updater.step())

    def _tell_the_clock(self) -> None:
        run, learner = self._run, self._run.learner
        learner.env_steps = run.env_steps
        learner.share = run.env_steps / run.recipe.run.env_steps

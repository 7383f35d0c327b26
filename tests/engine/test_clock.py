"""What a loss may read of where a run is: the clock says it at every update, recorded or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Batch, Losses
from baq_cli.agents.plans import Draw, Plan
from baq_cli.agents.td3_bc import TD3BC
from baq_cli.engine.experience.stores import stores_by_name
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.updater import Updater
from baq_cli.nets.streams import SeedStream
from support.builders import (
    add_online,
    dataset_store,
    replay_of,
    small_agent,
    small_spec,
    stores_in_reach,
    tiny_config,
)
from support.recordings import ID
from support.runs import execute, recipe_of, states, stopped_at

pytestmark = pytest.mark.usefixtures("steady_dataset")

SEEDS, UPDATES = (0, 1), 24
Reading = tuple[float, float, float]
"""The gradient steps, environment steps and share of the phase that a clock shows."""


def reading(agent: Any) -> Reading:
    clock = agent.clock
    return tuple(map(float, (clock.gradient_steps, clock.env_steps, clock.share)))  # type: ignore[return-value]


# -- one update after another


class Scheduled(TD3BC):
    """Its losses change over the phase, and so do the odds that its rows are online ones."""

    reads_clock = frozenset({"gradient_steps", "env_steps", "share"})

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.trust: Tensor
        self.register_buffer("trust", per_seed(0.5, self.spec))

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        losses = super().loss(batch, noise, active)
        clock, fresh = self.clock, batch.part("fresh")
        late = 1 / (1 + clock.gradient_steps + clock.env_steps)
        losses.terms["critic"] = (1 - clock.share) * losses.terms["critic"]
        losses.terms["critic"] = losses.terms["critic"] + late * self.critic(
            fresh.obs, fresh.action
        ).mean((1, 2))
        self.trust.copy_(clock.share.expand_as(self.trust))
        now = torch.stack([clock.gradient_steps, clock.env_steps, clock.share])
        losses.metrics |= {f"clock_{i}": part.expand(len(SEEDS)) for i, part in enumerate(now)}
        losses.metrics["online"] = batch.part("mixed").online.mean(1)
        return losses

    def online_plan(self) -> Plan:
        return Plan(
            (
                Draw(("online",), 0.5, newest=5, name="fresh"),
                Draw(("online", "offline"), 1.0, odds="trust", name="mixed"),
                Draw(("offline", "online"), 0.5, newest="offline"),
            )
        )


class Training:
    """Updates between which a ring grows and is written over, and time goes on."""

    def __init__(self) -> None:
        config = tiny_config("td3_bc", hidden=(16, 16), batch_size=16)
        self.agent = Scheduled(config, small_spec(SEEDS), "online")
        self.learner = Learner(self.agent)
        offline, online = stores_in_reach(
            self.agent, self.learner.plan, dataset_store(self.agent), 10
        )
        assert offline is not None
        self.replay = replay_of(self.agent, self.learner.plan, stores_by_name(offline, online))
        self.online = online

    def updates(self, capture: bool) -> list[dict[str, Tensor]]:
        """Train; return each batch, and the metrics."""
        updater, seen = Updater(self.learner, self.replay, capture, record_after=5), []
        for step in range(UPDATES):
            add_online(self.agent, self.online, step)
            self.learner.env_steps, self.learner.share = 3 * step, step / (UPDATES - 1)
            batch = updater.step()
            assert batch.part("fresh").obs.shape == (2, 8, 3)
            assert batch.part("mixed").obs.shape == (2, 16, 3)
            found = batch.tensors() | self.learner.metrics
            seen.append({name: tensor.clone() for name, tensor in found.items()})
        assert bool(updater.records) == capture
        return seen


def test_a_recorded_update_reads_clock_odds_and_newest_rows_as_an_eager_one_does() -> None:
    recorded, eager = Training(), Training()
    for step, (one, other) in enumerate(
        zip(recorded.updates(True), eager.updates(False), strict=True)
    ):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            assert torch.equal(tensor, other[name]), (step, name)
        found = [one[f"clock_{i}"].tolist() for i in range(3)]
        share = float(torch.tensor(step / (UPDATES - 1)))
        assert found == [[float(step)] * 2, [3.0 * step] * 2, [share] * 2]
    assert one["online"].tolist() == pytest.approx([1.0, 1.0], abs=0.25)
    for training in (recorded, eager):
        assert training.agent.trust.tolist() == [1.0, 1.0]
    ours, theirs = (t.agent.state_dict() | t.learner.state() for t in (recorded, eager))
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_what_was_recorded_while_a_store_was_empty_is_recorded_anew_once_it_has_rows() -> None:
    agent = small_agent("iql", SEEDS, phase="online")
    learner = Learner(agent)
    offline, online = stores_in_reach(agent, learner.plan, dataset_store(agent))
    assert offline is not None
    replay = replay_of(agent, learner.plan, stores_by_name(offline, online))
    updater = Updater(learner, replay, record_after=2)
    for _ in range(5):
        assert not updater.step().online.any()
    assert updater.records
    for step in range(40):
        add_online(agent, online, step)
    assert updater.step().online.any()
    assert updater.records


# -- in a run


STEPS, WARMUP, UTD, EVERY = 6, 2, 2, 4


def test_the_clock_of_a_run_counts_on_over_both_phases_and_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Reading] = []
    step = Updater.step

    def noted(updater: Updater) -> Batch:
        batch = step(updater)
        seen.append(reading(updater.learner.agent))
        return batch

    def heard(out: str, **how: Any) -> list[Reading]:
        seen.clear()
        execute(recipe, tmp_path / out, **how)
        return [(steps, env_steps, round(share, 5)) for steps, env_steps, share in seen]

    monkeypatch.setattr(Updater, "step", noted)
    monkeypatch.setattr(TD3BC, "reads_clock", frozenset({"share"}))
    watched = {"episodes": 1, "background": False}
    watched |= {"every_gradient_steps": EVERY, "every_env_steps": EVERY}
    recipe = recipe_of(
        "td3_bc", {"warmup_env_steps": WARMUP, "utd": UTD}, dataset=ID, env="Steady-v0",
        gradient_steps=STEPS, env_steps=STEPS, evaluation=watched,
    )  # fmt: skip
    offline = [(float(k), 0.0, round(k / STEPS, 5)) for k in range(STEPS)]
    online = [
        (float(STEPS + UTD * k + j), float(WARMUP + 1 + k), round((WARMUP + 1 + k) / STEPS, 5))
        for k in range(STEPS - WARMUP)
        for j in range(UTD)
    ]
    assert heard("offline") == offline
    stopped_at(tmp_path / "offline", f"offline-{EVERY}", tmp_path / "resumed")
    assert heard("resumed", resume=True) == offline[EVERY:]
    assert heard("online", source=tmp_path / "offline") == online
    name = f"online-{EVERY}"
    assert name in states(tmp_path / "online")
    stopped_at(tmp_path / "online", name, tmp_path / "again")
    again = heard("again", resume=True, source=tmp_path / "offline")
    assert again == online[UTD * (EVERY - WARMUP) :]

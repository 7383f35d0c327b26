"""Priorities that a method changes as it learns: written after each update, kept by checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import Draw, Plan, Stage
from baq_cli.agents.registry import METHODS
from baq_cli.agents.td3_bc import TD3BC
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.stores import stores_by_name
from baq_cli.engine.experience.sumtree import SumTree
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.updater import Updater
from baq_cli.nets.streams import SeedStream
from support.builders import (
    add_online,
    dataset_store,
    replay_of,
    small_spec,
    stores_in_reach,
    tiny_config,
)
from support.numbered import filled_online, numbered_store
from support.numbered import replay_of as draws_of
from support.recordings import ID, own_folders
from support.runs import assert_same_end, execute, last_tensors, recipe_of, states, stopped_at
from support.small_data import write_steady

SEEDS, ROWS = (0, 1, 2), 40
UNION = (Draw(("offline", "online"), 1.0, prioritised=True),)
APART = (Draw(("online",), 0.5, prioritised=True), Draw(("offline",), 0.5, prioritised=True))


class Surprised(TD3BC):
    """Draws what its critics disagree on, which changes with every update."""

    name = "surprised"
    title = "Surprised"
    draws = UNION

    def surprise(self, batch: Batch) -> Tensor:
        return self.critic(batch.obs, batch.action).std(1) + 0.01

    def annotate(self, batch: Batch) -> dict[str, Tensor]:
        return {"priority": 5.0 * self.surprise(batch)}

    def reprioritise(self, batch: Batch) -> Tensor:
        return self.surprise(batch)

    def online_plan(self) -> Plan:
        return Plan(self.draws, warmup_env_steps=self.config.warmup_env_steps)


class Apart(Surprised):
    """The same with fixed shares of either store."""

    name = "apart"
    draws = APART


@given(st.data())
def test_of_the_priorities_that_a_row_is_given_the_greatest_counts(data: st.DataObject) -> None:
    capacity = data.draw(st.integers(1, 40))
    tree, plain = SumTree(1, capacity, torch.device("cpu"), changes=True), np.ones(capacity)
    tree.fill(torch.ones(1, capacity))
    rows = data.draw(st.lists(st.integers(0, capacity - 1), min_size=1, max_size=12))
    given_to = data.draw(st.lists(st.floats(0, 9), min_size=len(rows), max_size=len(rows)))
    chosen = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    for row in {r for r, c in zip(rows, chosen, strict=True) if c}:
        plain[row] = max(
            value for r, value, c in zip(rows, given_to, chosen, strict=True) if r == row and c
        )
    tree.change(
        torch.tensor([rows]), torch.tensor([given_to], dtype=torch.float64), torch.tensor([chosen])
    )
    assert_allclose(tree.priorities[0, :capacity], plain)
    assert not tree.priorities[0, capacity:].any(), "the spare leaf is never drawn"
    assert_allclose(tree.total[0], plain.sum())


def test_of_a_row_that_two_draws_return_the_greater_priority_counts() -> None:
    """One row that two draws return, beside a draw of another store and a uniform one."""
    stores = numbered_store(1), filled_online(1, 4)
    for store in stores:
        store.priorities = SumTree(2, store.capacity, torch.device("cpu"), changes=True)
        store.priorities.fill(torch.ones(2, 1))
    online, offline = (Draw((name,), 0.25, prioritised=True) for name in ("online", "offline"))
    replay = draws_of((online, offline, online, Draw(("online",), 0.25)), *stores, 4)
    replay.batch()
    replay.set_priorities(torch.tensor([[5.0, 7, 2, 9], [1, 0, 3, 9]]))
    found = [store.priorities.total.tolist() for store in stores if store.priorities is not None]
    assert found == [[7, 0], [5, 3]]


def trained(method: type[Surprised], seeds: tuple[int, ...], capture: bool) -> Any:
    """Return updater, learner and stores after some updates on a store that grows."""
    config = tiny_config("td3_bc", hidden=(16, 16), batch_size=16)
    agent = method(config, small_spec(seeds), "online")
    offline, online = stores_in_reach(agent, agent.online_plan(), dataset_store(agent), ROWS)
    learner = Learner(agent)
    stores = stores_by_name(offline, online)
    updater = Updater(learner, replay_of(agent, learner.plan, stores), capture, record_after=4)
    for step in range(ROWS + 10):  # the ring overwrites its first rows
        add_online(agent, online, step)
        updater.step()
    return updater, learner, stores


@pytest.mark.parametrize("method", [Surprised, Apart])
def test_recorded_updates_write_the_priorities_that_eager_ones_do(method: type[Surprised]) -> None:
    recorded, eager = (trained(method, SEEDS, capture) for capture in (True, False))
    assert recorded[0].records
    assert not eager[0].records
    for name, store in recorded[2].items():
        assert torch.equal(store.priorities.priorities, eager[2][name].priorities.priorities)
        assert torch.equal(store.priorities.total, eager[2][name].priorities.total)
    for name, tensor in recorded[1].agent.state_dict().items():
        assert torch.equal(tensor, eager[1].agent.state_dict()[name]), name


def test_drawn_rows_have_the_priority_of_the_last_update_and_no_others() -> None:
    updater, learner, stores = trained(Surprised, SEEDS, capture=False)
    before = {name: store.priorities.priorities.clone() for name, store in stores.items()}
    batch = updater.step()
    expected = learner.agent.surprise(batch).detach()
    for name, store in stores.items():
        now = store.priorities.priorities
        changed = (now != before[name]).sum(1)
        drawn = (batch.source == (1.0 if name == "online" else 0.0)).sum(1)
        assert (changed <= drawn).all()
        assert (changed > 0).all()
        for seed in range(len(SEEDS)):
            new = now[seed][now[seed] != before[name][seed]]
            assert np.isin(new.numpy(), expected[seed].double().numpy()).all()


def test_updates_of_a_stage_leave_priorities_as_they_are() -> None:
    updater, learner, stores = trained(Surprised, SEEDS, capture=False)
    before = {name: store.priorities.priorities.clone() for name, store in stores.items()}
    stage = Stage("critics", frozenset({"critic"}), learner.plan.draws, steps=3)
    of_stage = Updater(learner, updater.replay, stage=stage)
    for _ in range(stage.steps):
        of_stage.step()
    for name, store in stores.items():
        assert torch.equal(store.priorities.priorities, before[name])


@pytest.mark.parametrize("method", [Surprised, Apart])
def test_a_seed_alone_has_the_priorities_that_it_has_among_others(method: type[Surprised]) -> None:
    *_, together = trained(method, SEEDS, capture=True)
    for i, seed in enumerate(SEEDS):
        *_, alone = trained(method, (seed,), capture=True)
        for name, store in together.items():
            mine, own = store.priorities.priorities[i], alone[name].priorities.priorities[0]
            assert_allclose(mine, own, rtol=1e-4)


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_folders():
        for method in (Surprised, Apart):
            monkeypatch.setitem(METHODS, method.name, method)
        write_steady(ID)
        yield


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("algo", ["surprised", "apart"])
def test_a_resumed_run_draws_as_one_that_was_not_stopped(
    algo: str, seeds: int, dataset: None, tmp_path: Path
) -> None:
    watched = {"episodes": 1, "every_env_steps": 7, "every_gradient_steps": 10}
    run: dict[str, Any] = {"dataset": ID, "env": "Steady-v0", "seeds": list(range(seeds))}
    recipe = recipe_of(
        *(algo, {"warmup_env_steps": 4}), **run, gradient_steps=10, env_steps=21, evaluation=watched
    )
    execute(recipe, tmp_path / "source")
    source = tmp_path / "source"
    execute(recipe, tmp_path / "whole", source=source)
    kept = {n for n in last_tensors(tmp_path / "whole") if n.startswith("training/priorities.")}
    assert kept == {"training/priorities.offline", "training/priorities.online"}
    for name in list(states(tmp_path / "whole"))[:-1]:
        parts = stopped_at(tmp_path / "whole", name, tmp_path / name)
        execute(recipe, parts, resume=True, source=source)
        assert_same_end(tmp_path / "whole", parts)


def test_a_seed_that_was_given_other_rows_changes_the_priorities_of_those() -> None:
    *_, stores = trained(Surprised, SEEDS, capture=False)
    online, offline = stores["online"], stores["offline"]
    online.priorities.fill(torch.ones(3, ROWS) * torch.tensor([[0.0], [1.0], [1.0]]))
    offline.priorities.fill(torch.full((3, offline.reach), 2.0))
    draws = (
        Draw(("offline",), 0.25, prioritised=True),
        Draw(("online",), 0.75, prioritised=True, otherwise="offline"),
    )
    replay = Replay(draws, stores, SeedStream(SEEDS, "batch"), 16, 0.99)
    batch = replay.batch()
    assert batch.source.sum(1).tolist() == [0, 12, 12]
    replay.set_priorities(7.0 + torch.arange(16.0).expand(3, -1))
    assert not online.priorities.priorities[0].any()
    assert (online.priorities.priorities[1:].max(1).values == 7 + 15).all()
    assert (
        offline.priorities.priorities.max(1).values == torch.tensor([7 + 15, 7 + 3, 7 + 3])
    ).all()


def test_rows_of_a_uniform_draw_keep_their_priorities() -> None:
    *_, stores = trained(Surprised, SEEDS, capture=False)
    before = {name: store.priorities.priorities.clone() for name, store in stores.items()}
    draws = (
        Draw(("offline",), 0.5),
        Draw(("online",), 0.25, prioritised=True),
        Draw(("online",), 0.25),
    )
    replay = Replay(draws, stores, SeedStream(SEEDS, "batch"), 16, 0.99)
    replay.batch()
    replay.set_priorities(7.0 + torch.arange(16.0).expand(3, -1))
    assert torch.equal(stores["offline"].priorities.priorities, before["offline"])
    now = stores["online"].priorities.priorities
    given = now[now != before["online"]]
    assert len(given) > 0
    assert np.isin(given.numpy(), 7.0 + np.arange(8, 12)).all()

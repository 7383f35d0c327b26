"""Rows with those that follow them: against a walk from row to row, and in whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.base import Agent, frozen_copy
from baq_cli.agents.interface import Batch, Group, Losses, Spec, Target
from baq_cli.agents.objectives import td_loss
from baq_cli.agents.plans import UNION, Draw, Plan, StoreName
from baq_cli.agents.registry import METHODS
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.experience.reader import StoreReader
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.store import END, Layout, Store
from baq_cli.engine.experience.stores import make_stores, model_store, stores_by_name
from baq_cli.engine.experience.sumtree import SumTree
from baq_cli.engine.experience.windows import Window
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.synthetic import synthetic_updater
from baq_cli.engine.updates.updater import Updater
from baq_cli.nets.critics import QEnsemble
from baq_cli.nets.policies import DeterministicPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe
from support.builders import Array, add_online, dataset_store, replay_of, small_agent
from support.odd_envs import PLAN
from support.recordings import ID
from support.runs import assert_same_end, execute, recipe_of, states, stopped_at, stored_rows

CPU = torch.device("cpu")
GAMMA = 0.5
"""So that its powers, and sums of small whole rewards times them, are exact."""

# -- logs of rows, and a walk over them


@dataclass(frozen=True)
class Row:
    """One transition that somebody wrote down: its number says which."""

    number: float
    reward: float
    terminated: bool
    end: bool

    @property
    def action(self) -> list[float]:
        return [self.number + 0.25, -self.number]

    def fields(self) -> dict[str, Any]:
        """Return it as the fields of a store's row; the column is known by the number."""
        found: dict[str, Any] = {"obs": [self.number], "action": self.action, "reward": self.reward}
        found |= {"next_obs": [self.number + 0.5], "bootstrap": not self.terminated}
        return found | {END: self.end, "mark": 3 * self.number, "priority": 1 + self.number % 4}


Log = Sequence[Row]


def log_of(kinds: Sequence[str], first: float = 0.0) -> Log:
    """Return rows of the given kinds: `.` goes on, `T` terminates, `C` is cut or truncated."""
    return [
        Row(first + k, float((7 * k + first) % 11 - 5), kind == "T", kind != ".")
        for k, kind in enumerate(kinds)
    ]


def walk(log: Log, start: int, steps: int) -> dict[str, Any]:
    """Return what a row of a batch stands for, by going on from row to row."""
    taken = [log[start]]
    for following in log[start + 1 : start + steps]:
        if taken[-1].end:
            break
        taken.append(following)
    missing, alive = steps - len(taken), not any(row.terminated for row in taken)
    after = start + steps
    goes_on = len(taken) == steps and not taken[-1].end and after < len(log)
    return {
        "obs": [log[start].number],
        "action": [a for row in [*taken, *[taken[-1]] * missing] for a in row.action],
        "reward": sum(GAMMA**k * row.reward for k, row in enumerate(taken)),
        "next_obs": [taken[-1].number + 0.5],
        "bootstrap": float(alive),
        "discount": GAMMA ** len(taken) * alive,
        "weight": float(steps == 1 or missing == 0),
        "valid": [1.0] * len(taken) + [0.0] * missing,
        "has_next": float(goes_on),
        "next_action": log[after].action if goes_on else [0.0, 0.0],
        ".mark": 3 * log[start].number,
    }


def assert_as_walked(batch: Batch, logs: Sequence[Log], window: Window) -> None:
    """Check each row of each seed's against a walk over the seed's log; numbers tell rows apart."""
    found = batch.tensors()
    assert ("valid" in found, "has_next" in found) == (window.steps > 1, window.next_action)
    for seed, log in enumerate(logs):
        places = {row.number: k for k, row in enumerate(log)}
        for b in range(batch.reward.shape[1]):
            expected = walk(log, places[float(batch.obs[seed, b, 0])], window.steps)
            for name in expected.keys() & found.keys():
                assert found[name][seed, b].tolist() == expected[name], (name, seed, b)


LAYOUT = Layout(1, 2, (END, "mark", "priority"))


def packed(rows: Sequence[Row], layout: Layout = LAYOUT) -> Tensor:
    """Return rows as a store has them, `[rows, width]`."""
    by_row = [row.fields() for row in rows]
    fields = {name: np.array([each[name] for each in by_row], float) for name in layout.slices}
    return layout.pack({name: torch.from_numpy(values) for name, values in fields.items()})


def ring(logs: Sequence[Log], capacity: int) -> Store:
    """Return a store in which logs of one length were written row by row, one a seed.

    Ends are filled in once they are known, as the engine does.
    """
    store = Store.empty(LAYOUT, len(logs), capacity, CPU)
    store.rows.fill_(float("nan"))  # what nobody wrote must not show
    store.priorities = SumTree(len(logs), capacity, CPU)
    for rows in zip(*logs, strict=True):
        row = packed(rows)
        row[:, LAYOUT.slices[END]] = 0
        slot = store.append(row, row[:, LAYOUT.slices["priority"].start])
        for seed, each in enumerate(rows):
            if each.end:
                store.overwrite(seed, torch.tensor([slot]), END, torch.ones(1))
    return store


windows = st.builds(Window, st.integers(1, 5), st.booleans())
kinds = st.sampled_from("....TC")


@given(windows, st.integers(1, 12), st.integers(1, 30), st.data())
def test_a_ring_gives_what_a_walk_from_row_to_row_finds(
    window: Window, capacity: int, length: int, data: st.DataObject
) -> None:
    many = st.lists(kinds, min_size=length, max_size=length)
    logs = [log_of(data.draw(many), first) for first in (0.0, 1000.0)]
    store = ring(logs, capacity)
    index = torch.arange(store.size).expand(2, -1)
    rows = window.gather(store, index)
    batch = window.batch(LAYOUT, rows, torch.zeros(2, store.size), GAMMA, {})
    kept = [{row.number for row in log[-capacity:]} for log in logs]
    assert [set(numbers) for numbers in batch.obs[..., 0].tolist()] == kept
    assert_as_walked(batch, logs, window)


@given(windows, st.lists(kinds, min_size=1, max_size=20), st.data())
def test_a_dataset_does_so_for_rows_of_a_subset_too(
    window: Window, marks: list[str], data: st.DataObject
) -> None:
    log = log_of(marks)
    store = Store(LAYOUT, packed(log).unsqueeze(0), len(log))
    seeds = [data.draw(st.permutations(range(len(log)))) for _ in range(2)]
    keep = data.draw(st.integers(1, len(log)))
    store.subset = torch.tensor(seeds)[:, :keep]
    index = torch.arange(keep).expand(2, -1)
    batch = window.batch(LAYOUT, window.gather(store, index), torch.zeros(2, keep), GAMMA, {})
    assert batch.obs[..., 0].tolist() == store.subset.tolist()
    assert_as_walked(batch, [log, log], window)


# -- cases worked out by hand


def batch_of(log: Log, window: Window) -> Batch:
    store = ring([log], len(log))
    index = torch.arange(len(log)).unsqueeze(0)
    return window.batch(LAYOUT, window.gather(store, index), torch.ones(index.shape), GAMMA, {})


def test_chunks_at_a_termination_a_cut_and_the_write_head() -> None:
    """Two episodes: three rows that terminate, two that were cut; then three of a third."""
    rewards, kinds = [1, 2, 4, 8, 16, 32, 64, 128], "..T.C..."
    log = [Row(k, r, kinds[k] == "T", kinds[k] != ".") for k, r in enumerate(rewards)]
    batch = batch_of(log, Window(3, next_action=True))
    assert batch.reward.tolist() == [[1 + 1 + 1, 2 + 2, 4, 8 + 8, 16, 32 + 32 + 32, 64 + 64, 128]]
    assert batch.valid is not None
    assert batch.valid.sum(-1).tolist() == [[3, 2, 1, 2, 1, 3, 2, 1]]
    assert batch.weight.tolist() == [[1, 0, 0, 0, 0, 1, 0, 0]]  # one that ends there is whole
    assert batch.bootstrap.tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]]
    assert batch.discount.tolist() == [[0, 0, 0, 0.25, 0.5, 0.125, 0.25, 0.5]]
    assert batch.next_obs[0, :, 0].tolist() == [2.5, 2.5, 2.5, 4.5, 4.5, 7.5, 7.5, 7.5]
    assert batch.action[0, 1].tolist() == [1.25, -1, 2.25, -2, 2.25, -2]
    assert batch.has_next is not None
    assert batch.has_next.tolist() == [[0] * 8]


def test_the_next_action_is_what_was_done_in_the_next_state() -> None:
    batch = batch_of(log_of(".T.C.."), Window(1, next_action=True))
    assert batch.has_next is not None
    assert batch.next_action is not None
    assert batch.has_next.tolist() == [[1, 0, 1, 0, 1, 0]]
    expected = [[1.25, -1], [0, 0], [3.25, -3], [0, 0], [5.25, -5], [0, 0]]
    assert batch.next_action[0].tolist() == expected
    assert batch.valid is None
    assert batch.weight.tolist() == [[1] * 6]
    assert batch.discount.tolist() == [[0.5, 0, 0.5, 0.5, 0.5, 0.5]]


def test_a_window_has_a_step() -> None:
    with pytest.raises(ValueError, match="not 0"):
        Window(0)


# -- in every kind of draw

OFFLINE_LOG = log_of("...T..C.....T.C....T...C")
ONLINE_LOGS = [log_of("..C....T..C..T....", 1000.0), log_of(".T......C.T..C..T.", 2000.0)]
DRAWS: dict[str, tuple[Draw, ...]] = {
    "union": (UNION,),
    "prioritised union": (Draw(("offline", "online"), prioritised=True),),
    "newest": (Draw(("offline", "online"), newest=22),),
    "odds": (Draw(("offline", "online"), odds="odds"),),
    "shares": (Draw(("online",), 0.5, name="new"), Draw(("offline",), 0.5, True, name="old")),
    "otherwise": (Draw(("online",), prioritised=True, otherwise="offline"),),
}


def stores_of(logs: Sequence[Log], capacity: int = 7) -> dict[StoreName, Store]:
    """Return a dataset with a subset, own columns and priorities, and rings that have wrapped."""
    seeds, shared = len(logs), Layout(1, 2, (END,))
    offline = Store(LAYOUT, packed(OFFLINE_LOG, shared).unsqueeze(0), len(OFFLINE_LOG))
    own = [LAYOUT.slices[name].start for name in ("mark", "priority")]
    offline.own = packed(OFFLINE_LOG)[:, own].expand(seeds, -1, -1).contiguous()
    chance = np.random.default_rng(0)
    kept = np.stack([chance.permutation(len(OFFLINE_LOG))[:15]] * seeds)
    offline.subset = torch.from_numpy(kept)
    offline.priorities = SumTree(seeds, 15, CPU)
    offline.priorities.fill(offline.own[..., 1].gather(1, offline.subset).double())
    return {"offline": offline, "online": ring(logs, capacity)}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("window", [Window(3, True), Window(1, True), Window(4)])
def test_every_draw_gives_rows_with_those_that_follow(name: str, window: Window) -> None:
    stores = stores_of(ONLINE_LOGS)
    if name == "otherwise":
        assert stores["online"].priorities is not None
        stores["online"].priorities.set_of(1, torch.arange(7), torch.zeros(7))
    odds = {"odds": torch.tensor([0.3, 0.6])}
    stream = SeedStream((0, 1), "batch")
    replay = Replay(DRAWS[name], stores, stream, 32, GAMMA, odds, window)
    logs = [[*OFFLINE_LOG, *log] for log in ONLINE_LOGS]  # numbers tell the two stores apart
    seen: set[float] = set()
    for _ in range(10):
        batch = replay.batch()
        assert torch.equal(batch.source, (batch.obs[..., 0] >= 1000).float())
        assert END not in batch.columns
        assert_as_walked(batch, logs, window)
        for part in replay.parts:
            assert_as_walked(batch.part(part), logs, window)
        seen |= set(batch.source.flatten().tolist())
    assert seen == {0.0, 1.0}


@pytest.mark.parametrize("name", [name for name in DRAWS if name != "odds"])
def test_a_seed_has_the_same_windows_alone_as_among_others(name: str) -> None:
    window = Window(3, True)

    def batches(which: list[int]) -> list[dict[str, Tensor]]:
        stores = stores_of([ONLINE_LOGS[seed] for seed in which])
        stream = SeedStream(which, "batch")
        replay = Replay(DRAWS[name], stores, stream, 16, GAMMA, {}, window)
        return [replay.batch().tensors() for _ in range(5)]

    for both, alone in zip(batches([0, 1]), batches([1]), strict=True):
        for field, values in both.items():
            assert torch.equal(values[1], alone[field][0]), field


# -- a method whose rows are chunks, in updates and in whole runs

STEPS, EVERY = 24, 7
"""Of a phase, and between checkpoints; episodes have five steps at most."""
RECORD_AFTER = 5


class Chunked(Agent):
    """Cloning of three actions at once, of which it does the first; its critic values all three,
    and what follows them less the farther it is from the next action.
    """

    name = "chunked"
    title = "Chunked"

    policy: DeterministicPolicy

    def build(self, init: SeedStream) -> None:
        spec, hidden = self.spec, self.config.hidden
        self.policy = DeterministicPolicy(init, spec.obs_dim, 3 * spec.action_dim, hidden)
        self.critic = QEnsemble(init, spec.obs_dim, 3 * spec.action_dim, hidden)
        self.critic_target = frozen_copy(self.critic)

    def groups(self) -> dict[str, Group]:
        return {name: Group((getattr(self, name),), 1e-3) for name in ("policy", "critic")}

    def targets(self) -> list[Target]:
        return [Target(self.critic, self.critic_target)]

    def annotate(self, batch: Batch) -> dict[str, Tensor]:
        return {"priority": 0.1 + batch.action.abs().mean(-1)}

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        assert batch.valid is not None
        assert batch.next_action is not None
        assert batch.has_next is not None
        actions = self.policy.mode(batch.obs)
        with torch.no_grad():
            following = self.policy.mode(batch.next_obs)
            next_q = self.critic_target(batch.next_obs, following).amin(1)
            far = (following[..., : self.spec.action_dim] - batch.next_action).square().sum(-1)
            target = batch.reward + batch.discount * (next_q - batch.has_next * far)
        missed = (actions - batch.action).square().unflatten(2, (3, -1)).mean(-1)
        critic = td_loss(self.critic(batch.obs, batch.action), target, batch.weight)
        return Losses({"far": far.mean(1)}, critic=critic, policy=(missed * batch.valid).mean(2))

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        return self.policy.mode(obs)[..., : self.spec.action_dim]

    def act(self, obs: Tensor, noise: SeedStream) -> Tensor:
        return self.explore(obs, noise)

    def offline_plan(self) -> Plan:
        return Plan(window=3, next_action=True)

    def online_plan(self) -> Plan:
        draws = (Draw(("offline", "online"), prioritised=True),)
        config = self.config
        how = {"warmup_env_steps": config.warmup_env_steps, "capacity": config.capacity}
        return Plan(draws, offline_share=0.5, window=3, next_action=True, **how)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, Chunked.name, Chunked)


def trained(phase: Any, device: str, capture: bool, updates: int = 30) -> tuple[Updater, Batch]:
    """Make updates with stores of which the online one grows, fills up and is written over."""
    agent = small_agent(Chunked.name, (0, 1), device, phase)
    learner, stores = Learner(agent), {"offline": dataset_store(agent)}
    online = None
    if phase == "online":
        reached, online = make_stores(agent, learner.plan, stores["offline"], 16)
        stores = stores_by_name(reached, online)
    updater = Updater(learner, replay_of(agent, learner.plan, stores), capture, RECORD_AFTER)
    batch = None
    for step in range(updates):
        if online is not None:
            add_online(agent, online, step)
        batch = updater.step()
    assert batch is not None
    return updater, batch


def assert_same_updates(phase: Any, device: str, **within: float) -> Updater:
    one, drawn = trained(phase, device, capture=True)
    other, others = trained(phase, device, capture=False)
    for name, values in drawn.tensors().items():
        assert torch.equal(values, others.tensors()[name]), name
    held, plain = (u.learner.agent.state_dict() | u.learner.state() for u in (one, other))
    for name, values in held.items():
        assert_allclose(values.cpu(), plain[name].cpu(), err_msg=name, **within)
    return one


@pytest.mark.parametrize("phase", ["offline", "online"])
def test_recorded_updates_with_windows_are_the_eager_ones_in_every_bit(phase: Any) -> None:
    assert assert_same_updates(phase, "cpu", rtol=0, atol=0).records


@pytest.mark.cuda
@pytest.mark.parametrize("phase", ["offline", "online"])
def test_captured_updates_with_windows_are_the_eager_ones(phase: Any) -> None:
    assert assert_same_updates(phase, "cuda", rtol=1e-4, atol=1e-5).graphs


def test_transitions_of_a_model_stand_alone() -> None:
    agent = small_agent(Chunked.name, (0, 1), phase="online")
    plan = agent.online_plan()
    _, online = make_stores(agent, plan, None, 8)
    layout = online.layout
    model = model_store(agent, Plan(model_capacity=4), layout)
    assert model is not None
    reader = StoreReader(agent, {"model": model}, GAMMA, window=Window.of(plan))
    rows = {"obs": torch.rand(2, 4, 3), "action": torch.rand(2, 4, 2), "reward": torch.rand(2, 4)}
    reader.put("model", rows | {"next_obs": torch.rand(2, 4, 3), "bootstrap": torch.ones(2, 4)})
    batch = reader.sample((Draw(("model",)),), 20, SeedStream((0, 1), "noise"))
    assert batch.valid is not None
    assert batch.has_next is not None
    assert batch.valid.tolist() == [[[1, 0, 0]] * 20] * 2
    assert batch.has_next.tolist() == [[0] * 20] * 2


def test_made_up_rows_follow_one_another_so_that_a_bench_measures_whole_windows() -> None:
    updater = synthetic_updater(recipe(), Spec((0, 1), 3, 1), "online", rows=1000)
    batches = [updater.step() for _ in range(50)]
    assert sum(float(batch.weight.mean()) for batch in batches) / 50 > 0.95


def recipe(env: str = "Steady-v0", capacity: int = 11) -> Recipe:
    watched = {"episodes": 1, "background": False}
    watched |= {"every_gradient_steps": EVERY, "every_env_steps": EVERY}
    method = {"warmup_env_steps": 4, "capacity": capacity}
    run = {"env": env, "dataset": ID, "gradient_steps": STEPS, "env_steps": STEPS}
    return recipe_of(Chunked.name, method, **run, evaluation=watched)


@pytest.mark.usefixtures("steady_dataset")
def test_a_run_of_chunks_stopped_and_resumed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    source = None
    for phase in ("offline", "online"):
        whole = tmp_path / phase
        execute(recipe(), whole, source=source)
        for name in list(states(whole))[:-1]:
            parts = stopped_at(whole, name, tmp_path / f"{phase}-{name}")
            execute(recipe(), parts, resume=True, source=source)
            assert_same_end(whole, parts)
        source = whole


def stored_ends(run: Path) -> tuple[Array, Array]:
    """Return, in the order of writing, the step within its episode of each row, and its mark."""
    saved = load(run)
    rows = stored_rows(run)
    rows = rows.roll(-(saved.state["written"] % rows.shape[1]), 1)
    mark = Layout(3, 1, (END,)).slices[END].start
    assert {len(e["rewards"]) > 0 for e in saved.state["running"]} != {False}
    return rows[..., 2].numpy(), rows[..., mark].numpy()


@pytest.mark.usefixtures("steady_dataset")
@pytest.mark.parametrize("env", ["Steady-v0", "Odd-v0"])
def test_the_last_row_of_each_episode_is_marked_where_a_fault_cut_it_too(
    env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(recipe(), tmp_path / "source")
    if env == "Odd-v0":
        monkeypatch.setenv(PLAN, f"raises 27 {tmp_path / 'done'}")
    execute(recipe(env, capacity=STEPS), tmp_path / "run", source=tmp_path / "source")
    assert (tmp_path / "done").exists() == (env == "Odd-v0")
    step, mark = stored_ends(tmp_path / "run")
    begins_after = step[:, 1:] == 0
    assert (mark[:, :-1] == begins_after).all()
    running = [len(e["rewards"]) > 0 for e in load(tmp_path / "run").state["running"]]
    assert (mark[:, -1] == 0).tolist() == running

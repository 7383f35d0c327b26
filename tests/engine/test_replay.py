"""Where batches come from: the priority tree, the ring store, and the plan of draws."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import UNION, Draw, Plan
from baq_cli.engine.experience import reader
from baq_cli.engine.experience.columns import UNKNOWN_RETURN
from baq_cli.engine.experience.reader import StoreReader
from baq_cli.engine.experience.replay import split
from baq_cli.engine.experience.store import Layout, Store
from baq_cli.engine.experience.sumtree import SumTree
from baq_cli.errors import UsageError
from baq_cli.recipes.closed import AgentConfig
from support.builders import GAMMA, stores_in_reach, tiny_spec
from support.chance import is_fair
from support.numbered import (
    CPU,
    LAYOUT,
    SEEDS,
    counts_of,
    filled_online,
    numbered_store,
    replay_of,
    row_of,
    stores_of,
)


def tree_of(*priorities: list[float]) -> SumTree:
    tree = SumTree(len(priorities), len(priorities[0]), CPU)
    tree.fill(torch.tensor(priorities, dtype=torch.float64))
    return tree


def same_sums(a: SumTree, b: SumTree) -> bool:
    """Whether every node, not only the leaves, is equal."""
    return all(torch.equal(x, y) for x, y in zip(a.levels, b.levels, strict=True))


# -- priorities

whole_priorities = st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any)
real_priorities = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-6, 1e3)), min_size=1, max_size=40
).filter(any)


@given(whole_priorities, st.data())
def test_a_mass_falls_in_the_row_whose_cumulative_span_holds_it(
    priorities: list[int], data: st.DataObject
) -> None:
    masses = st.integers(0, 4 * sum(priorities) - 1).map(lambda k: k / 4)
    mass = data.draw(st.lists(masses, min_size=1, max_size=8))
    found = tree_of(priorities).find(torch.tensor([mass], dtype=torch.float64))
    # the first row whose cumulative sum exceeds the mass
    expected = np.searchsorted(np.cumsum(priorities), mass, side="right")
    assert found.tolist() == [expected.tolist()]


@given(real_priorities, st.lists(st.floats(0, 1), min_size=1, max_size=20))
@example([1.0, 2.0, 0.0], [1.0])
@example([0.0] * 33 + [3.0] + [0.0] * 6, [0.0, 1.0])
def test_no_draw_returns_a_row_without_priority_even_at_the_edges(
    priorities: list[float], shares: list[float]
) -> None:
    tree = tree_of(priorities)
    mass = torch.tensor([shares], dtype=torch.float64) * tree.total.unsqueeze(1)
    for row in tree.find(mass)[0].tolist():
        assert row < len(priorities)
        assert priorities[row] > 0


@given(
    whole_priorities,
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 9)), min_size=1, max_size=10),
)
def test_setting_rows_leaves_the_tree_that_filling_would_make(
    priorities: list[int], changes: list[tuple[int, int]]
) -> None:
    tree, wanted = tree_of(priorities, priorities), np.array([priorities, priorities], float)
    for row, priority in changes:
        row %= len(priorities)
        other = (row + 1) % len(priorities)  # the seeds change different rows
        tree.set(torch.tensor([[row], [other]]), torch.tensor([[priority], [priority]]))
        wanted[0, row] = wanted[1, other] = priority
    assert same_sums(tree, tree_of(*wanted.tolist()))
    assert tree.total.tolist() == wanted.sum(1).tolist()


def test_several_rows_can_be_set_at_once() -> None:
    tree = tree_of([1, 1, 1, 1, 1])
    tree.set(torch.tensor([[0, 1, 4]]), torch.tensor([[5.0, 0.0, 2.0]]))
    assert same_sums(tree, tree_of([5, 0, 1, 1, 2]))


def test_filling_sets_the_priorities_that_are_not_given_to_zero() -> None:
    tree = tree_of([1.0] * 40, [2.0] * 40)
    tree.fill(torch.tensor([[3.0, 4.0], [5.0, 0.0]]))
    assert same_sums(tree, tree_of([3, 4] + [0] * 38, [5] + [0] * 39))


def test_a_million_small_priorities_keep_their_sum() -> None:
    tree = SumTree(1, 1 << 20, CPU)
    tree.fill(torch.full((1, 1 << 20), 0.05))
    assert float(tree.total) == pytest.approx((1 << 20) * float(torch.tensor(0.05)), rel=1e-12)


def test_draws_are_in_proportion_to_priorities() -> None:
    rng = np.random.default_rng(3)
    priorities = rng.uniform(0.05, 1.0, size=(2, 37))
    tree = tree_of(*priorities.tolist())
    u = torch.from_numpy(rng.random((2, 60_000)))
    rows = tree.find(u * tree.total.unsqueeze(1)).numpy()
    for seed in (0, 1):
        counts = np.bincount(rows[seed], minlength=37)
        assert is_fair(counts, priorities[seed])
        assert not is_fair(counts, priorities[1 - seed]), "the check must be able to fail"


# -- the ring


def contents(store: Store) -> list[list[float]]:
    index = torch.arange(store.size).expand(len(SEEDS), -1)
    batch = store.layout.batch(store.gather(index), torch.zeros(index.shape), GAMMA)
    assert torch.equal(batch.obs[..., 0], batch.reward)
    return batch.reward.tolist()


def test_a_full_store_overwrites_its_oldest_transition() -> None:
    store = Store.empty(LAYOUT, 2, 3, CPU)
    slots = []
    for step in range(8):
        slots.append(store.append(row_of(LAYOUT, step, 100 + step)))
        kept = range(max(0, step - 2), step + 1)
        assert [sorted(rows) for rows in contents(store)] == [
            [float(k) for k in kept],
            [100.0 + k for k in kept],
        ]
        assert (store.size, store.written) == (min(step + 1, 3), step + 1)
    assert slots == [0, 1, 2, 0, 1, 2, 0, 1]


def test_an_overwritten_transition_takes_its_priority_with_it() -> None:
    store = Store.empty(LAYOUT, 2, 3, CPU)
    store.priorities = SumTree(2, 3, CPU)
    for step in range(5):
        store.append(row_of(LAYOUT, step, step), torch.tensor([1.0 + step, 10.0 * step]))
    leaves = store.priorities.priorities[:, :3]
    assert leaves.tolist() == [[4.0, 5.0, 3.0], [30.0, 40.0, 20.0]]
    assert store.priorities.total.tolist() == [12.0, 90.0]


def test_a_column_is_filled_in_later_for_one_seed_and_its_slots_alone() -> None:
    layout = Layout(1, 1, ("mc_return",))
    store = Store.empty(layout, 2, 4, CPU)
    for step in range(4):
        store.append(row_of(layout, step, step, mc_return=torch.full((2,), -1.0)))
    store.overwrite(1, torch.tensor([1, 3]), "mc_return", torch.tensor([7.0, 8.0]))
    batch = layout.batch(store.gather(torch.arange(4).expand(2, 4)), torch.zeros(2, 4), GAMMA)
    assert batch.columns["mc_return"].tolist() == [[-1] * 4, [-1, 7, -1, 8]]
    assert batch.reward.tolist() == [[0, 1, 2, 3]] * 2


# -- draws


def test_a_union_is_uniform_over_offline_and_online_rows_together() -> None:
    replay = replay_of((UNION,), numbered_store(25), filled_online(7, capacity=50))
    counts = counts_of(replay, 600, [*range(25), *range(1000, 1007)])
    assert is_fair(counts[0], np.ones(32))
    assert is_fair(counts[1], np.ones(32))
    assert not is_fair(counts[0], np.r_[np.full(25, 0.5 / 25), np.full(7, 0.5 / 7)])


def test_a_union_grows_with_the_online_store() -> None:
    online = filled_online(0, capacity=50)
    replay = replay_of((UNION,), numbered_store(10), online)
    assert float(replay.batch().online.sum()) == 0
    for k in range(30):
        online.append(row_of(LAYOUT, 1000 + k, 1000 + k))
    counts = counts_of(replay, 600, [*range(10), *range(1000, 1030)])
    assert is_fair(counts[0], np.ones(40))


def test_a_prioritised_union_weighs_all_rows_on_one_scale() -> None:
    offline, online = numbered_store(5), filled_online(0, capacity=8)
    offline.priorities, online.priorities = SumTree(2, 5, CPU), SumTree(2, 8, CPU)
    offline.priorities.fill(torch.tensor([[1.0, 2, 3, 4, 5], [5, 4, 3, 2, 1]]))
    for k in range(3):
        online.append(row_of(LAYOUT, 1000 + k, 1000 + k), torch.tensor([10.0, 1.0 + k]))
    replay = replay_of((replace(UNION, prioritised=True),), offline, online)
    counts = counts_of(replay, 600, [*range(5), *range(1000, 1003)])
    assert is_fair(counts[0], np.array([1, 2, 3, 4, 5, 10, 10, 10]))
    assert is_fair(counts[1], np.array([5, 4, 3, 2, 1, 1, 2, 3]))


def test_every_row_says_which_store_it_came_from() -> None:
    stores = (numbered_store(25), filled_online(7, capacity=50))
    for draws in ((UNION,), (Draw(("online",), 0.25), Draw(("offline",), 0.75))):
        batch = replay_of(draws, *stores, batch_size=64).batch()
        assert torch.equal(batch.online, (batch.reward >= 1000).float())
        assert set(batch.online.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("batch_size", "share", "online_rows"),
    [(16, 0.25, 4), (16, 0.5, 8), (10, 0.33, 3), (7, 0.5, 4)],
)
def test_fixed_shares_are_exact_in_every_batch(
    batch_size: int, share: float, online_rows: int
) -> None:
    draws = (Draw(("online",), share), Draw(("offline",), 1 - share))
    replay = replay_of(draws, numbered_store(9), filled_online(2, capacity=5), batch_size)
    for _ in range(20):
        batch = replay.batch()
        assert batch.reward.shape == (2, batch_size)
        assert batch.online.sum(1).tolist() == [online_rows] * 2


@given(st.integers(2, 512), st.floats(0.01, 0.99))
@example(16, 0.99)
def test_splits_add_up_and_leave_no_share_empty(batch_size: int, share: float) -> None:
    counts = split(batch_size, [share, 1 - share])
    assert sum(counts) == batch_size
    assert min(counts) >= 1
    assert abs(counts[0] - share * batch_size) <= 1


def test_a_batch_too_small_for_its_shares_is_refused() -> None:
    expected = r"batch_size 1 is too small: expected 2 or more, .* shares \(0\.9, 0\.1\)"
    with pytest.raises(UsageError, match=expected):
        split(1, [0.9, 1 - 0.9])
    assert split(2, [0.9, 1 - 0.9]) == [1, 1]


def test_drawing_from_an_empty_store_is_refused() -> None:
    replay = replay_of((Draw(("online",)),), None, Store.empty(LAYOUT, 2, 4, CPU))
    with pytest.raises(ValueError, match="online store is empty"):
        replay.batch()


def test_seeds_draw_different_rows() -> None:
    batch = replay_of((Draw(("offline",)),), numbered_store(1000), None, batch_size=64).batch()
    assert not torch.equal(batch.reward[0], batch.reward[1])


# -- a part of the dataset in reach


def test_draws_stay_in_each_seeds_own_subset_and_reach_all_of_it() -> None:
    store = numbered_store(40)
    store.subset = torch.tensor([[3, 17, 21, 39, 8], [0, 1, 2, 4, 38]])
    counts = counts_of(replay_of((Draw(("offline",)),), store, None), 300, list(range(40)))
    for seed in (0, 1):
        assert set(np.flatnonzero(counts[seed])) == set(store.subset[seed].tolist())
        assert is_fair(counts[seed][store.subset[seed]], np.ones(5))


class Distances:
    """A method that only annotates: the column and priority of a row are known from its number."""

    data_columns = ()
    spec = tiny_spec(SEEDS, obs_dim=1, action_dim=1)
    config = AgentConfig()
    reprioritises = False

    def annotate(self, batch: Batch) -> dict[str, Tensor]:
        by_seed, number = torch.tensor([[1.0], [3.0]]), batch.obs.squeeze(-1)
        return {"mark": 10 * number + by_seed, "priority": 0.5 + (number % 4) * by_seed}


def stores_with_priorities(share: float) -> tuple[Store, Store, tuple[Draw, ...]]:
    draws = (Draw(("offline",), prioritised=True),)
    plan = Plan(draws, utd=1, warmup_env_steps=0, offline_share=share)
    agent: Any = Distances()
    offline, online = stores_in_reach(agent, plan, numbered_store(24))
    assert offline is not None
    return offline, online, draws


@pytest.mark.parametrize(("share", "kept"), [(1.0, 24), (0.25, 6)])
def test_priorities_and_columns_belong_to_the_rows_that_are_drawn(share: float, kept: int) -> None:
    offline, online, draws = stores_with_priorities(share)
    replay = replay_of(draws, offline, online, batch_size=500)
    batches = [replay.batch() for _ in range(20)]
    for seed, by_seed in enumerate((1.0, 3.0)):
        number = torch.cat([b.reward[seed] for b in batches])
        mark = torch.cat([b.columns["mark"][seed] for b in batches])
        priority = torch.cat([b.columns["priority"][seed] for b in batches])
        assert torch.equal(mark, 10 * number + by_seed)
        assert torch.equal(priority, 0.5 + (number % 4) * by_seed)
        rows, counts = np.unique(number.numpy(), return_counts=True)
        assert len(rows) == kept
        assert is_fair(counts, 0.5 + (rows % 4) * by_seed)
        if offline.subset is not None:
            assert set(rows) == set(offline.subset[seed].tolist())


def test_columns_are_computed_of_transitions_that_are_discounted_as_their_phase_says() -> None:
    agent: Any = SimpleNamespace(**{n: getattr(Distances, n) for n in ("spec", "config")})
    agent.data_columns, agent.reprioritises = (), False
    agent.annotate = lambda batch: {"worth": batch.discount}
    for discount, expected in ((0.7, 0.7), (None, AgentConfig().discount)):
        plan = Plan((Draw(("offline",)),), discount=discount)
        offline, _ = stores_in_reach(agent, plan, numbered_store(3))
        assert offline is not None
        assert offline.own is not None
        worth = torch.tensor(expected) * torch.arange(3.0)  # here a row's flag is its number
        assert torch.equal(offline.own[..., 0], worth.expand(2, 3))


@pytest.mark.parametrize(
    ("share", "least", "kept"),
    [(0.25, 0, 6), (0.25, 10, 10), (0.25, 100, 24), (0.5, 5, 12), (0.01, 0, 0), (0.01, 1, 1)],
)
def test_of_a_dataset_a_share_stays_in_reach_but_so_many_rows_at_least_and_all_at_most(
    share: float, least: int, kept: int
) -> None:
    agent: Any = Distances()
    plan = Plan(offline_share=share, offline_min_rows=least)
    offline, _ = stores_in_reach(agent, plan, numbered_store(24))
    assert offline is not None
    assert offline.reach == offline.reach_on_device() == kept
    assert offline.subset is not None
    for rows in offline.subset.tolist():
        assert len(set(rows) & set(range(24))) == kept


def test_a_subset_is_a_seeds_own_and_the_same_each_time() -> None:
    first, second = stores_with_priorities(0.25)[0], stores_with_priorities(0.25)[0]
    assert torch.equal(first.subset, second.subset)  # type: ignore[arg-type]
    assert set(first.subset[0].tolist()) != set(first.subset[1].tolist())  # type: ignore[index]


def test_the_online_store_holds_no_more_than_the_plan_or_the_phase_needs() -> None:
    agent: Any = Distances()
    for capacity, env_steps, expected in ((10, 64, 10), (100, 64, 64)):
        plan = Plan((Draw(("online",)),), 1, 0, capacity=capacity)
        assert stores_in_reach(agent, plan, None, env_steps)[1].capacity == expected


def test_batches_carry_unit_weights_until_a_method_changes_them() -> None:
    replay = replay_of((UNION,), numbered_store(5), filled_online(3, capacity=4))
    batch = replay.batch()
    assert batch.weight.tolist() == batch.constraint.tolist() == [[1.0] * 16] * 2


def test_a_batch_is_discounted_where_it_bootstraps() -> None:
    batch = replay_of((UNION,), numbered_store(5), filled_online(3, capacity=4)).batch()
    assert torch.equal(batch.bootstrap, batch.reward), "here a row's flag is its number"
    assert torch.equal(batch.discount, torch.tensor(GAMMA) * batch.bootstrap)


# -- the dataset, read in order


def chunks_of(store: Store | None, **asked: Any) -> list[Batch]:
    agent: Any = SimpleNamespace(spec=tiny_spec(SEEDS, obs_dim=1, action_dim=1))
    return list(StoreReader(agent, stores_of(store, None), GAMMA).chunks(**asked))


def read(**asked: Any) -> list[list[float]]:
    """Return the numbers that a reader yields of ten rows, of which every third is held out."""
    layout = Layout(1, 1, ("held_out",))
    marks = [torch.tensor([float(k % 3 == 0)]) for k in range(10)]
    rows = [row_of(layout, float(k), held_out=mark) for k, mark in enumerate(marks)]
    return [b.reward.tolist() for b in chunks_of(Store(layout, torch.cat(rows)[None], 10), **asked)]


def test_a_reader_yields_every_row_in_order_to_each_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CHUNK_ROWS", 4)
    assert read() == [[rows] * 2 for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])]
    assert read(held_out=True) == [[[0, 3, 6, 9]] * 2]
    assert read(held_out=False) == [[rows] * 2 for rows in ([1, 2, 4, 5], [7, 8])]
    assert read(most_rows=4) == [[[0, 3, 6, 9]] * 2]
    assert read(held_out=False, most_rows=2) == [[[1, 8]] * 2]


@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 9))
def test_a_ring_is_read_in_the_order_of_time(capacity: int, times: int, most: int) -> None:
    agent: Any = SimpleNamespace(spec=tiny_spec(SEEDS, obs_dim=1, action_dim=1))
    data = StoreReader(agent, stores_of(None, filled_online(times, capacity)), GAMMA)
    kept = list(range(1000, 1000 + times))[-capacity:]
    assert [b.reward.tolist() for b in data.chunks(store="online")] == [[kept] * 2]
    for batch in data.chunks(store="online", most_rows=most):
        some = batch.reward[0].tolist()
        assert (some, len(some)) == (sorted(some), min(most, len(kept)))
        assert some[0] == kept[0]


@given(st.integers(1, 12), st.lists(st.integers(1, 30), max_size=4))
def test_rows_written_together_are_those_written_one_by_one(
    capacity: int, sizes: list[int]
) -> None:
    """Also more of them at once than there is room for."""
    together, one_by_one = (Store.empty(LAYOUT, 2, capacity, CPU) for _ in range(2))
    for size in sizes:
        first = int(one_by_one.written)
        rows = [row_of(LAYOUT, first + k, 100 + first + k) for k in range(size)]
        together.extend(torch.stack(rows, dim=1))
        for row in rows:
            one_by_one.append(row)
    in_time = [store.rows[:, store.in_time()] for store in (together, one_by_one)]
    assert torch.equal(*in_time)


def test_rows_of_a_model_have_the_columns_that_it_gives_and_else_those_of_no_known_episode() -> (
    None
):
    layout = Layout(1, 1, ("mc_return", "held_out"))
    agent: Any = SimpleNamespace(spec=tiny_spec(SEEDS, obs_dim=1, action_dim=1))
    store = Store.empty(layout, 2, 4, CPU)
    rows = Layout(1, 1, ()).unpack(row_of(LAYOUT, 5, 6).unsqueeze(1))
    for said in ({}, {"mc_return": torch.tensor([[7.0], [8.0]])}):
        StoreReader(agent, {"model": store}, GAMMA).put("model", rows | said)
    found = layout.unpack(store.rows[:, : store.size])
    assert found["mc_return"].tolist() == [[UNKNOWN_RETURN, 7], [UNKNOWN_RETURN, 8]]
    assert found["held_out"].tolist() == [[0, 0]] * 2
    assert found["reward"].tolist() == [[5, 5], [6, 6]]


def test_what_a_reader_yields_is_of_the_dataset_and_discounted() -> None:
    (batch,) = chunks_of(numbered_store(3))
    assert not batch.online.any()
    assert torch.equal(batch.discount, torch.tensor(GAMMA) * batch.bootstrap)
    assert chunks_of(None) == chunks_of(None, held_out=True) == []

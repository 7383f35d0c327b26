"""Every draw is one search over cumulative priorities, of one store or of two end to end."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.agents.plans import UNION, StoreName
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.store import Layout, Store
from baq_cli.engine.experience.sumtree import SumTree
from baq_cli.nets.streams import SeedStream
from support.builders import Array
from support.chance import is_fair

CPU = torch.device("cpu")
LAYOUT = Layout(1, 1, ())
SEEDS = 2

some_priorities = st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1e3)), min_size=1, max_size=40)
inside = st.lists(st.floats(0.05, 0.95), min_size=1, max_size=8)
"""Where in its row's span a mass lies: clear of the edges, whose last bit depends on the sum."""


def search(priorities: Array, mass: Array) -> Array:
    """Return the rows in whose cumulative spans masses fall, row by row."""
    found = []
    for one in mass:
        row = 0
        while one >= priorities[: row + 1].sum():
            row += 1
        found.append(row)
    return np.array(found)


def mass_inside(priorities: Array, shares: list[float]) -> Array:
    """Return a mass inside the span of every row that has one, at these shares of it in turn."""
    rows = np.flatnonzero(priorities)
    at = np.resize(shares, len(rows))
    return (np.cumsum(priorities) - priorities)[rows] + at * priorities[rows]


def assert_finds(tree: SumTree, priorities: Array, shares: list[float]) -> None:
    for seed, own in enumerate(priorities):
        mass = mass_inside(own, shares)
        every_seed = torch.from_numpy(np.stack([mass] * SEEDS))
        expected = search(own, mass)
        assert np.array_equal(expected, np.flatnonzero(own))
        assert tree.find(every_seed)[seed].tolist() == expected.tolist()


@given(some_priorities, inside, st.data())
def test_finding_is_a_search_over_the_cumulative_sum_whatever_was_set(
    priorities: list[float], shares: list[float], data: st.DataObject
) -> None:
    count = len(priorities)
    wanted = np.array([priorities, priorities[::-1]])
    tree = SumTree(SEEDS, count, CPU)
    tree.fill(torch.from_numpy(wanted))
    assert_finds(tree, wanted, shares)
    for _ in range(data.draw(st.integers(1, 4))):
        most = st.integers(1, count)
        several = data.draw(most)
        rows = np.array([data.draw(st.permutations(range(count)))[:several] for _ in range(SEEDS)])
        one = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))
        values = np.array(
            data.draw(st.lists(one, min_size=SEEDS * several, max_size=SEEDS * several))
        ).reshape(SEEDS, several)
        tree.set(torch.from_numpy(rows), torch.from_numpy(values))
        np.put_along_axis(wanted, rows, values, axis=1)
        assert_finds(tree, wanted, shares)


# -- two stores end to end


def numbered(first: int, count: int, seeds: int = 1) -> torch.Tensor:
    """Return transitions that carry their numbers in every field, `[seeds, count, width]`."""
    values = torch.arange(first, first + count, dtype=torch.float32)
    return values.view(1, -1, 1).expand(seeds, -1, LAYOUT.width).clone()


def draw_at(u: Array, offline: Store, online: Store, prioritised: bool) -> Array:
    """Return the numbers of the transitions that these random numbers draw, `[S, B]`."""
    stream: Any = SimpleNamespace(index=lambda count: torch.from_numpy(u))
    draws = (replace(UNION, prioritised=prioritised),)
    stores: dict[StoreName, Store] = {"offline": offline, "online": online}
    batch = Replay(draws, stores, stream, u.shape[1], 0.99).batch()
    assert torch.equal(batch.online, (batch.reward >= 1000).float())
    return batch.reward.long().numpy()


positive = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12)


@given(positive, positive, inside)
def test_a_prioritised_union_is_a_search_over_both_stores_end_to_end(
    old: list[float], new: list[float], shares: list[float]
) -> None:
    offline = Store(LAYOUT, numbered(0, len(old)), len(old))
    online = Store.empty(LAYOUT, SEEDS, 16, CPU)
    offline.priorities = SumTree(SEEDS, len(old), CPU)
    online.priorities = SumTree(SEEDS, 16, CPU)
    offline.priorities.fill(torch.tensor([old, old[::-1]], dtype=torch.float64))
    for k, priority in enumerate(new):
        row = numbered(1000 + k, 1, SEEDS)[:, 0]
        online.append(row, torch.tensor([priority, new[-1 - k]], dtype=torch.float64))
    both = np.array([old + new, old[::-1] + new[::-1]])
    numbers = np.r_[np.arange(len(old)), 1000 + np.arange(len(new))]
    mass = np.stack([mass_inside(own, shares) for own in both])
    u = mass / both.sum(1, keepdims=True)
    found = draw_at(u, offline, online, prioritised=True)
    for seed in range(SEEDS):
        assert found[seed].tolist() == numbers[search(both[seed], mass[seed])].tolist()


@given(st.integers(1, 30), st.integers(1, 40), inside)
def test_a_uniform_union_is_every_row_in_use_end_to_end(
    old: int, written: int, shares: list[float]
) -> None:
    offline, online = Store(LAYOUT, numbered(0, old), old), Store.empty(LAYOUT, SEEDS, 16, CPU)
    for k in range(written):  # past sixteen the slots are written anew, in the same order
        online.append(numbered(1000 + k % 16, 1, SEEDS)[:, 0])
    rows = old + min(written, 16)
    numbers = np.r_[np.arange(old), 1000 + np.arange(rows - old)]
    u = np.stack([mass_inside(np.ones(rows), shares) / rows] * SEEDS)
    found = draw_at(u, offline, online, prioritised=False)
    assert found.tolist() == [numbers.tolist()] * SEEDS


# -- what the device knows of a store's size


def assert_reach(store: Store, expected: int) -> None:
    on_device = store.reach_on_device()
    assert (store.reach, on_device.item(), on_device.dtype) == (expected, expected, torch.float64)


def test_the_reach_on_the_device_is_the_hosts_after_everything_that_changes_it() -> None:
    store = Store.empty(LAYOUT, SEEDS, 5, CPU)
    held = store.reach_on_device()
    assert_reach(store, 0)
    for k in range(8):
        store.append(numbered(k, 1, SEEDS)[:, 0])
        assert_reach(store, min(k + 1, 5))
        store.overwrite(0, torch.tensor([0]), "reward", torch.tensor([1.0]))
        assert_reach(store, min(k + 1, 5))
    assert held is store.reach_on_device(), "a graph reads one place in memory, at each replay"
    for size, written in ((2, 2), (5, 5), (5, 13)):
        other = Store.empty(LAYOUT, SEEDS, 5, CPU)
        other.refill(numbered(0, size, SEEDS), written)
        assert_reach(other, size)
        assert other.append(numbered(0, 1, SEEDS)[:, 0]) == written % 5
        assert_reach(other, min(size + 1, 5))
    shared = Store(LAYOUT, numbered(0, 9), 9)
    assert_reach(shared, 9)
    shared.subset = torch.tensor([[8, 1, 3], [0, 2, 4]])
    assert_reach(shared, 3)


def test_draws_follow_an_online_store_as_it_grows_fills_and_is_refilled() -> None:
    offline = Store(LAYOUT, numbered(0, 12), 12)
    offline.subset = torch.tensor([[0, 3, 5, 11], [1, 2, 4, 8]])
    online = Store.empty(LAYOUT, SEEDS, 6, CPU)
    stream = SeedStream(range(SEEDS), "draws")
    replay = Replay((UNION,), {"offline": offline, "online": online}, stream, 2000, 0.99)

    def assert_uniform(newest: int, size: int) -> None:
        drawn = replay.batch().reward.long().numpy()
        for seed in range(SEEDS):
            wanted = {*offline.subset[seed].tolist(), *range(newest - size + 1, newest + 1)}
            rows, counts = np.unique(drawn[seed], return_counts=True)
            assert set(rows.tolist()) == wanted
            assert is_fair(counts, np.ones(4 + size))

    for k in range(1000, 1010):
        online.append(numbered(k, 1, SEEDS)[:, 0])
        assert_uniform(k, min(k - 999, 6))
    fresh = Store.empty(LAYOUT, SEEDS, 6, CPU)
    fresh.refill(online.rows.clone(), online.written)
    replay.stores["online"] = fresh
    assert_uniform(1009, 6)
    fresh.append(numbered(1010, 1, SEEDS)[:, 0])
    assert_uniform(1010, 6)

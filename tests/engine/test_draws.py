"""What a plan may ask of its draws: shares of any size, the newest rows, odds, a stand-in, names.

A draw is compared with a plain list of rows: evenly spaced random numbers must give each of them
once, whatever the stores look like inside.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from baq_cli.agents.interface import MODEL, OFFLINE, ONLINE, Batch
from baq_cli.agents.plans import UNION, Draw
from baq_cli.engine.experience import sumtree
from baq_cli.engine.experience.replay import Replay, split
from baq_cli.engine.experience.store import Store
from baq_cli.engine.experience.sumtree import SumTree
from baq_cli.nets.streams import SeedStream
from support.builders import Array
from support.chance import is_fair
from support.numbered import (
    CPU,
    LAYOUT,
    SEEDS,
    counts_of,
    drawn_at,
    filled_online,
    middles,
    numbered_store,
    replay_of,
    row_of,
    stores_of,
)

CAPACITY = 8
sizes = st.integers(1, 12)
written = st.integers(1, 3 * CAPACITY)
"""Times that the ring was written: less than a round, a whole one, or several."""

# -- shares


@given(st.integers(1, 300), st.lists(st.floats(0.05, 10), min_size=1, max_size=4))
@example(256, [1.0, 9.0])
@example(1, [0.05, 0.05])
@example(16, [0.5])
def test_shares_that_add_up_to_something_else_are_each_of_the_batch_size(
    batch_size: int, shares: list[float]
) -> None:
    if abs(sum(shares) - 1) < 1e-6:
        return
    counts = split(batch_size, shares)
    assert len(counts) == len(shares)
    for count, share in zip(counts, shares, strict=True):
        assert count == max(1, round(share * batch_size))


def test_a_batch_is_as_large_as_the_shares_of_its_draws() -> None:
    draws = (Draw(("online",), 1.0), Draw(("offline", "online"), 2.5))
    batch = replay_of(draws, numbered_store(9), filled_online(3, CAPACITY), 8).batch()
    assert batch.reward.shape == (2, 8 + 20)
    assert bool((batch.reward[:, :8] >= 1000).all())
    assert bool((batch.reward[:, 8:] < 1000).any())


# -- parts


def test_a_named_part_is_its_draws_rows_of_every_tensor() -> None:
    draws = (
        Draw(("online",), 0.25, name="fresh"),
        Draw(("offline", "online"), 0.5),
        Draw(("offline",), 1.0, name="old"),
    )
    batch = replay_of(draws, numbered_store(9), filled_online(3, CAPACITY), 8).batch()
    assert batch.parts == {"fresh": slice(0, 2), "old": slice(6, 14)}
    for name, source in (("fresh", ONLINE), ("old", OFFLINE)):
        part, rows = batch.part(name), batch.parts[name]
        assert set(part.source.flatten().tolist()) == {source}
        for field, tensor in batch.tensors().items():
            assert torch.equal(part.tensors()[field], tensor[:, rows]), field
            assert part.tensors()[field].data_ptr() == tensor[:, rows].data_ptr(), field
        assert part.parts == {}
    with pytest.raises(KeyError):
        batch.part("middle")


def test_neighbours_of_one_name_are_one_part() -> None:
    draws = (
        Draw(("online",), 0.25, name="mixed"),
        Draw(("offline",), 0.5, name="mixed"),
        Draw(("offline",), 0.5, name="old"),
    )
    batch = replay_of(draws, numbered_store(9), filled_online(3, CAPACITY), 8).batch()
    assert batch.parts == {"mixed": slice(0, 6), "old": slice(6, 10)}
    assert batch.part("mixed").online.sum(1).tolist() == [2, 2]
    apart = (draws[0], draws[2], draws[1])
    with pytest.raises(ValueError, match="'mixed' don't follow each other"):
        replay_of(apart, numbered_store(9), filled_online(3, CAPACITY), 8)


def test_a_part_of_a_batch_has_its_columns() -> None:
    values = torch.arange(6.0).view(2, 3)
    fields = dict.fromkeys(("reward", "bootstrap", "discount", "weight", "constraint"), values)
    wide = {n: values.unsqueeze(2) for n in ("obs", "action", "next_obs")}
    batch = Batch(**fields, **wide, source=values, columns={"mark": values}, parts={"b": slice(1)})
    assert batch.part("b").columns["mark"].tolist() == [[0.0], [3.0]]
    again = Batch.from_tensors(batch.tensors(), batch.parts)
    assert again.tensors().keys() == batch.tensors().keys()
    assert again.part("b").columns["mark"].tolist() == [[0.0], [3.0]]


# -- where a row comes from


def test_a_models_rows_are_neither_of_the_dataset_nor_online() -> None:
    stores: Any = {"online": filled_online(3, CAPACITY), "model": numbered_store(4)}
    for first, other in (("online", "model"), ("model", "online")):
        draw: Any = Draw((first, other))
        batch = drawn_at(middles(70), draw, stores)
        expected = torch.where(batch.reward >= 1000, ONLINE, MODEL)
        assert torch.equal(batch.source, expected)
        assert torch.equal(batch.online, (batch.reward >= 1000).float())
        assert set(batch.source.flatten().tolist()) == {ONLINE, MODEL}


# -- the newest rows


def newest_of(
    draw: Draw, laid: list[list[int]], gone: Collection[int] = (), **stores: Store | None
) -> None:
    """Check that a draw of the newest gives each of the last rows of a list, of each seed, once.

    But for those that are `gone`.
    """
    assert isinstance(draw.newest, int)
    last = [[row for row in rows[-draw.newest :] if row not in gone] for rows in laid]
    batch = drawn_at(middles(len(last[0])), draw, stores_of(**stores))
    for seed in range(len(SEEDS)):
        assert sorted(batch.reward[seed].long().tolist()) == sorted(last[seed])
    edges = np.array([[0.0, 1 - 2.0**-53]] * 2)
    batch = drawn_at(edges, draw, stores_of(**stores))
    for seed in range(len(SEEDS)):
        assert set(batch.reward[seed].long().tolist()) <= set(last[seed])


def online(times: int) -> list[int]:
    """Return the numbers of the rows that were written to a ring, oldest first."""
    return list(range(1000, 1000 + times))


def ring(times: int) -> list[int]:
    """Return the numbers of the rows that a ring holds, oldest first."""
    return online(times)[-CAPACITY:]


@given(st.integers(1, 20), written)
@example(CAPACITY, CAPACITY)
@example(3, 2 * CAPACITY)
def test_the_newest_of_a_ring_are_the_last_written(newest: int, times: int) -> None:
    draw = Draw(("online",), newest=newest)
    newest_of(draw, [ring(times)] * 2, offline=None, online=filled_online(times, CAPACITY))


@given(st.integers(1, 20), sizes)
def test_the_newest_of_a_dataset_are_its_last_rows(newest: int, size: int) -> None:
    draw = Draw(("offline",), newest=newest)
    newest_of(draw, [list(range(size))] * 2, offline=numbered_store(size), online=None)


@given(st.integers(1, 8), st.permutations(range(12)), st.permutations(range(12)))
def test_the_newest_of_what_is_in_reach_are_the_last_of_that(
    newest: int, one: list[int], other: list[int]
) -> None:
    store = numbered_store(12)
    store.subset = torch.tensor([one[:6], other[:6]])
    draw = Draw(("offline",), newest=newest)
    newest_of(draw, store.subset.tolist(), offline=store, online=None)


@given(st.integers(1, 24), sizes, written)
@example(5, 4, 3 * CAPACITY)
@example(CAPACITY, 1, CAPACITY)
@example(20, 12, 3)
def test_the_newest_of_a_union_are_the_last_of_both_laid_end_to_end(
    newest: int, size: int, times: int
) -> None:
    """Online rows that were written over push rows of the dataset out all the same."""
    stores = {"offline": numbered_store(size), "online": filled_online(times, CAPACITY)}
    laid, gone = [*range(size), *online(times)], online(times)[:-CAPACITY]
    newest_of(replace(UNION, newest=newest), [laid] * 2, gone, **stores)
    turned = [*ring(times), *range(size)]
    newest_of(Draw(("online", "offline"), newest=newest), [turned] * 2, **stores)


@pytest.mark.parametrize("capacity", [CAPACITY, 3])
@pytest.mark.parametrize(("newest", "size"), [(5, 3), ("offline", 5)])
def test_the_newest_follow_a_store_as_it_is_written(newest: Any, size: int, capacity: int) -> None:
    """Also as many as a dataset has: a queue of its size, in which what comes pushes one out."""
    store = filled_online(0, capacity)
    replay = replay_of((replace(UNION, newest=newest),), numbered_store(size), store, 400)
    laid = [*range(size)]
    for k in range(1000, 1020):
        store.append(row_of(LAYOUT, k, k))
        laid.append(k)
        for drawn in replay.batch().reward.long().numpy():
            rows, counts = np.unique(drawn, return_counts=True)
            assert rows.tolist() == [
                row for row in sorted(laid[-5:]) if not 1000 <= row <= k - capacity
            ]
            assert is_fair(counts, np.ones(len(rows)))


def test_the_newest_by_a_store_in_reach_and_all_where_that_has_nothing() -> None:
    offline, online = numbered_store(12), filled_online(2, CAPACITY)
    offline.subset = torch.tensor([[3, 9, 1], [4, 5, 6]])
    batch = drawn_at(middles(300), replace(UNION, newest="offline"), stores_of(offline, online))
    for drawn, last in zip(batch.reward.long().tolist(), (1, 6), strict=True):
        assert set(drawn) == {last, 1000, 1001}
    for stores in (stores_of(None, online), stores_of(filled_online(0, 4), online)):
        batch = drawn_at(middles(300), replace(UNION, newest="offline"), stores)
        assert set(batch.reward.long().flatten().tolist()) == {1000, 1001}


# -- odds


@given(
    st.tuples(*[st.integers(0, 50)] * 2),
    sizes,
    written,
)
@example((0, 50), 3, 5)
@example((50, 0), 3, 5)
def test_odds_say_for_each_seed_how_many_rows_are_of_the_first_store(
    fiftieths: tuple[int, int], size: int, times: int
) -> None:
    """Whatever the sizes of the stores; within each of them rows are as likely as each other."""
    stores = stores_of(numbered_store(size), filled_online(times, CAPACITY))
    odds = {"trust": torch.tensor(fiftieths, dtype=torch.float64) / 50}
    draw = Draw(("online", "offline"), odds="trust")
    batch = drawn_at(middles(50 * 24 * 7), draw, stores, odds)
    for seed, fiftieth in enumerate(fiftieths):
        drawn = batch.reward[seed].long().numpy()
        assert (drawn >= 1000).sum() == fiftieth * 24 * 7
        for rows in (ring(times), range(size)):
            counts = np.array([(drawn == row).sum() for row in rows])
            assert counts.max() - counts.min() <= 1
    assert torch.equal(batch.online, (batch.reward >= 1000).float())


def test_odds_are_read_at_every_draw() -> None:
    odds = {"trust": torch.tensor([0.25, 0.75])}
    stores = numbered_store(5), filled_online(3, CAPACITY)
    replay = replay_of((Draw(("online", "offline"), odds="trust"),), *stores, 2000, odds)
    for shares in ([0.25, 0.75], [1.0, 0.0], [0.9, 0.1], [0.0, 1.0]):
        odds["trust"].copy_(torch.tensor(shares))
        found = replay.batch().online.mean(1)
        for share, expected in zip(found.tolist(), shares, strict=True):
            spread = 5 * (expected * (1 - expected) / 2000) ** 0.5
            assert abs(share - expected) <= spread


def test_odds_choose_the_store_and_priorities_the_row_in_it() -> None:
    offline, online = prioritised(numbered_store(3), [[1.0, 2, 3]] * 2), filled_online(2, CAPACITY)
    online = prioritised(online, [[8.0, 1.0]] * 2)
    draw = Draw(("offline", "online"), prioritised=True, odds="trust")
    replay = replay_of((draw,), offline, online, odds={"trust": torch.tensor([0.5, 0.2])})
    counts = counts_of(replay, 500, [0, 1, 2, 1000, 1001])
    for seed, first in enumerate((0.5, 0.2)):
        shares = np.r_[first * np.array([1, 2, 3]) / 6, (1 - first) * np.array([8, 1]) / 9]
        assert is_fair(counts[seed], shares)


def test_where_one_of_two_stores_is_empty_odds_choose_the_other() -> None:
    odds = {"trust": torch.tensor([1.0, 0.0])}
    draw = Draw(("online", "offline"), odds="trust")
    batch = replay_of((draw,), numbered_store(3), filled_online(0, 4), odds=odds).batch()
    assert not batch.online.any()


# -- in another's stead


def prioritised(store: Store, priorities: list[list[float]]) -> Store:
    """Return the store with these priorities of its rows, of each seed."""
    store.priorities = SumTree(len(SEEDS), store.capacity, CPU)
    store.priorities.fill(torch.tensor(priorities, dtype=torch.float64))
    return store


def drawn(replay: Replay) -> Array:
    return replay.batch().reward.long().numpy()


BY_PRIORITY = Draw(("online",), prioritised=True, otherwise="offline")


@pytest.mark.parametrize("fan", [3, 32])
@pytest.mark.parametrize("rows", [5, 40])
def test_a_seed_without_any_priority_draws_from_the_other_store_and_others_don_t(
    fan: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sumtree, "FAN", fan)
    some = np.random.default_rng(0).uniform(0, 1, rows).tolist()
    online = prioritised(filled_online(rows, rows), [[0.0] * rows, some])
    batch = replay_of((BY_PRIORITY,), numbered_store(7), online, 2000).batch()
    assert set(batch.source[0].tolist()) == {OFFLINE}
    numbers = batch.reward[0].long().numpy()
    assert is_fair(np.bincount(numbers, minlength=7), np.ones(7))
    # the other seed draws what it does beside a neighbour that has priorities
    beside = prioritised(filled_online(rows, rows), [some, some])
    alone = replay_of((replace(BY_PRIORITY, otherwise=None),), None, beside, 2000).batch()
    assert torch.equal(batch.reward[1], alone.reward[1])
    assert set(batch.source[1].tolist()) == {ONLINE}


def test_a_seed_draws_its_own_rows_once_one_of_them_counts() -> None:
    online = prioritised(filled_online(5, CAPACITY), [[0.0] * 5] * 2)
    replay = replay_of((BY_PRIORITY,), numbered_store(7), online)
    assert online.priorities is not None
    assert drawn(replay).max() < 7
    online.priorities.set(torch.tensor([[3], [1]]), torch.tensor([[1.0], [0.0]]))
    found = drawn(replay)
    assert set(found[0].tolist()) == {1003}
    assert found[1].max() < 7


def test_in_a_union_one_store_may_count_for_nothing() -> None:
    offline = prioritised(numbered_store(3), [[0.0, 0, 0], [1, 2, 3]])
    online = prioritised(filled_online(4, CAPACITY), [[1.0, 2, 3, 4], [0, 0, 0, 0]])
    replay = replay_of((replace(UNION, prioritised=True),), offline, online)
    counts = counts_of(replay, 300, [0, 1, 2, 1000, 1001, 1002, 1003])
    assert counts[0, :3].sum() == counts[1, 3:].sum() == 0
    assert is_fair(counts[0, 3:], np.array([1, 2, 3, 4]))
    assert is_fair(counts[1, :3], np.array([1, 2, 3]))


@pytest.mark.parametrize("draw", [BY_PRIORITY, Draw(("online",), newest=3, otherwise="offline")])
@pytest.mark.parametrize("online", [None, filled_online(0, 4)])
def test_a_store_that_is_empty_or_not_there_is_stood_in_for_uniformly(
    draw: Draw, online: Store | None
) -> None:
    offline = prioritised(numbered_store(4), [[1.0, 0, 0, 0]] * 2)
    counts = counts_of(replay_of((draw,), offline, online), 100, list(range(4)))
    for seed in counts:
        assert is_fair(seed, np.ones(4))
    with pytest.raises(ValueError, match="online store is empty"):
        replay_of((draw,), None, online).batch()


def test_a_store_that_has_rows_needs_no_other() -> None:
    online = prioritised(filled_online(4, 4), [[1.0, 0, 0, 0], [0, 0, 0, 1]])
    for offline in (None, numbered_store(1)):
        found = drawn(replay_of((BY_PRIORITY,), offline, online))
        assert [set(row.tolist()) for row in found] == [{1000}, {1003}]


@given(st.integers(1, 12), st.integers(0, 12))
def test_a_store_with_too_few_rows_is_stood_in_for_whole(least: int, times: int) -> None:
    """Not by row, and until it holds as many as are asked for."""
    draw = Draw(("online",), least=least, newest=3, otherwise="offline")
    batch = drawn_at(middles(24), draw, stores_of(numbered_store(4), filled_online(times, 12)))
    own = times >= least
    assert set(batch.source.flatten().tolist()) == {ONLINE if own else OFFLINE}
    first = 1000 + max(0, times - 3)
    rows = range(first, 1000 + times) if own else range(4)
    assert set(batch.reward.flatten().long().tolist()) == set(rows)


def test_the_rows_that_a_union_must_hold_are_both_stores_together() -> None:
    draw = Draw(("offline", "online"), least=6)
    with pytest.raises(ValueError, match="the offline and online store has fewer than 6 rows"):
        replay_of((draw,), numbered_store(3), filled_online(2, CAPACITY)).batch()
    batch = replay_of((draw,), numbered_store(3), filled_online(3, CAPACITY), 64).batch()
    assert set(batch.source.flatten().tolist()) == {OFFLINE, ONLINE}


def test_what_is_recorded_of_a_draw_ends_where_its_store_has_enough() -> None:
    draw = Draw(("online",), least=3, otherwise="offline")
    online = filled_online(2, CAPACITY)
    replay = replay_of((draw,), numbered_store(4), online)
    before = replay.reached
    online.append(row_of(LAYOUT, 1002, 1002))
    assert replay.reached != before
    after = replay.reached
    online.append(row_of(LAYOUT, 1003, 1003))
    assert replay.reached == after


# -- what contradicts itself


@pytest.mark.parametrize(
    ("draw", "match"),
    [
        (Draw(("offline", "online", "model")), "two stores at most"),
        (Draw(("online",), prioritised=True, newest=5), "can't be prioritised"),
        (Draw(("online",), odds="trust"), "between two stores"),
        (Draw(("offline", "online"), newest=5, odds="trust"), "odds can't move them"),
    ],
)
def test_a_draw_that_contradicts_itself_is_refused(draw: Draw, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Replay((draw,), {"online": filled_online(2, 4)}, SeedStream(SEEDS, "batch"), 8, 0.9)

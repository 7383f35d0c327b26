"""Stores of transitions that carry their numbers: the dataset's from 0, online ones from 1000."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import Draw, StoreName
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.store import Layout, Store
from baq_cli.nets.streams import SeedStream
from support.builders import GAMMA, Array

CPU = torch.device("cpu")
SEEDS = (0, 1)
LAYOUT = Layout(1, 1, ())


def row_of(layout: Layout, *values: float, **columns: Tensor) -> Tensor:
    """Return one transition a seed, `[S, width]`, that carries its number in every field."""
    value = torch.tensor(values)
    wide = value.unsqueeze(-1)
    fields = {"obs": wide, "action": wide, "next_obs": wide, "reward": value, "bootstrap": value}
    return layout.pack(fields | columns)


def numbered_store(count: int, first: int = 0) -> Store:
    """Return a store that seeds share."""
    return Store(LAYOUT, torch.cat([row_of(LAYOUT, first + k) for k in range(count)])[None], count)


def filled_online(count: int, capacity: int, first: int = 1000) -> Store:
    """Return a ring that was written `count` times."""
    store = Store.empty(LAYOUT, 2, capacity, CPU)
    for k in range(count):
        store.append(row_of(LAYOUT, first + k, first + k))
    return store


def stores_of(offline: Store | None, online: Store | None) -> dict[StoreName, Store]:
    given: dict[StoreName, Store | None] = {"offline": offline, "online": online}
    return {name: store for name, store in given.items() if store is not None}


def replay_of(
    draws: tuple[Draw, ...],
    offline: Store | None,
    online: Store | None,
    batch_size: int = 16,
    odds: dict[str, Tensor] | None = None,
) -> Replay:
    stream = SeedStream(SEEDS, "batch")
    return Replay(draws, stores_of(offline, online), stream, batch_size, GAMMA, odds)


def drawn_at(
    u: Array,
    draw: Draw,
    stores: dict[StoreName, Store],
    odds: dict[str, Tensor] | None = None,
) -> Batch:
    """Return the batch that these random numbers `[S, B]` draw."""
    stream: Any = SimpleNamespace(index=lambda count: torch.from_numpy(u))
    return Replay((draw,), stores, stream, u.shape[1], GAMMA, odds).batch()


def middles(count: int) -> Array:
    """Return one number in the middle of each of `count` equal parts of [0, 1), for each seed."""
    return np.stack([(np.arange(count) + 0.5) / count] * len(SEEDS))


def counts_of(replay: Replay, batches: int, numbers: list[int]) -> Array:
    """Return how often each numbered transition was drawn, `[S, numbers]`."""
    seen = [replay.batch().reward for _ in range(batches)]
    drawn = torch.cat(seen, dim=1).numpy()
    assert set(np.unique(drawn)) <= set(numbers)
    return np.array([[(seed == k).sum() for k in numbers] for seed in drawn])

"""The stores as a method sees them between updates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import Draw, StoreName
from baq_cli.engine.experience.columns import DATA_COLUMNS, HELD_OUT, data_layout
from baq_cli.engine.experience.replay import SOURCES, Replay
from baq_cli.engine.experience.store import Store
from baq_cli.engine.experience.stores import annotate
from baq_cli.engine.experience.windows import ONE_STEP, Window
from baq_cli.nets.streams import SeedStream

CHUNK_ROWS = 4096


class StoreReader:
    """Read stores in order or by draws, and write what a model makes; see `interface.Experience`.

    A store that isn't there has no rows.
    """

    def __init__(
        self,
        agent: Agent,
        stores: Mapping[StoreName, Store],
        discount: float,
        odds: Mapping[str, Tensor] | None = None,
        window: Window = ONE_STEP,
    ):
        self._agent, self._stores = agent, dict(stores)
        self._discount, self._odds, self._window = discount, odds, window

    def size(self, store: StoreName) -> int:
        """Return the rows of a store, a seed."""
        return self._stores[store].size if store in self._stores else 0

    def chunks(
        self,
        held_out: bool | None = None,
        most_rows: int | None = None,
        store: StoreName = "offline",
    ) -> Iterator[Batch]:
        """Yield a store's rows in the order they were written to it, `[S, ≤ 4096]`.

        When no episode is held out (a dataset of one), `held_out=True` yields every row.
        Raises ValueError when `held_out` is asked for by a method without that data column.
        """
        if store not in self._stores:
            return
        kept = self._stores[store]
        rows = kept.in_time()
        if held_out is not None:
            if HELD_OUT not in kept.layout.slices:
                raise ValueError(f"held-out rows are told by the data column '{HELD_OUT}'")
            mark = kept.rows[0, rows, kept.layout.slices[HELD_OUT].start]
            chosen = rows[(mark > 0) == held_out]
            rows = chosen if len(chosen) else rows
        if most_rows is not None and len(rows) > most_rows:
            rows = rows[torch.linspace(0, len(rows) - 1, most_rows).long()]
        seeds = len(self._agent.spec.seeds)
        for part in rows.split(CHUNK_ROWS):
            packed = kept.rows[:, part].expand(seeds, -1, -1)
            source = torch.full(packed.shape[:2], SOURCES[store], device=packed.device)
            yield data_layout(kept.layout).batch(packed, source, self._discount)

    def sample(self, draws: Sequence[Draw], rows: int, noise: SeedStream) -> Batch:
        """Draw a batch of `rows` transitions a seed, `[S, rows]`, with the plan's window."""
        how = self._discount, self._odds, self._window
        return Replay(draws, self._stores, noise, rows, *how).batch()

    def put(self, store: Literal["model"], rows: Mapping[str, Tensor]) -> None:
        """Write K transitions a seed into a store: `[S, K, …]` by field; own columns are computed.

        Raises ValueError without a `model_capacity`.
        """
        if store not in self._stores:
            raise ValueError(f"there is no {store} store: the plan's model_capacity is 0")
        kept, reward = self._stores[store], rows["reward"]
        known = data_layout(kept.layout)
        data = {n: torch.full_like(reward, DATA_COLUMNS[n].made) for n in known.columns}
        fields = data | dict(rows)
        if kept.layout.columns != known.columns:
            source = torch.full_like(reward, SOURCES[store])
            batch = known.batch(known.pack(fields), source, self._discount)
            fields |= annotate(self._agent, batch)
        kept.extend(kept.layout.pack(fields))

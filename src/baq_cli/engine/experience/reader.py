"""The stores as a method sees them between updates."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from baq_cli.agents.interface import OFFLINE, Batch
from baq_cli.engine.experience.store import Store

CHUNK_ROWS = 4096


class StoreReader:
    """Read a dataset in order; see `agents.interface.Experience`. Without one there are no rows."""

    def __init__(self, store: Store | None, seeds: int, discount: float):
        self._store = store
        self._seeds = seeds
        self._discount = discount

    def chunks(self, held_out: bool | None = None, most_rows: int | None = None) -> Iterator[Batch]:
        """Yield the store's rows `[S, ≤ 4096]`.

        When no episode is held out (a dataset of one), `held_out=True` yields every row.
        """
        store = self._store
        if store is None:
            return
        rows = torch.arange(store.size, device=store.rows.device)
        if held_out is not None:
            mark = store.rows[0, : store.size, store.layout.slices["held_out"].start]
            chosen = rows[(mark > 0) == held_out]
            rows = chosen if len(chosen) else rows
        if most_rows is not None and len(rows) > most_rows:
            rows = rows[torch.linspace(0, len(rows) - 1, most_rows).long()]
        for part in rows.split(CHUNK_ROWS):
            packed = store.rows[0, part].unsqueeze(0).expand(self._seeds, -1, -1)
            source = torch.full(packed.shape[:2], OFFLINE, device=packed.device)
            yield store.layout.batch(packed, source, self._discount)

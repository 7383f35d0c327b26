"""Batches, as a method's plan wants them drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from baq_cli.agents.interface import Batch, Draw
from baq_cli.engine.experience.store import Store
from baq_cli.errors import UsageError
from baq_cli.nets.streams import SeedStream


class Replay:
    """Draw batches from an offline and an online store, by a plan of shares and priorities.

    Every random number comes from the seeds' own streams, in an order that depends on the plan
    alone.
    """

    def __init__(
        self,
        draws: Sequence[Draw],
        offline: Store | None,
        online: Store | None,
        stream: SeedStream,
        batch_size: int,
    ):
        self.draws = tuple(draws)
        self.offline, self.online = offline, online
        self.stream = stream
        self.counts = split(batch_size, [draw.share for draw in draws])

    def batch(self, stream: SeedStream | None = None) -> Batch:
        """Draw one batch, `[S, B]` transitions. `stream` stands in for the replay's own."""
        parts = [
            self._draw(draw, (stream or self.stream).index(count))
            for draw, count in zip(self.draws, self.counts, strict=True)
        ]
        store = self.offline or self.online
        assert store is not None
        if len(parts) == 1:
            return store.layout.batch(*parts[0])
        rows, online = (torch.cat(pieces, dim=1) for pieces in zip(*parts, strict=True))
        return store.layout.batch(rows, online)

    def _draw(self, draw: Draw, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return a row for each of `u [S, count]`, and 1 where it is from the online store.

        Shapes: `[S, count, width]` and `[S, count]`; u is uniform on [0, 1).
        """
        stores = {"offline": [self.offline], "online": [self.online]}
        chosen = stores.get(draw.store, [self.offline, self.online])
        present = [s for s in chosen if s is not None and s.reach > 0]
        if not present:
            raise ValueError(f"nothing to draw: the {draw.store} store is empty")
        if len(present) == 1:
            store = present[0]
            rows = store.gather(_locate(store, u, draw.prioritised))
            return rows, torch.full_like(u, float(store is self.online), dtype=torch.float32)
        return self._draw_union(present[0], present[1], u, draw.prioritised)

    def _draw_union(
        self, offline: Store, online: Store, u: Tensor, prioritised: bool
    ) -> tuple[Tensor, Tensor]:
        first = _mass(offline, u, prioritised) / (
            _mass(offline, u, prioritised) + _mass(online, u, prioritised)
        )
        is_online = u >= first
        within = torch.where(is_online, (u - first) / (1 - first), u / first)
        old = offline.gather(_locate(offline, torch.where(is_online, 0.0, within), prioritised))
        new = online.gather(_locate(online, torch.where(is_online, within, 0.0), prioritised))
        return torch.where(is_online.unsqueeze(-1), new, old), is_online.to(torch.float32)


def _mass(store: Store, u: Tensor, prioritised: bool) -> Tensor:
    """Return how much a store counts in a union, `[S, 1]` float64: rows, or priorities."""
    if prioritised and store.priorities is not None:
        return store.priorities.total.unsqueeze(1)
    return store.reach_on_device().expand(u.shape[0], 1)


def _locate(store: Store, u: Tensor, prioritised: bool) -> Tensor:
    """Turn numbers in [0, 1) into row indices, `[S, B]` int64."""
    if prioritised and store.priorities is not None:
        return store.priorities.find(u * store.priorities.total.unsqueeze(1))
    reach = store.reach_on_device()
    return torch.minimum(u * reach, reach - 1).long()


def split(batch_size: int, shares: Sequence[float]) -> list[int]:
    """Return how many rows each share gets: rounded, the last taking what remains, none empty."""
    counts: list[int] = []
    for k, share in enumerate(shares[:-1]):
        most = batch_size - sum(counts) - (len(shares) - 1 - k)  # a row for each that follows
        counts.append(max(1, min(round(batch_size * share), most)))
    counts.append(batch_size - sum(counts))
    if counts[-1] < 1:
        raise UsageError(f"batch_size {batch_size} is too small for shares {list(shares)}")
    return counts

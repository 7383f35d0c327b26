"""Batches, as a method's plan wants them drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from baq_cli.agents.interface import MODEL, OFFLINE, ONLINE, Batch
from baq_cli.agents.plans import Draw, StoreName
from baq_cli.engine.experience.store import Store
from baq_cli.engine.experience.windows import ONE_STEP, Window
from baq_cli.errors import UsageError
from baq_cli.nets.streams import SeedStream

SOURCES: dict[StoreName, float] = {"offline": OFFLINE, "online": ONLINE, "model": MODEL}
Reached = tuple[tuple[StoreName, ...], StoreName | None]
"""The stores that a draw has rows from, and the one that stands in for them."""
ANY = Draw()
"""How rows are drawn in another's stead: uniformly."""


class Replay:
    """Draw batches from stores, by a plan of shares, priorities and odds.

    A row of a batch has those that follow it in its `window`.
    Every random number comes from the seeds' own streams, in an order that depends on the plan
    alone. `odds` holds the buffers `[S]` that draws name.
    Raises ValueError for draws that contradict themselves, UsageError for a batch too small.
    """

    def __init__(
        self,
        draws: Sequence[Draw],
        stores: Mapping[StoreName, Store],
        stream: SeedStream,
        batch_size: int,
        discount: float,
        odds: Mapping[str, Tensor] | None = None,
        window: Window = ONE_STEP,
    ):
        self.draws = tuple(draws)
        self.stores = dict(stores)
        self.stream = stream
        self.discount = discount
        self.odds = dict(odds or {})
        self.window = window
        self._drawn: list[_Drawn] = []
        self.counts = split(batch_size, [draw.share for draw in draws])
        self.parts = named_parts(self.draws, self.counts)
        for draw in self.draws:
            _check(draw)

    @property
    def reached(self) -> tuple[Reached, ...]:
        """The stores that each draw has rows from. The operations of a batch depend on them."""
        return tuple(self._reached(draw) for draw in self.draws)

    def batch(self, stream: SeedStream | None = None) -> Batch:
        """Draw one batch, `[S, B]` transitions. `stream` stands in for the replay's own."""
        self._drawn, parts, start = [], [], 0
        for draw, count in zip(self.draws, self.counts, strict=True):
            before = len(self._drawn)
            parts.append(self._draw(draw, (stream or self.stream).index(count)))
            if not draw.prioritised:
                del self._drawn[before:]
            for drawn in self._drawn[before:]:
                drawn.rows = slice(start, start + count)
            start += count
        layout = next(iter(self.stores.values())).layout
        rows, source = parts[0]
        if len(parts) > 1:
            rows, source = (torch.cat(pieces, dim=1) for pieces in zip(*parts, strict=True))
        return self.window.batch(layout, rows, source, self.discount, self.parts)

    def _draw(self, draw: Draw, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return a row for each of `u [S, count]`, uniform on [0, 1), and its source.

        Shapes: `[S, count, width]` and `[S, count]`.
        """
        present, other = self._reached(draw)
        if not present and other is None:
            raise ValueError(_nothing_in(draw))
        if not present and other is not None:
            return self._from_one(other, ANY, u)
        if len(present) == 1:
            drawn = self._from_one(present[0], draw, u)
        else:
            drawn = self._from_two(present[0], present[1], draw, u)
        if other is None or not draw.prioritised:
            return drawn
        return self._instead(drawn, len(present), other, u)

    def _reached(self, draw: Draw) -> Reached:
        """Return the stores of a draw that have rows to give, and the one that stands in."""
        rows = {name: store.reach for name, store in self.stores.items() if store.reach > 0}
        present = tuple(name for name in draw.stores if name in rows)
        if sum(rows[name] for name in present) < draw.least:
            present = ()
        return present, draw.otherwise if draw.otherwise in rows else None

    def _from_one(self, name: StoreName, draw: Draw, u: Tensor) -> tuple[Tensor, Tensor]:
        store = self.stores[name]
        most = self._newest(draw, store)
        newest = None if most is None else torch.minimum(store.reach_on_device(), most)
        index = _locate(store, u, draw.prioritised, newest)
        self._drawn.append(_Drawn(store, index, None))
        rows = self.window.gather(store, index)
        return rows, torch.full_like(u, SOURCES[name], dtype=torch.float32)

    def _from_two(
        self, one: StoreName, other: StoreName, draw: Draw, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw from a union: u below the first store's part of it falls there."""
        stores = self.stores[one], self.stores[other]
        masses, newest = self._masses(stores, draw, u)
        first = masses[0] / (masses[0] + masses[1])
        if draw.odds is not None:
            first = self.odds[draw.odds].double().unsqueeze(1)
        is_other = u >= first
        within = torch.where(is_other, (u - first) / (1 - first), u / first)
        places = torch.where(is_other, 0.0, within), torch.where(is_other, within, 0.0)
        where = [
            _locate(store, place, draw.prioritised, most)
            for store, place, most in zip(stores, places, newest, strict=True)
        ]
        old, new = map(self.window.gather, stores, where)
        self._drawn.append(_Drawn(stores[0], where[0], ~is_other))
        self._drawn.append(_Drawn(stores[1], where[1], is_other))
        low, high = SOURCES[one], SOURCES[other]
        source = is_other.to(torch.float32) * (high - low) + low
        return torch.where(is_other.unsqueeze(-1), new, old), source

    def set_priorities(self, priorities: Tensor) -> None:
        """Give the rows of the last batch new priorities, `[S, B]`, where draws go by them.

        Rows that a uniform draw returned keep theirs. Of a row that was drawn twice, by two draws
        too, the greater counts: no order of writing decides.
        """
        for store in self.stores.values():
            found = [drawn for drawn in self._drawn if drawn.store is store]
            if store.priorities is not None and found:
                store.priorities.change(
                    torch.cat([drawn.index for drawn in found], dim=1),
                    torch.cat([priorities[:, drawn.rows] for drawn in found], dim=1),
                    torch.cat([drawn.in_batch() for drawn in found], dim=1),
                )

    def _masses(
        self, stores: tuple[Store, Store], draw: Draw, u: Tensor
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return how much each store counts in a union, and of how many of its last rows."""
        most = self._newest(draw, stores[1])
        if most is None:
            return [_mass(store, u, draw.prioritised) for store in stores], [None, None]
        later = torch.minimum(stores[1].reach_on_device(), most)
        left = (most - stores[1].written_on_device()).clamp(min=0)
        earlier = torch.minimum(stores[0].reach_on_device(), left)
        return [n.expand(u.shape[0], 1) for n in (earlier, later)], [earlier, later]

    def _newest(self, draw: Draw, like: Store) -> Tensor | None:
        """Return of how many last rows a draw is, a float64 scalar on the device; None: of all."""
        if isinstance(draw.newest, int):
            return torch.full_like(like.reach_on_device(), draw.newest)
        store = None if draw.newest is None else self.stores.get(draw.newest)
        return None if store is None or store.reach == 0 else store.reach_on_device()

    def _instead(
        self, drawn: tuple[Tensor, Tensor], own: int, other: StoreName, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give seeds whose priorities are all zero rows of another store, uniformly.

        `own` is how many stores the others' rows are from.
        """
        mine = self._drawn[-own:]
        none = torch.stack([_mass(each.store, u, True) for each in mine]).sum(0) <= 0
        rows, source = self._from_one(other, ANY, u)
        for each in mine:
            each.chosen = ~none & each.in_batch()
        self._drawn[-1].chosen = none.expand_as(self._drawn[-1].index)
        return (
            torch.where(none.unsqueeze(-1), rows, drawn[0]),
            torch.where(none, source, drawn[1]),
        )


@dataclass
class _Drawn:
    """Rows of a store that a draw returned: `index [S, count]`, and which of them the batch has;
    None: all. `rows` are their places in the batch.
    """

    store: Store
    index: Tensor
    chosen: Tensor | None
    rows: slice = field(default_factory=lambda: slice(None))

    def in_batch(self) -> Tensor:
        """Return which rows the batch has, `[S, count]` bool."""
        every = torch.ones_like(self.index, dtype=torch.bool)
        return every if self.chosen is None else self.chosen


def _nothing_in(draw: Draw) -> str:
    stores = " and ".join(draw.stores)
    fewer = "is empty" if draw.least <= 1 else f"has fewer than {draw.least} rows"
    return f"nothing to draw: the {stores} store {fewer}"


def named_parts(draws: Sequence[Draw], counts: Sequence[int]) -> dict[str, slice]:
    """Return where the rows of each name lie; neighbours of one name are one part.

    Raises ValueError for draws of one name that are no neighbours.
    """
    parts: dict[str, slice] = {}
    for draw, count, end in zip(draws, counts, accumulate(counts), strict=True):
        before = parts.get(draw.name, slice(end - count, end - count))
        if draw.name and before.stop != end - count:
            raise ValueError(f"the draws of the part '{draw.name}' don't follow each other")
        if draw.name:
            parts[draw.name] = slice(before.start, end)
    return parts


def _check(draw: Draw) -> None:
    if len(draw.stores) > 2:
        raise ValueError(f"a draw is from two stores at most, not {draw.stores}")
    if draw.prioritised and draw.newest is not None:
        raise ValueError("a draw of the newest rows is uniform: it can't be prioritised")
    if draw.odds is not None and len(draw.stores) != 2:
        raise ValueError("odds choose between two stores")
    if draw.odds is not None and draw.newest is not None:
        raise ValueError("the newest rows of two stores lie where they lie: odds can't move them")


def _mass(store: Store, u: Tensor, prioritised: bool) -> Tensor:
    """Return how much a store counts in a union, `[S, 1]` float64: rows, or priorities."""
    if prioritised and store.priorities is not None:
        return store.priorities.total.unsqueeze(1)
    return store.reach_on_device().expand(u.shape[0], 1)


def _locate(store: Store, u: Tensor, prioritised: bool, newest: Tensor | None) -> Tensor:
    """Turn numbers in [0, 1) into row indices, `[S, B]` int64; with `newest`, of the last rows."""
    if prioritised and store.priorities is not None:
        return store.priorities.find(u * store.priorities.total.unsqueeze(1))
    if newest is not None:
        return store.newest(torch.minimum(u * newest, (newest - 1).clamp(min=0)))
    reach = store.reach_on_device()
    return torch.minimum(u * reach, reach - 1).long()


def split(batch_size: int, shares: Sequence[float]) -> list[int]:
    """Return how many rows each share gets: rounded, none empty.

    Where the shares add up to 1 the last takes what remains of the batch.
    """
    if not math.isclose(sum(shares), 1.0):
        return [max(1, round(batch_size * share)) for share in shares]
    counts: list[int] = []
    for k, share in enumerate(shares[:-1]):
        most = batch_size - sum(counts) - (len(shares) - 1 - k)  # a row for each that follows
        counts.append(max(1, min(round(batch_size * share), most)))
    counts.append(batch_size - sum(counts))
    if counts[-1] < 1:
        parts = ", ".join(f"{share:g}" for share in shares)
        raise UsageError(
            f"batch_size {batch_size} is too small: expected {len(shares)} or more, a row for each "
            f"of its shares ({parts})"
        )
    return counts

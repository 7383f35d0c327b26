"""Transitions as rows of one packed matrix: the dataset, shared by seeds, and online stores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.engine.experience.sumtree import SumTree

BLOCK_ROWS = 8192
"""Rows of a block, the unit in which a checkpoint notes what has changed."""
PRIORITY = "priority"
END = "end"
"""The engine's own column: 1 in an episode's last row, where its next row is no continuation."""
FIELDS = ("obs", "action", "next_obs", "reward", "bootstrap")


class Layout:
    """Where each field of a transition lies in a row. Extra columns follow the fields."""

    def __init__(self, obs_dim: int, action_dim: int, columns: Sequence[str]):
        widths = {"obs": obs_dim, "action": action_dim, "next_obs": obs_dim}
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.columns = tuple(columns)
        self.slices: dict[str, slice] = {}
        start = 0
        for name in (*FIELDS, *columns):
            self.slices[name] = slice(start, start + widths.get(name, 1))
            start = self.slices[name].stop
        self.width = start

    def pack(self, fields: dict[str, Tensor]) -> Tensor:
        """Return rows `[..., width]` from fields; one-wide fields come without their last axis."""
        parts = [
            fields[name] if name in ("obs", "action", "next_obs") else fields[name].unsqueeze(-1)
            for name in self.slices
        ]
        return torch.cat([part.to(torch.float32) for part in parts], dim=-1)

    def unpack(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the fields of rows `[..., width]`, as `pack` takes them: views."""
        wide = ("obs", "action", "next_obs")
        return {n: rows[..., at if n in wide else at.start] for n, at in self.slices.items()}

    def batch(
        self,
        rows: Tensor,
        source: Tensor,
        discount: float,
        parts: dict[str, slice] | None = None,
    ) -> Batch:
        """Return the rows `[S, B, width]` of such sources `[S, B]` as a batch of views."""
        get, ones = self.slices, torch.ones_like(source)
        bootstrap = rows[..., get["bootstrap"].start]
        return Batch(
            obs=rows[..., get["obs"]],
            action=rows[..., get["action"]],
            next_obs=rows[..., get["next_obs"]],
            reward=rows[..., get["reward"].start],
            bootstrap=bootstrap,
            discount=discount * bootstrap,
            weight=ones,
            constraint=ones,
            source=source,
            columns={n: rows[..., get[n].start] for n in self.columns if n != END},
            parts=parts or {},
        )


class Store:
    """Rows of S seeds, or one set of rows that all seeds share.

    Shapes: rows `[S or 1, capacity, width]`; `own [S, capacity, K]` holds columns of shared rows
    that differ by seed; `priorities`, when kept, has S trees. `size` counts the rows in use (the
    same for every seed); writing past `capacity` overwrites the oldest.
    """

    def __init__(self, layout: Layout, rows: Tensor, size: int, own_columns: Sequence[str] = ()):
        self.layout = layout
        self.rows = rows
        self.capacity = rows.shape[1]
        self.written = 0
        self.size = 0
        self._size_on_device, self._written_on_device = (
            torch.zeros((), dtype=torch.float64, device=rows.device) for _ in range(2)
        )
        self._count(size)
        self.own_columns = tuple(own_columns)
        self.own: Tensor | None = None
        self._own_kept = False
        self.subset: Tensor | None = None
        self.priorities: SumTree | None = None
        self.keeps_priorities = True
        """Whether blocks hold priorities too; where updates change them, they are kept whole."""
        self._changed: set[int] = set()

    @classmethod
    def empty(cls, layout: Layout, seeds: int, capacity: int, device: torch.device) -> Store:
        """Return a store with room for `capacity` transitions a seed.

        Memory is committed as it is written, so a large capacity costs nothing at first.
        """
        return cls(layout, torch.empty(seeds, capacity, layout.width, device=device), 0)

    def append(self, rows: Tensor, priorities: Tensor | None = None) -> int:
        """Write one transition a seed, `[S, width]`; return the slot it went to."""
        slot = self.written % self.capacity
        self.rows[:, slot] = rows
        if priorities is not None and self.priorities is not None:
            at = torch.full((rows.shape[0], 1), slot, dtype=torch.int64, device=rows.device)
            self.priorities.set(at, priorities.unsqueeze(1))
        self._count(self.written + 1)
        self._changed.add(slot // BLOCK_ROWS)
        return slot

    def extend(self, rows: Tensor) -> None:
        """Write K transitions a seed, `[S, K, width]`, the last ones where K is above capacity."""
        rows = rows[:, -self.capacity :]
        at = (self.written + torch.arange(rows.shape[1], device=rows.device)) % self.capacity
        self.rows[:, at] = rows
        self._count(self.written + rows.shape[1])
        self._changed.update((at // BLOCK_ROWS).unique().tolist())

    def own_blocks(self) -> list[dict[str, Tensor] | None]:
        """Return the own columns of shared rows, by blocks; None for those of the last call."""
        if self.own is None:
            return []
        parts = self.own.split(BLOCK_ROWS, dim=1)
        found = [None if self._own_kept else {"own": part} for part in parts]
        self._own_kept = True
        return found

    def own_is_kept(self) -> None:
        """Note that a checkpoint has the own columns already."""
        self._own_kept = True

    def refill(self, rows: Tensor, written: int) -> None:
        """Continue from rows `[S, size, width]`, after `written` appends."""
        self.rows[:, : rows.shape[1]] = rows.to(self.rows.device)
        self._count(written)
        self._changed = set(range(-(-self.size // BLOCK_ROWS)))

    def blocks(self) -> list[dict[str, Tensor] | None]:
        """Return the rows in use, by blocks, with their priorities; None for a block that has not
        changed since the last call.
        """
        found: list[dict[str, Tensor] | None] = []
        for number in range(-(-self.size // BLOCK_ROWS)):
            if number not in self._changed:
                found.append(None)
                continue
            part = slice(number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, self.size))
            block = {"rows": self.rows[:, part]}
            if self.priorities is not None and self.keeps_priorities:
                block["priorities"] = self.priorities.priorities[:, part]
            found.append(block)
        self._changed.clear()
        return found

    def refill_blocks(self, blocks: Sequence[dict[str, Tensor]], written: int) -> None:
        """Continue from the blocks of a checkpoint, after `written` appends."""
        if blocks:
            self.refill(torch.cat([block["rows"] for block in blocks], dim=1), written)
            if self.priorities is not None and self.keeps_priorities:
                kept = torch.cat([block["priorities"] for block in blocks], dim=1)
                self.priorities.fill(kept.to(self.rows.device))
        self._changed.clear()

    def _count(self, written: int) -> None:
        self.written = written
        self._written_on_device.fill_(written)
        size = min(written, self.capacity)
        if size != self.size:
            self.size = size
            self._size_on_device.fill_(size)

    def overwrite(self, seed_index: int, slots: Tensor, column: str, values: Tensor) -> None:
        """Fill in a column that was not known when the rows were written, `[K]` values.

        The column `priority` is what prioritised draws use from then on.
        """
        self.rows[seed_index, slots, self.layout.slices[column].start] = values.to(self.rows)
        if column == PRIORITY and self.priorities is not None:
            self.priorities.set_of(seed_index, slots, values.to(self.rows.device))
        self._changed.update((slots // BLOCK_ROWS).unique().tolist())

    def gather(self, index: Tensor) -> Tensor:
        """Return rows at `index [S, B]` (int64), `[S, B, width]`."""
        return self._rows_at(self._placed(index))

    def follow(self, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the rows from `index [S, B]` on in time, and which of them are valid.

        Shapes: `[S, B, count, width]`, `[S, B, count]`. A row is valid, 1, unless an episode ended
        before it or it is not written yet; rows behind the last valid one repeat it. A row of a
        subset is followed by the dataset's next one.
        """
        first, step = self._placed(index).unsqueeze(-1), torch.arange(count, device=index.device)
        written_later = torch.remainder(self._written_on_device.long() - 1 - first, self.capacity)
        place = torch.remainder(first + torch.minimum(step, written_later), self.capacity)
        ends = _gather(self.rows[..., self.layout.slices[END]], place.flatten(1))
        goes_on = (1 - ends.view(place.shape)[..., :-1]).cumprod(-1)
        valid = torch.cat([torch.ones_like(goes_on[..., :1]), goes_on], dim=-1)
        valid = valid * (step <= written_later)
        last = valid.sum(-1, keepdim=True).long() - 1
        place = torch.remainder(first + torch.minimum(step, last), self.capacity)
        return self._rows_at(place.flatten(1)).unflatten(1, place.shape[1:]), valid

    def _placed(self, index: Tensor) -> Tensor:
        """Return where the rows lie that are in reach at an index."""
        return index if self.subset is None else self.subset.gather(1, index)

    def _rows_at(self, place: Tensor) -> Tensor:
        rows = _gather(self.rows, place)
        if self.own is None:
            return rows
        return torch.cat([rows, _gather_by_seed(self.own, place)], dim=-1)

    @property
    def reach(self) -> int:
        """Rows that a draw may return: all in use, or the size of the subset."""
        return self.size if self.subset is None else self.subset.shape[1]

    def reach_on_device(self) -> Tensor:
        """Return `reach` as a float64 scalar that a captured draw reads anew at each replay."""
        if self.subset is None:
            return self._size_on_device
        return torch.full_like(self._size_on_device, self.subset.shape[1])

    def written_on_device(self) -> Tensor:
        """Return the rows that were ever in reach, those written over too, as `reach_on_device`."""
        return self._written_on_device if self.subset is None else self.reach_on_device()

    def in_time(self) -> Tensor:
        """Return where the rows in use lie, `[size]` int64, in the order they were written."""
        times = torch.arange(self.written - self.size, self.written, device=self.rows.device)
        return times % self.capacity

    def newest(self, age: Tensor) -> Tensor:
        """Return where the rows of an age lie: 0 is the last one, `[S, B]` int64 of float64.

        The age is below `reach`. A captured draw reads anew where the last row is.
        """
        if self.subset is not None:
            return (self.subset.shape[1] - 1 - age.floor()).long()
        last = self._written_on_device - 1
        return torch.remainder(last - age.floor(), self.capacity).long()


def _gather(rows: Tensor, index: Tensor) -> Tensor:
    """Return rows `[S, B, width]` at `index [S, B]`, of each seed or shared by all."""
    if rows.shape[0] == 1:
        return rows[0].index_select(0, index.flatten()).unflatten(0, index.shape)
    return _gather_by_seed(rows, index)


def _gather_by_seed(rows: Tensor, index: Tensor) -> Tensor:
    seeds, capacity, _ = rows.shape
    offset = torch.arange(seeds, device=rows.device).unsqueeze(1) * capacity
    return rows.flatten(0, 1).index_select(0, (index + offset).flatten()).unflatten(0, index.shape)

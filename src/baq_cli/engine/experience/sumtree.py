"""Drawing rows in proportion to their priority, for all seeds at once."""

from __future__ import annotations

import torch
from torch import Tensor

FAN = 32
"""Children of a node: a million rows are four levels, each a few operations on FAN numbers."""
JUST_BELOW = 1.0 - 2.0**-52


class SumTree:
    """A tree of sums a seed; drawing and setting cost O(FAN · log_FAN(capacity)) a row.

    Shapes: S seeds; priorities of rows are leaves `[S, capacity]`, zero until set; every inner
    node is its children's sum (float64, so that a million small priorities don't drift). `levels`
    are the nodes, those below the root first, each level `[S, a multiple of FAN]`. With `changes`
    there is a leaf more, which `change` needs.
    """

    def __init__(self, seeds: int, capacity: int, device: torch.device, changes: bool = False):
        self._spare, self.changes = capacity, changes
        sizes = [capacity + changes]
        while sizes[-1] > FAN:
            sizes.append(-(-sizes[-1] // FAN))
        self.levels = [
            torch.zeros(seeds, -(-size // FAN) * FAN, dtype=torch.float64, device=device)
            for size in reversed(sizes)
        ]

    @property
    def total(self) -> Tensor:
        """The sum of all priorities, `[S]`."""
        return self.levels[0].sum(1)

    @property
    def priorities(self) -> Tensor:
        """Every row's priority, `[S, at least capacity]`."""
        return self.levels[-1]

    def fill(self, priorities: Tensor) -> None:
        """Set the first rows' priorities, `[S, M]`, the others to zero, and rebuild the sums."""
        for level in self.levels:
            level.zero_()
        self.levels[-1][:, : priorities.shape[1]] = priorities
        for above, below in zip(self.levels[-2::-1], self.levels[:0:-1], strict=True):
            sums = below.unflatten(1, (-1, FAN)).sum(-1)
            above[:, : sums.shape[1]] = sums

    def set(self, rows: Tensor, priorities: Tensor) -> None:
        """Set the priorities `[S, K]` of K distinct rows `[S, K]` (int64)."""
        self.levels[-1].scatter_(1, rows, priorities.to(torch.float64))
        for above, below in zip(self.levels[-2::-1], self.levels[:0:-1], strict=True):
            rows = rows // FAN
            above.scatter_(1, rows, _children(below, rows).sum(-1))

    def change(self, rows: Tensor, priorities: Tensor, chosen: Tensor | None = None) -> None:
        """Set the priorities `[S, K]` of rows `[S, K]`, the greatest of those a row is given.

        Those that are not `chosen [S, K]` change nothing: they go to a leaf behind all rows, which
        stays zero.
        """
        given = priorities.to(torch.float64)
        if chosen is not None:
            rows = torch.where(chosen, rows, self._spare)
            given = torch.where(chosen, given, 0.0)
        leaves = self.levels[-1]
        leaves.scatter_reduce_(1, rows, given, reduce="amax", include_self=False)
        for above, below in zip(self.levels[-2::-1], self.levels[:0:-1], strict=True):
            rows = rows // FAN
            above.scatter_(1, rows, _children(below, rows).sum(-1))

    def set_of(self, seed_index: int, rows: Tensor, priorities: Tensor) -> None:
        """Set the priorities `[K]` of K distinct rows `[K]` (int64) of one seed."""
        at = rows.expand(len(self.priorities), -1)
        values = self.priorities.gather(1, at)
        values[seed_index] = priorities.to(values)
        self.set(at, values)

    def find(self, mass: Tensor) -> Tensor:
        """Return the row in which each cumulative mass `[S, B]` (float64, below total) falls.

        It is row 0 for a seed whose priorities are all zero.
        """
        mass = torch.where(self.total.unsqueeze(1) > 0, mass, -1.0)
        node = torch.zeros_like(mass, dtype=torch.int64)
        for level in self.levels:
            reached = _children(level, node).cumsum(-1)  # [S, B, FAN]
            mass = torch.minimum(mass, reached[..., -1] * JUST_BELOW)  # rounding must not pass it
            child = (reached <= mass.unsqueeze(-1)).sum(-1)  # the first that reaches further
            before = reached.gather(-1, (child - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
            mass = mass - torch.where(child > 0, before, 0.0)
            node = node * FAN + child
        return node


def _children(level: Tensor, nodes: Tensor) -> Tensor:
    """Return the children of nodes `[S, K]`, `[S, K, FAN]`."""
    at = nodes.unsqueeze(-1).expand(-1, -1, FAN)
    return level.unflatten(1, (-1, FAN)).gather(1, at)

"""Drawing rows in proportion to their priority, for all seeds at once."""

from __future__ import annotations

import torch
from torch import Tensor


class SumTree:
    """A complete binary tree of sums a seed; drawing and setting cost O(log capacity) a row.

    Shapes: S seeds; priorities of rows are leaves `[S, capacity]`, zero until set; every inner
    node is its children's sum (float64, so that a million small priorities don't drift).
    """

    def __init__(self, seeds: int, capacity: int, device: torch.device):
        self.depth = max(1, (capacity - 1).bit_length())
        self.leaves = 1 << self.depth
        self.nodes = torch.zeros(seeds, 2 * self.leaves, dtype=torch.float64, device=device)

    @property
    def total(self) -> Tensor:
        """The sum of all priorities, `[S]`."""
        return self.nodes[:, 1]

    def fill(self, priorities: Tensor) -> None:
        """Set the first rows' priorities, `[S, M]`, and rebuild the sums."""
        self.nodes.zero_()
        self.nodes[:, self.leaves : self.leaves + priorities.shape[1]] = priorities
        for level in range(self.depth - 1, -1, -1):
            children = self.nodes[:, 2 << level : 4 << level]
            self.nodes[:, 1 << level : 2 << level] = children.unflatten(1, (-1, 2)).sum(-1)

    def set(self, rows: Tensor, priorities: Tensor) -> None:
        """Set the priorities `[S, K]` of K distinct rows `[S, K]` (int64)."""
        node = rows + self.leaves
        self.nodes.scatter_(1, node, priorities.to(self.nodes.dtype))
        for _ in range(self.depth):
            node = node >> 1
            left = self.nodes.gather(1, 2 * node)
            self.nodes.scatter_(1, node, left + self.nodes.gather(1, 2 * node + 1))

    def find(self, mass: Tensor) -> Tensor:
        """Return the row in which each cumulative mass `[S, B]` (float64, below total) falls."""
        node = torch.ones_like(mass, dtype=torch.int64)
        for _ in range(self.depth):
            node = 2 * node
            left = self.nodes.gather(1, node)
            right_has_mass = self.nodes.gather(1, node + 1) > 0
            go_right = (mass >= left) & right_has_mass  # rounding must not end on an empty row
            mass = torch.where(go_right, mass - left, mass)
            node = node + go_right
        return node - self.leaves

"""A log's ends while they are being settled: what is known so far, and from which column."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import moved_back
from baq_cli.data.logs.ends.clues import Clues
from baq_cli.data.logs.ends.marks import episode_starts, flags, is_flags
from baq_cli.data.logs.ends.names import Kind
from baq_cli.data.logs.ends.roles import Said

Array = npt.NDArray[Any]


@dataclass
class Draft:
    """What is known so far; flags `[N]`, those of rows of an observation alone moved back."""

    clues: Clues
    said: Said
    bare: Array
    terminated: Array | None = None
    truncated: Array | None = None
    episode: Array | None = None
    sources: dict[str, str] = field(default_factory=dict)
    aside: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.bare)

    def marked(self, column: str, inverted: bool = False) -> Array:
        """Return the steps that a column of flags marks."""
        raw = flags(column, self.clues.values(column), self.rows, inverted)
        return moved_back(raw, self.bare)

    def ends(self, column: str, role: str) -> Array:
        """Return each episode's last step, by a column that tells it; the last row is one."""
        starts = episode_starts(column, self.clues.values(column), self.rows, role)
        return moved_back(np.append(starts[1:], True), self.bare)

    def free(self, kinds: Collection[Kind], certain: bool = True) -> list[str]:
        """Return the columns of some kinds that nothing is settled of."""
        taken = {*self.sources.values(), *self.aside}
        return [n for n in self.clues.of_kind(kinds, self.rows, certain) if n not in taken]

    def marking(self, kinds: Collection[Kind]) -> list[str]:
        """Return the free columns of flags, of certain names, that mark a row."""
        free = [n for n in self.free(kinds) if is_flags(self.clues.values(n), self.rows)]
        return [name for name in free if self.marked(name).any()]


def numbered(starts: Array, rows: int) -> Array:
    """Return the number of each row's episode, `[N]`, from the first rows of episodes."""
    return np.repeat(np.arange(len(starts)), np.diff(np.append(starts, rows)))

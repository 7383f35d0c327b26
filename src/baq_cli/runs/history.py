"""The evaluations that a run knows: its own, after those of the checkpoint that it fine-tunes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from baq_cli.runs.log import LENGTH, SOURCE, Row

Array = npt.NDArray[Any]


@dataclass
class History:
    """Rows as `metrics.csv` has them, a row a seed and evaluation; the inherited ones first."""

    rows: list[Row] = field(default_factory=list)
    inherited: int = 0

    @property
    def own(self) -> list[Row]:
        """The rows of this run alone."""
        return self.rows[self.inherited :]

    def inherit(self, rows: Sequence[Row], seeds: Collection[int]) -> list[Row]:
        """Begin with another run's evaluations of these seeds; return their rows."""
        self.rows = [row for row in rows if row["seed"] in seeds]
        self.inherited = len(self.rows)
        return self.rows

    def add(self, counters: Sequence[Row], returns: Array, lengths: Array | None) -> list[Row]:
        """Add an evaluation, returns and lengths `[S, episodes]`; return its rows.

        Returns without lengths are estimates: no episode was played.
        """
        rows: list[Row] = [
            {
                **known,
                "return_mean": float(returns[i].mean()),
                "return_std": float(returns[i].std()),
                LENGTH: None if lengths is None else float(lengths[i].mean()),
                "evaluation_episodes": returns.shape[1],
                SOURCE: "estimate" if lengths is None else "evaluation",
            }
            for i, known in enumerate(counters)
        ]
        self.rows += rows
        return rows

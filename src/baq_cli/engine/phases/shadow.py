"""A policy that proposes at every step, while another acts: how far apart the two are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.runs.log import Row

Array = npt.NDArray[Any]
NEAR = 0.1
"""Of the range [−1, 1]: actions no farther apart than that in any dimension agree."""


class Agreement:
    """How near what was proposed was to what was done, of each seed since its run began.

    `difference` is the mean distance of the two over action dimensions and steps, in [−1, 1]
    units; `agreed` the share of steps at which they were no farther than `NEAR` apart.
    """

    def __init__(self, seeds: tuple[int, ...]):
        self._seeds = seeds
        self._sum, self._near = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=np.int64)
        self._steps = 0

    def add(self, proposed: Array, done: Array) -> None:
        """Take in a step of each seed, actions `[S, action_dim]` in [−1, 1]."""
        apart = np.abs(np.clip(proposed, -1.0, 1.0).astype(np.float64) - done)
        self._sum += apart.mean(axis=1)
        self._near += (apart <= NEAR).all(axis=1)
        self._steps += 1

    def rows(self) -> list[Row]:
        """Return two rows a seed for `diagnostics.csv`, of the whole run so far."""
        if not self._steps:
            return []
        found = {"shadow_difference": self._sum, "shadow_agreement": self._near}
        return [
            {"seed": seed, "name": name, "value": float(total[i] / self._steps)}
            for name, total in found.items()
            for i, seed in enumerate(self._seeds)
        ]

    def facts(self, env_steps: int) -> dict[str, Any]:
        """Return what a run's manifest says of it."""
        steps = max(self._steps, 1)
        found = {"difference": self._sum / steps, "agreed": self._near / steps}
        return {
            "shadow": {"env_steps": self._steps, "near": NEAR}
            | {name: values.tolist() for name, values in found.items()}
        }

    def state(self) -> dict[str, Any]:
        """Return the sums, for a checkpoint."""
        sums = {"difference": self._sum.tolist(), "near": self._near.tolist()}
        return {"shadow": {"steps": self._steps, **sums}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state()` returned."""
        kept = state["shadow"]
        self._steps = int(kept["steps"])
        self._sum = np.asarray(kept["difference"], dtype=np.float64)
        self._near = np.asarray(kept["near"], dtype=np.int64)

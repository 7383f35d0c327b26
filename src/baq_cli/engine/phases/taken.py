"""How often somebody acted in the policy's place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.runs.log import Row

Array = npt.NDArray[Any]


class TakenOver:
    """Of each seed's env_steps, those in which somebody else acted, `env_steps [S]`."""

    def __init__(self, seeds: tuple[int, ...]):
        self._seeds = seeds
        self.env_steps = np.zeros(len(seeds), dtype=np.int64)

    def add(self, taken: Array) -> None:
        """Count a step of each seed, `[S]` whether it was taken over."""
        self.env_steps += taken

    def share(self, env_steps: int) -> float | None:
        """Return their share of so many env_steps a seed; None where nobody took over."""
        return float(self.env_steps.mean() / env_steps) if self.env_steps.any() else None

    def rows(self) -> list[Row]:
        """Return a row a seed for `diagnostics.csv`, `name` and `value`; none where nobody did."""
        if not self.env_steps.any():
            return []
        return [
            {"seed": seed, "name": "taken_over_env_steps", "value": float(count)}
            for seed, count in zip(self._seeds, self.env_steps, strict=True)
        ]

    def facts(self, env_steps: int) -> dict[str, Any]:
        """Return what a run's manifest says of them; nothing where nobody took over."""
        if not self.env_steps.any():
            return {}
        return {"intervention": {"env_steps": env_steps, "taken_over": self.env_steps.tolist()}}

    def state(self) -> dict[str, Any]:
        """Return the counts, for a checkpoint."""
        return {"taken_over": self.env_steps.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state()` returned; an earlier version kept none."""
        kept = state.get("taken_over") or [0] * len(self._seeds)
        self.env_steps = np.asarray(kept, dtype=np.int64)

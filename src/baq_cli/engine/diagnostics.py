"""A method's metrics, read now and then, and averaged between evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.engine.rundir import Row
from baq_cli.errors import NonFiniteError

Array = npt.NDArray[Any]


class Diagnostics:
    """Means of metrics `[S]` since the last evaluation; reading them waits for the device."""

    def __init__(self, seeds: tuple[int, ...], where: Path):
        self._seeds, self._where = seeds, where
        self._sums: dict[str, Array] = {}
        self._counts: dict[str, Array] = {}

    def add(self, metrics: dict[str, Tensor], gradient_steps: int) -> None:
        """Take metrics in; what isn't finite counts as not measured.

        Raises NonFiniteError when a loss is NaN or infinite.
        """
        for name, value in self.check(metrics, gradient_steps):
            known = np.isfinite(value)
            self._sums[name] = self._sums.get(name, 0.0) + np.where(known, value, 0.0)
            self._counts[name] = self._counts.get(name, 0.0) + known

    def check(self, metrics: dict[str, Tensor], gradient_steps: int) -> list[tuple[str, Array]]:
        """Return metrics as `[S]` arrays, after checking that the losses are finite.

        Raises NonFiniteError when one is not.
        """
        if not metrics:
            return []
        values = torch.stack(list(metrics.values())).double().cpu().numpy()
        found = list(zip(metrics, values, strict=True))
        for name, value in found:
            if name.startswith("loss_") and not np.isfinite(value).all():
                seeds = [s for s, ok in zip(self._seeds, np.isfinite(value), strict=True) if not ok]
                raise NonFiniteError(
                    f"{name} became NaN or infinite by gradient step {gradient_steps} (seeds "
                    f"{seeds}). The last checkpoint in {self._where} is intact. Lower "
                    "learning_rate or reward_scale, and look at the dataset with 'baq data show'."
                )
        return found

    def take(self) -> list[Row]:
        """Return a row a metric and seed, `name` and `value`, and begin anew."""
        rows = [
            {"seed": seed, "name": name, "value": float(total[i] / self._counts[name][i])}
            for name, total in self._sums.items()
            for i, seed in enumerate(self._seeds)
            if self._counts[name][i]
        ]
        self._sums, self._counts = {}, {}
        return rows

    def state(self) -> dict[str, Any]:
        """Return the sums for a checkpoint."""
        return {
            "metrics_sum": {name: total.tolist() for name, total in self._sums.items()},
            "metrics_count": {name: n.tolist() for name, n in self._counts.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state()` returned."""
        self._sums = {name: np.asarray(v) for name, v in state["metrics_sum"].items()}
        self._counts = {name: np.asarray(v) for name, v in state["metrics_count"].items()}

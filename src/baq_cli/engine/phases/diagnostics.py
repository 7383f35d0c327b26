"""A method's metrics, read now and then, and averaged between evaluations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.runs.log import Row

Array = npt.NDArray[Any]


class Diagnostics:
    """Means of metrics `[S]` since the last evaluation; reading them waits for the device."""

    def __init__(self, seeds: tuple[int, ...]):
        self._seeds = seeds
        self._sums: dict[str, Array] = {}
        self._counts: dict[str, Array] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Take metrics in; what isn't finite counts as not measured."""
        if not metrics:
            return
        values = torch.stack(list(metrics.values())).double().cpu().numpy()
        for name, value in zip(metrics, values, strict=True):
            known = np.isfinite(value)
            self._sums[name] = self._sums.get(name, 0.0) + np.where(known, value, 0.0)
            self._counts[name] = self._counts.get(name, 0.0) + known

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

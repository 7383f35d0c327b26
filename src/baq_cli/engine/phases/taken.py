"""How often somebody else acted in the policy's place, and what was said of episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.runs.log import Row

Array = npt.NDArray[Any]


class TakenOver:
    """Of each seed, what was not the policy's own.

    `env_steps [S]` counts the steps in which somebody else acted, `marks [2, S]` the episodes that
    were marked a success or a failure; `course` has the first at every evaluation, beside the
    run's env_steps.
    """

    def __init__(self, seeds: tuple[int, ...]):
        self._seeds = seeds
        self.env_steps = np.zeros(len(seeds), dtype=np.int64)
        self.marks = np.zeros((2, len(seeds)), dtype=np.int64)
        self.course: list[tuple[int, list[int]]] = []

    def add(self, taken: Array, marks: Array | None = None) -> None:
        """Count a step of each seed: `[S]` whether it was taken over, and how it was marked."""
        self.env_steps += taken
        if marks is not None:
            self.marks += np.stack([marks > 0, marks < 0])

    def note(self, env_steps: int) -> None:
        """Note where the counts are after so many env_steps of the run."""
        if not self.course or self.course[-1][0] < env_steps:
            self.course.append((env_steps, self.env_steps.tolist()))

    def share(self, env_steps: int) -> float | None:
        """Return their share of so many env_steps a seed; None where nobody took over."""
        return float(self.env_steps.mean() / env_steps) if self.env_steps.any() else None

    def rows(self) -> list[Row]:
        """Return a row a seed for `diagnostics.csv`, `name` and `value`; none where nobody did."""
        counts = {
            "taken_over_env_steps": self.env_steps,
            "success_marks": self.marks[0],
            "failure_marks": self.marks[1],
        }
        return [
            {"seed": seed, "name": name, "value": float(count)}
            for name, values in counts.items()
            if values.any()
            for seed, count in zip(self._seeds, values.tolist(), strict=True)
        ]

    def facts(self, env_steps: int) -> dict[str, Any]:
        """Return what a run's manifest says of them; nothing where nobody did anything."""
        if not self.env_steps.any() and not self.marks.any():
            return {}
        found = {"env_steps": env_steps, "taken_over": self.env_steps.tolist()}
        found["course"] = [list(point) for point in self.course]
        successes, failures = self.marks.tolist()
        marks = {"successes": successes, "failures": failures} if self.marks.any() else {}
        return {"intervention": found | marks}

    def state(self) -> dict[str, Any]:
        """Return the counts, for a checkpoint."""
        return {
            "taken_over": self.env_steps.tolist(),
            "taken_over_course": [list(point) for point in self.course],
            "marks": self.marks.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state()` returned; earlier versions kept less."""
        nothing = [0] * len(self._seeds)
        self.env_steps = np.asarray(state.get("taken_over") or nothing, dtype=np.int64)
        self.marks = np.asarray(state.get("marks") or [nothing] * 2, dtype=np.int64)
        course = state.get("taken_over_course") or []
        self.course = [(int(env_steps), list(counts)) for env_steps, counts in course]

"""The limits of a run's environments: made for them, counted, and what a limit stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.episodes import Episodes
from baq_cli.engine.collection.datasets import open_dataset
from baq_cli.engine.evaluation.limits import constant_dimensions, rules_of
from baq_cli.engine.experience.inputs import observation_statistics
from baq_cli.engine.phases.origin import Origin
from baq_cli.envs.safety import LIMITS, LimitName, Rules, Trip, acted_in
from baq_cli.errors import LimitReached, UsageError, listed
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.folder import RunDirectory
from baq_cli.runs.interrupt import Interruption
from baq_cli.runs.log import Row

Array = npt.NDArray[Any]
MOST_SAID = 3
"""Trips of a limit that are said one by one; all are counted."""


def with_limits(
    origin: Origin, recipe: Recipe, episodes: Episodes | None, observer: Observer
) -> Origin:
    """Return an origin with the limits of a recipe, about the observations of its data.

    Checkpoints of earlier versions don't know those; then the dataset is opened that they name.
    Raises UsageError for limits that don't fit, or that nobody is there to be handed over to.
    """
    config = recipe.run.safety
    if config is None:
        return origin
    envelope, dataset = config.observation_envelope, origin.dataset
    if envelope is not None and dataset is not None and not dataset.get("observations"):
        known = episodes or open_dataset(dataset["id"], observer)
        origin = replace(origin, dataset=dataset | {"observations": observation_statistics(known)})
    rules = rules_of(config, origin.spaces, (origin.dataset or {}).get("observations"))
    assert rules is not None
    if constant := constant_dimensions(rules):
        observer(
            Note(
                f"the envelope says nothing of dimensions {listed(list(map(str, constant)))} of "
                "observations, which are constant in the data"
            )
        )
    return replace(origin, rules=rules)


def check_somebody_is_there(recipe: Recipe) -> None:
    """Raise UsageError where an online run's limits hand over to nobody."""
    run = recipe.run
    envelope = None if run.safety is None else run.safety.observation_envelope
    if envelope is not None and envelope.then == "hand_over" and run.takes_over is None:
        raise UsageError(
            "safety.observation_envelope.then=hand_over, and nobody is there to take over: give "
            "--intervene, or choose stop or hold"
        )


class LimitsActed:
    """How often each limit acted, `env_steps [S]` by its name, and where one stopped the run."""

    def __init__(self, seeds: tuple[int, ...], rules: Rules | None):
        self._seeds = seeds
        on = () if rules is None else _held(rules)
        self.env_steps = {name: np.zeros(len(seeds), dtype=np.int64) for name in on}
        self.stops: list[dict[str, Any]] = []
        self._said = dict.fromkeys(LIMITS, 0)
        self._reached: str | None = None

    def add(self, limits: Array) -> None:
        """Count the limits that acted in a step of each seed, `[S]` uint8: `StepRecord`."""
        acted = acted_in(limits)
        for name, count in self.env_steps.items():
            count += acted[name]

    def tell(
        self, trips: Sequence[Trip], env_steps: int, interruption: Interruption, observer: Observer
    ) -> None:
        """Say which limits were come to; one that stops asks the run to, as a signal would."""
        for trip in trips:
            seed = self._seeds[trip.number]
            why = f"{trip.limit}, seed {seed}, environment step {env_steps}: {trip.reason}"
            if trip.stops:
                self.stops.append(
                    {"env_steps": env_steps, "seed": seed, "limit": trip.limit, "why": trip.reason}
                )
                self._reached = self._reached or why
                interruption.requested = interruption.requested or trip.limit
            elif self._said[trip.limit] < MOST_SAID:
                self._said[trip.limit] += 1
                last = self._said[trip.limit] == MOST_SAID
                observer(Note(f"limit {why}{'; others are only counted' if last else ''}"))

    def stop_if_reached(self, directory: RunDirectory, env_steps: int, resume: str) -> None:
        """Raise LimitReached where one stops the run, which is saved; its manifest says so too."""
        if self._reached is not None:
            directory.note(self.facts(env_steps))
            raise LimitReached(
                f"a limit stopped the run: {self._reached}; everything is saved. When somebody has "
                f"looked, continue with:\n  {resume}"
            )

    def rows(self) -> list[Row]:
        """Return a row a seed and limit for `diagnostics.csv`: env_steps in which it acted."""
        return [
            {"seed": seed, "name": f"{name}_env_steps", "value": float(count)}
            for name, counts in self.env_steps.items()
            for seed, count in zip(self._seeds, counts, strict=True)
        ]

    def facts(self, env_steps: int) -> dict[str, Any]:
        """Return what a run's manifest says of its limits; nothing where none was at work."""
        at_work = self.env_steps and (env_steps or self.stops)
        return {"limits": {"env_steps": env_steps} | self._counts()} if at_work else {}

    def state(self) -> dict[str, Any]:
        """Return the counts, for a checkpoint."""
        return {"limits": self._counts()} if self.env_steps else {}

    def _counts(self) -> dict[str, Any]:
        acted = {name: count.tolist() for name, count in self.env_steps.items()}
        return {"acted": acted, "stops": self.stops}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state()` returned; a limit that is new begins at 0."""
        kept = state.get("limits") or {"acted": {}, "stops": []}
        begun = {name: np.asarray(count, dtype=np.int64) for name, count in kept["acted"].items()}
        self.env_steps |= begun  # those of limits that are no longer held stay as they are
        self.stops = list(kept["stops"])


def _held(rules: Rules) -> tuple[LimitName, ...]:
    """Return the names of the limits that rules have."""
    on = {
        "max_action_change": bool(np.isfinite(rules.max_change).any()),
        "observation_envelope": rules.envelope is not None,
        "watchdog": rules.max_late_seconds is not None,
    }
    return tuple(name for name in LIMITS if on[name])

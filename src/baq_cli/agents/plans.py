"""How a method spends the steps of a phase, and what its batches are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StoreName = Literal["offline", "online", "model"]


@dataclass(frozen=True)
class Draw:
    """One part of every batch.

    stores: where its rows come from; several are one union, drawn from by their sizes.
    share: its rows, as a part of `batch_size`; the shares of a plan need not add up to 1.
    prioritised: whether rows are drawn in proportion to their priority, or uniformly.
    newest: only that many of the last rows, of the stores laid end to end; those that were written
        over count too, and are gone. The name of a store: as many as that has in reach, and all
        where it has none.
    odds: a buffer of the method, `[S]`: the probability of the first of two stores, for each row,
        in place of their sizes.
    least: rows, a seed, that its stores must hold together before anything is drawn from them.
    otherwise: the store that stands in for a seed where the draw's own has nothing to give.
    name: `Batch.part(name)` is this draw's rows, with those of neighbours of the same name.
    """

    stores: tuple[StoreName, ...] = ("offline",)
    share: float = 1.0
    prioritised: bool = False
    newest: int | StoreName | None = None
    odds: str | None = None
    least: int = 1
    otherwise: StoreName | None = None
    name: str = ""


@dataclass(frozen=True)
class Stage:
    """Updates of some parameter groups only: before a phase, or inside a routine.

    steps: how many; they count as no `gradient_steps`, and no target moves unless they `follow`.
    assess_every: stage updates between two calls of `assess`; None: once, at the end.
    Raises ValueError without a step.
    """

    name: str
    groups: frozenset[str]
    draws: tuple[Draw, ...]
    steps: int
    rows: int | None = None
    """Rows a seed and update; None: `batch_size`."""
    assess_every: int | None = None
    follow: bool = False
    """Whether every target follows its network, at each update."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"the stage '{self.name}' has {self.steps} steps: expected 1 or more")


@dataclass(frozen=True)
class Routine:
    """What a method does every so many of the phase's unit: its stages, then `refresh`.

    Raises ValueError for an `every` below 1.
    """

    name: str
    every: int
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"the routine '{self.name}' runs every {self.every}: expected 1 up")


@dataclass(frozen=True)
class Plan:
    """How a method spends the steps of a phase.

    draws: the parts of a batch.
    utd: gradient steps an environment step, counted a seed.
    warmup_env_steps: environment steps before the first update, taken by the policy as it was
        handed over, or uniformly at random in a run that starts from scratch.
    first_updates: gradient steps at once, after the warm-up.
    fit: updates of critics alone, at once after the warm-up and before `first_updates`.
    offline_share, offline_min_rows: the part of the dataset that stays in reach online, drawn once
        at random for each seed: 1 keeps all, 0 none.
    capacity, model_capacity: online and model transitions kept a seed; the oldest are overwritten.
    discount: γ of this phase; None: the configuration's.
    window: transitions that one row of a batch stands for; above 1, n-step returns and chunks.
    next_action: whether batches hold the action that followed, see `Batch`.
    train: the groups of the main updates; None: all.
    first: stages before the first main update. routines: what happens now and then.
    """

    draws: tuple[Draw, ...] = (Draw(),)
    utd: int = 1
    warmup_env_steps: int = 0
    first_updates: int = 0
    fit: Stage | None = None
    offline_share: float = 1.0
    offline_min_rows: int = 0
    capacity: int = 1_000_000
    model_capacity: int = 0
    discount: float | None = None
    window: int = 1
    next_action: bool = False
    train: frozenset[str] | None = None
    first: tuple[Stage, ...] = ()
    routines: tuple[Routine, ...] = ()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages before the phase, those of routines, then the fit after the warm-up."""
        of_routines = (stage for routine in self.routines for stage in routine.stages)
        return (*self.first, *of_routines, *((self.fit,) if self.fit else ()))

    @property
    def all_draws(self) -> tuple[Draw, ...]:
        """The draws of the main updates and of every stage."""
        return (*self.draws, *(draw for stage in self.stages for draw in stage.draws))

    @property
    def needs_offline(self) -> bool:
        """Whether batches can't be drawn without a dataset."""
        draws = self.all_draws
        return any("offline" in (*d.stores, d.otherwise) and len(d.stores) == 1 for d in draws)

    @property
    def uses_offline(self) -> bool:
        """Whether anything is drawn from the dataset, where there is one."""
        reached = any("offline" in (*draw.stores, draw.otherwise) for draw in self.all_draws)
        return self.offline_share > 0 and reached


UNION = Draw(("offline", "online"))
"""All that there is, uniformly."""


def newest_and_all(
    online_share: float, newest: int, batch_size: int, capacity: int
) -> tuple[Draw, ...]:
    """Return draws with a share of the newest online rows, and for the rest all that there is.

    The dataset gives the share until there are as many online rows, or all that are kept (OORB, of
    SUNG).
    """
    rows = max(1, min(round(online_share * batch_size), capacity))
    fresh = Draw(("online",), online_share, newest=newest, least=rows, otherwise="offline")
    draws = fresh, Draw(UNION.stores, 1.0 - online_share)
    return tuple(draw for draw in draws if draw.share > 0)


def online_and_offline(online_share: float, prioritised: bool = False) -> tuple[Draw, ...]:
    """Return draws with a fixed share of online rows."""
    draws = (
        Draw(("online",), online_share, prioritised),
        Draw(("offline",), 1.0 - online_share, prioritised),
    )
    return tuple(draw for draw in draws if draw.share > 0)

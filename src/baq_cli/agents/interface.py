"""What passes between a method and the engine: shapes, batches, losses and plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Spec:
    """What a method is built for: S seeds, and the flat sizes of observations and actions.

    `return_range` holds a low and a high reference return (undiscounted, raw reward units) of the
    dataset, for methods that steer by normalised returns.
    """

    seeds: tuple[int, ...]
    obs_dim: int
    action_dim: int
    return_range: tuple[float, float] = (0.0, 1.0)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Batch:
    """B transitions a seed.

    Shapes: obs, next_obs `[S, B, obs_dim]`; action `[S, B, action_dim]` in [−1, 1]; the rest
    `[S, B]`. `bootstrap` is 1 unless the transition terminated; a truncated one bootstraps.
    `weight` multiplies the temporal-difference term. `online` is 1 for rows from the online store.
    `columns` holds what the method asked for by name.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    bootstrap: Tensor
    weight: Tensor
    online: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)


class Losses:
    """One loss a parameter group, and what to log.

    A term of shape `[S, B]` is averaged over its batch; terms are then `[S]`, and their sum over
    seeds is what is differentiated, so that no seed's gradient sees another. `seen` offers
    intermediate results, with their gradients, to a method that builds on this one.
    """

    def __init__(
        self,
        metrics: dict[str, Tensor] | None = None,
        seen: dict[str, Tensor] | None = None,
        **terms: Tensor,
    ):
        self.terms = {name: t.mean(1) if t.ndim == 2 else t for name, t in terms.items()}
        self.seen = seen or {}
        self.metrics = {k: v.detach() for k, v in (metrics or {}).items()}

    def backward(self) -> None:
        """Add the gradient of the terms' sum, over seeds too, to the parameters' gradients."""
        terms = list(self.terms.values())
        torch.autograd.backward(terms, [torch.ones_like(term) for term in terms])


@dataclass(frozen=True)
class Group:
    """Parameters that share one optimiser.

    `cosine` lets the learning rate fall along a cosine over the offline phase; online it is
    `learning_rate` again, constant, because a schedule that outlives its phase climbs back up.
    """

    modules: tuple[nn.Module | nn.Parameter, ...]
    learning_rate: float
    cosine: bool = False


@dataclass(frozen=True)
class Target:
    """A network, and the copy of it that follows by Polyak averaging.

    `follows` names a parameter group: the copy moves on the gradient steps that train that group,
    and on every one where it is None.
    """

    network: nn.Module
    copy: nn.Module
    follows: str | None = None


StoreName = Literal["offline", "online", "union"]


@dataclass(frozen=True)
class Draw:
    """One part of every batch: from which store, what share of the rows, and by priority or not."""

    store: StoreName
    share: float = 1.0
    prioritised: bool = False


@dataclass(frozen=True)
class OnlinePlan:
    """How a method spends environment steps.

    draws: the parts of a batch, shares adding up to 1.
    utd: gradient steps an environment step, counted a seed.
    warmup_env_steps: environment steps before the first update, taken by the frozen policy, or
        uniformly at random in a run that starts from scratch.
    offline_share, offline_min_rows: the part of the dataset that stays in reach, drawn once at
        random for each seed: 1 keeps all, 0 none.
    capacity: online transitions kept a seed; the oldest are overwritten.
    """

    draws: tuple[Draw, ...]
    utd: int
    warmup_env_steps: int
    offline_share: float = 1.0
    offline_min_rows: int = 0
    capacity: int = 1_000_000

    @property
    def needs_offline(self) -> bool:
        """Whether batches can't be drawn without a dataset."""
        return any(draw.store == "offline" for draw in self.draws)

    @property
    def uses_offline(self) -> bool:
        return self.offline_share > 0 and any(d.store != "online" for d in self.draws)


class OfflineData(Protocol):
    """What a method may read of the offline store between updates."""

    def chunks(self, held_out: bool | None = None, most_rows: int | None = None) -> Iterator[Batch]:
        """Yield the rows in order, in batches; only the held-out episodes' rows, or only others'.

        `most_rows` takes that many, evenly spaced.
        """
        ...

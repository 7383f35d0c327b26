"""What passes between a method and the engine: shapes, batches, losses and plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from baq_cli.agents.plans import Draw, StoreName
from baq_cli.nets.streams import SeedStream

OFFLINE, ONLINE, MODEL = 0.0, 1.0, 2.0
"""What `Batch.source` says of a row: the dataset, the environment, a model of it."""
ROUNDED = 1e-6
"""A part of a return by which two sums of the same rewards may differ: datasets have float32."""


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

    @property
    def return_span(self) -> float:
        """The unit of normalised returns: from the low reference return to the high one.

        Where they are the same but for rounding, as of demonstrations that all succeed, it is their
        size, or 1 of 0.
        """
        low, high = self.return_range
        size = max(abs(low), abs(high))
        return high - low if high - low > ROUNDED * size else size or 1.0


@dataclass(frozen=True)
class Batch:
    """B transitions a seed.

    Shapes: obs, next_obs `[S, B, obs_dim]`; action `[S, B, action_dim]` in [−1, 1]; the rest
    `[S, B]`. `bootstrap` is 1 unless the transition terminated; a truncated one bootstraps.
    `discount` multiplies what the next state is worth: γ, and 0 after a termination.
    `weight` multiplies the temporal-difference term, `constraint` the method's own constraint.

    With `Plan.window` h above 1 a row is a transition and the h − 1 that follow it. `valid
    [S, B, h]` is 1 for those of the same episode that are stored. Over these, `reward` is
    Σ γᵏ r_k, `bootstrap` the least, `discount` γ^(their number), 0 after a termination, and
    `next_obs` the last one's. `action [S, B, h · action_dim]` holds all h end to end, the last
    valid one in place of those that are not; `weight` is 0 where not all are valid. Columns are
    the first transition's.

    With `Plan.next_action`, `next_action [S, B, action_dim]` is what was done in `next_obs`, and
    `has_next` whether that is stored: not at an episode's end; the action is 0 there. Online it is
    what the environment was given, and so may be older than the policy; ReBRAC's authors ask the
    policy for it when a transition is stored.

    `source` is OFFLINE, ONLINE or MODEL. `columns` holds what the method asked for by name, and
    `parts` where in the batch each named draw of the plan lies.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    bootstrap: Tensor
    discount: Tensor
    weight: Tensor
    constraint: Tensor
    source: Tensor
    valid: Tensor | None = None
    next_action: Tensor | None = None
    has_next: Tensor | None = None
    columns: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, slice] = field(default_factory=dict)

    @property
    def online(self) -> Tensor:
        """1 for rows of the online store, else 0, `[S, B]`."""
        return (self.source == ONLINE).to(self.weight.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; a column has its name behind a dot."""
        named = {name: getattr(self, name) for name in (*PLAIN_FIELDS, *WINDOW_FIELDS)}
        named = {name: tensor for name, tensor in named.items() if tensor is not None}
        return named | {f".{name}": column for name, column in self.columns.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], parts: dict[str, slice]) -> Batch:
        """Make a batch of what `tensors()` returned."""
        plain = {name: tensor for name, tensor in tensors.items() if name[0] != "."}
        columns = {name[1:]: tensor for name, tensor in tensors.items() if name[0] == "."}
        return cls(**plain, columns=columns, parts=parts)

    def part(self, name: str) -> Batch:
        """Return the rows of the draw of that name, as views."""
        return self.rows(self.parts[name])

    def rows(self, rows: slice) -> Batch:
        """Return some of the rows, as views."""
        return Batch.from_tensors({n: tensor[:, rows] for n, tensor in self.tensors().items()}, {})


PLAIN_FIELDS = (
    *("obs", "action", "reward", "next_obs", "bootstrap"),
    *("discount", "weight", "constraint", "source"),
)
WINDOW_FIELDS = ("valid", "next_action", "has_next")
"""Fields of a batch that only a plan with a window has."""


@dataclass(frozen=True)
class Seen:
    """What a method computed on the way to its policy loss, for one that builds on it.

    Shapes: `action [S, B, action_dim]`, π(s) with its gradient, and `q_policy [S, N, B]`,
    Q_i(s, π(s)); None where the method has no such pass.
    """

    action: Tensor | None = None
    q_policy: Tensor | None = None


class Losses:
    """One loss a parameter group, and what to log.

    A term of shape `[S, B]` is averaged over its batch; terms are then `[S]`, and their sum over
    seeds is what is differentiated, so that no seed's gradient sees another.
    """

    def __init__(
        self,
        metrics: dict[str, Tensor] | None = None,
        seen: Seen | None = None,
        **terms: Tensor,
    ):
        self.terms = {name: t.mean(1) if t.ndim == 2 else t for name, t in terms.items()}
        self.seen = seen or Seen()
        self.applied: dict[str, Tensor] = {}
        self.becomes: dict[str, Tensor] = {}
        self.metrics = {k: v.detach() for k, v in (metrics or {}).items()}

    def updating(self, applied: Mapping[str, Tensor], becomes: Mapping[str, Tensor]) -> Losses:
        """Say where the update is made, and what it makes of the method's buffers; return this.

        `applied` has by group the seeds in which it is made, `[S]` bool: in others parameters and
        moments stay as they are (Adam's count of steps, which seeds share, goes on). `becomes` has
        by name what buffers are after the update.
        """
        self.applied = dict(applied)
        self.becomes = {name: value.detach() for name, value in becomes.items()}
        return self

    def gradients(self, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the gradient of the terms' sum, over seeds too, in each parameter."""
        terms = list(self.terms.values())
        ones = [torch.ones_like(term) for term in terms]
        return torch.autograd.grad(terms, parameters, ones, materialize_grads=True)


@dataclass(frozen=True)
class Group:
    """Parameters that share one optimiser, Adam; with `weight_decay`, AdamW.

    `cosine` lets the learning rate fall along a cosine over the offline phase; online it is
    `learning_rate` again, constant, because a schedule that outlives its phase climbs back up.
    `clip` bounds the norm of each seed's gradient of the whole group.
    """

    modules: tuple[nn.Module | nn.Parameter, ...]
    learning_rate: float
    cosine: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float | None = None


@dataclass(frozen=True)
class Target:
    """A network, and the copy of it that follows by Polyak averaging.

    `follows` names a parameter group: the copy moves on the gradient steps that train that group,
    and on every one where it is None. It never moves in a stage. `rate` is how far it moves; None:
    the configuration's `tau`.
    """

    network: nn.Module
    copy: nn.Module
    follows: str | None = None
    rate: float | None = None


class Clock:
    """Where a run is, as scalars on the device that a recorded update reads anew.

    Counters are each seed's: `gradient_steps` over both phases, `env_steps` of the present one.
    `share` is the part of the present phase that is over, 0 to 1.
    """

    def __init__(self, device: torch.device):
        self.gradient_steps, self.env_steps, self.share = (
            torch.zeros((), device=device) for _ in range(3)
        )

    def write(self, gradient_steps: float, env_steps: float, share: float) -> None:
        """Set the scalars; tensors stay the same."""
        self.gradient_steps.fill_(gradient_steps)
        self.env_steps.fill_(env_steps)
        self.share.fill_(share)


class Experience(Protocol):
    """What a method may read of the stores, and write, between updates."""

    def size(self, store: StoreName) -> int:
        """Return the rows of a store, a seed."""
        ...

    def chunks(
        self,
        held_out: bool | None = None,
        most_rows: int | None = None,
        store: StoreName = "offline",
    ) -> Iterator[Batch]:
        """Yield a store's rows in order, in batches; only the held-out episodes', or others'.

        They are single transitions, whatever the plan's window, as those that `annotate` sees.
        `most_rows` takes that many, evenly spaced.
        """
        ...

    def sample(self, draws: Sequence[Draw], rows: int, noise: SeedStream) -> Batch:
        """Draw a batch of `rows` transitions a seed, `[S, rows]`, with the plan's window."""
        ...

    def put(self, store: Literal["model"], rows: Mapping[str, Tensor]) -> None:
        """Write K transitions a seed into the model store.

        Shapes by field: obs, next_obs `[S, K, obs_dim]`, action `[S, K, action_dim]`; reward,
        bootstrap `[S, K]`, and data columns that shall not be those of an unknown episode.
        Raises ValueError where the plan has no `model_capacity`.
        """
        ...

"""Action-value ensembles, state values, and the ways to reduce an ensemble to one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from baq_cli.nets.mlp import MLP
from baq_cli.nets.plain import Activation, Norm
from baq_cli.nets.start import UNIFORM, Start
from baq_cli.nets.streams import SeedStream

Reduction = Literal["min", "mean", "one", "min_of_two", "min_of_two_draws", "weighted_min_pair"]
DRAWN: Mapping[str, int] = {"one": 1, "min_of_two": 2, "min_of_two_draws": 2}
"""The critics that a reduction draws at random."""


class QEnsemble(nn.Module):
    """N critics Q_i(s, a) a seed: `[S, B, obs_dim]` and `[S, B, action_dim]` to `[S, N, B]`."""

    def __init__(
        self,
        init: SeedStream,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        members: int = 2,
        layer_norm: Norm = False,
        start: Start = UNIFORM,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.members = members
        n_in = obs_dim + action_dim
        self.net = MLP(init, members, n_in, hidden, 1, layer_norm, start, activation)

    def forward(
        self, obs: Tensor, action: Tensor, frozen: bool = False, twice: bool = False
    ) -> Tensor:
        values: Tensor = self.net(torch.cat([obs, action], dim=-1), frozen, twice=twice)
        return values.squeeze(-1)

    def slopes(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return Q_i(s, a), `[S, N, B]`, and ∇_a Q_i(s, a), `[S, N, B, action_dim]`.

        Both have gradients in the critics' parameters, for losses about a critic's slope; neither
        has one in the action.
        """
        states, own = (
            each.detach().unsqueeze(1).expand(-1, self.members, -1, -1) for each in (obs, action)
        )
        with torch.enable_grad():
            own.requires_grad_()
            values = self.net(torch.cat([states, own], dim=-1), twice=True).squeeze(-1)
            (slope,) = torch.autograd.grad(values, own, torch.ones_like(values), create_graph=True)
        return values, slope

    def many(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Return Q_i(s, a_k), `[S, N, B, K]`, for actions `[S, B, K, action_dim]`."""
        values: Tensor = self.net(obs, each=actions)
        return values.squeeze(-1).unflatten(2, actions.shape[1:3])

    def own(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Return Q_i(s, a_ik), `[S, N, B, M]`, for each critic's own actions `[S, N, B, M, …]`."""
        members, count = actions.shape[1], actions.shape[3]
        states = obs.unsqueeze(1).unsqueeze(3).expand(-1, members, -1, count, -1)
        values: Tensor = self.net(torch.cat([states, actions], dim=-1).flatten(2, 3))
        return values.squeeze(-1).unflatten(2, (-1, count))


class ValueNet(nn.Module):
    """A state value V(s) a seed. Input `[S, B, obs_dim]`; output `[S, B]`."""

    def __init__(
        self,
        init: SeedStream,
        obs_dim: int,
        hidden: Sequence[int],
        start: Start = UNIFORM,
        layer_norm: Norm = False,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.net = MLP(init, 1, obs_dim, hidden, 1, layer_norm, start, activation)

    def forward(self, obs: Tensor, frozen: bool = False) -> Tensor:
        values: Tensor = self.net(obs, frozen)
        return values.squeeze(-1).squeeze(1)


def reduce_q(q: Tensor, how: Reduction, noise: SeedStream | None = None) -> Tensor:
    """Reduce an ensemble's values `[S, N, B]` to `[S, B]`.

    `min` and `mean` are over the N critics. `min_of_two` takes the minimum of two critics drawn
    at random for each seed and call (REDQ, arXiv 2101.05982), `one` a single critic drawn so;
    `min_of_two_draws` draws with replacement, so that both may be the same (WSRL, arXiv
    2412.07762). `weighted_min_pair` averages the minimum over all pairs (ENOTO, arXiv 2306.06871).

    Raises ValueError when critics are drawn without noise.
    """
    if how == "mean":
        return q.mean(1)
    if how == "weighted_min_pair":
        return weighted_min_pair(q)
    if how in DRAWN:
        q = _drawn(q, how, noise)
    return q.amin(1)


def _drawn(q: Tensor, how: Reduction, noise: SeedStream | None) -> Tensor:
    """Return the values `[S, 1 or 2, B]` of critics drawn once for each seed; all, if no more."""
    members, count, again = q.shape[1], DRAWN[how], how == "min_of_two_draws"
    if members <= count and (members == 1 or not again):
        return q
    if noise is None:
        raise ValueError(f"{how} draws critics at random: pass the noise stream")
    if again:
        drawn = (noise.uniform(count) * members).long().clamp(max=members - 1)
    else:
        drawn = noise.uniform(members).argsort(1)[:, :count]  # [S, count]
    return q.gather(1, drawn.unsqueeze(-1).expand(-1, -1, q.shape[2]))


def weighted_min_pair(q: Tensor) -> Tensor:
    """Average `min(Q_i, Q_j)` over all pairs i < j, `[S, N, B]` to `[S, B]`, by one sort.

    With ascending values Q(1) … Q(N), Q(k) is the minimum of the N − k pairs it forms with
    larger ones. One critic is its own value.
    """
    members = q.shape[1]
    if members == 1:
        return q.squeeze(1)
    ascending = q.sort(dim=1).values
    pairs = torch.arange(members - 1, -1, -1, device=q.device, dtype=q.dtype)
    return (ascending * pairs.view(1, -1, 1)).sum(1) / (members * (members - 1) / 2)

"""Policies with a seed axis; actions live in [−1, 1] everywhere inside the program."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baq_cli.nets.mlp import MLP
from baq_cli.nets.plain import Activation, Dropout, Norm
from baq_cli.nets.start import UNIFORM, Start
from baq_cli.nets.streams import SeedStream

Mean = Literal["tanh", "linear"]
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
ACTION_LIMIT = 1.0 - 1e-6
"""Logged actions on the bound would have an infinite tanh pre-image; they are pulled in to this."""


class Policy(nn.Module, ABC):
    """What every policy can do. `obs [S, B, obs_dim]`, `action [S, B, action_dim]`.

    Its mode is the first `action_dim` outputs of `net`: their tanh where it is `squashed`, else
    clipped to [−1, 1].
    """

    squashed: bool

    @abstractmethod
    def mode(self, obs: Tensor, frozen: bool = False) -> Tensor:
        """Return the action to evaluate with, `[S, B, action_dim]`."""

    @abstractmethod
    def sample(self, obs: Tensor, noise: SeedStream) -> tuple[Tensor, Tensor]:
        """Return a reparametrised action `[S, B, action_dim]` and its log-probability `[S, B]`."""

    @abstractmethod
    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return `log π(a|s)`, `[S, B]`."""


class DeterministicPolicy(nn.Module):
    """`a = tanh f(s)`, the TD3 actor."""

    squashed = True

    def __init__(
        self,
        init: SeedStream,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        layer_norm: Norm = False,
        start: Start = UNIFORM,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.net = MLP(init, 1, obs_dim, hidden, action_dim, layer_norm, start, activation)

    def mode(self, obs: Tensor, frozen: bool = False, dropout: Dropout | None = None) -> Tensor:
        return torch.tanh(self.net(obs, frozen, dropout=dropout).squeeze(1))


class GaussianPolicy(Policy):
    """A Gaussian with a learned standard deviation that ignores the state.

    The usual policy of advantage-weighted regression: its density is finite on the bounds, where
    logged actions often lie. The mean is `tanh f(s)`, or `f(s)` itself where `mean` is `linear`;
    the density is about that, and whatever acts, samples and the mode, is clipped to [−1, 1].
    `log_std [S, 1, action_dim]` begins at `initial_log_std` and is kept in `log_std_range`.
    """

    def __init__(
        self,
        init: SeedStream,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        layer_norm: Norm = False,
        start: Start = UNIFORM,
        mean: Mean = "tanh",
        log_std_range: tuple[float, float] = (-5.0, 2.0),
        initial_log_std: float = 0.0,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.net = MLP(init, 1, obs_dim, hidden, action_dim, layer_norm, start, activation)
        self.squashed, self.log_std_range = mean == "tanh", log_std_range
        shape = (len(init.seeds), 1, action_dim)
        self.log_std = nn.Parameter(torch.full(shape, initial_log_std, device=init.device))

    def mean(self, obs: Tensor, frozen: bool = False, dropout: Dropout | None = None) -> Tensor:
        """Return the Gaussian's mean, `[S, B, action_dim]`; a linear one may lie beyond ±1."""
        out: Tensor = self.net(obs, frozen, dropout=dropout).squeeze(1)
        return torch.tanh(out) if self.squashed else out

    def mode(self, obs: Tensor, frozen: bool = False) -> Tensor:
        mean = self.mean(obs, frozen)
        return mean if self.squashed else mean.clamp(-1.0, 1.0)

    def sample(self, obs: Tensor, noise: SeedStream) -> tuple[Tensor, Tensor]:
        mean = self.mean(obs)
        action = self.sample_about(mean, noise)
        return action, self.log_density(mean, action)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.log_density(self.mean(obs), action)

    def sample_about(self, mean: Tensor, noise: SeedStream) -> Tensor:
        """Return a reparametrised action about what `mean` returned, in its shape."""
        eps = noise.normal(*mean.shape[1:])
        return (mean + self.log_std.clamp(*self.log_std_range).exp() * eps).clamp(-1.0, 1.0)

    def log_density(self, mean: Tensor, action: Tensor) -> Tensor:
        """Return `log π(a|s)`, `[S, B]`, for what `mean` returned at s."""
        log_std = self.log_std.clamp(*self.log_std_range)
        z = (action - mean) * torch.exp(-log_std)
        return (-0.5 * z.square() - log_std - LOG_SQRT_2PI).sum(-1)


class TanhGaussianPolicy(Policy):
    """`a = tanh(μ(s) + σ(s) ε)`, the SAC policy; `log σ` is kept in `log_std_range`.

    With an `initial_log_std` the biases of `log σ` begin there.
    """

    squashed = True

    def __init__(
        self,
        init: SeedStream,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        layer_norm: Norm = False,
        start: Start = UNIFORM,
        log_std_range: tuple[float, float] = (-20.0, 2.0),
        initial_log_std: float | None = None,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.net = MLP(init, 1, obs_dim, hidden, 2 * action_dim, layer_norm, start, activation)
        self.log_std_range = log_std_range
        if initial_log_std is not None:
            last: Any = self.net.layers[-1]
            last.bias.data[..., action_dim:] = initial_log_std

    def _head(self, obs: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor]:
        mean, log_std = self.net(obs, frozen).squeeze(1).chunk(2, dim=-1)
        return mean, log_std.clamp(*self.log_std_range)

    def mode(self, obs: Tensor, frozen: bool = False) -> Tensor:
        return torch.tanh(self._head(obs, frozen)[0])

    def sample(self, obs: Tensor, noise: SeedStream) -> tuple[Tensor, Tensor]:
        mean, log_std = self._head(obs)
        eps = noise.normal(*mean.shape[1:])
        pre_tanh = mean + log_std.exp() * eps
        log_normal = (-0.5 * eps.square() - log_std - LOG_SQRT_2PI).sum(-1)
        return torch.tanh(pre_tanh), log_normal - log_tanh_slope(pre_tanh)

    def sample_many(self, obs: Tensor, count: int, noise: SeedStream) -> tuple[Tensor, Tensor]:
        """Draw `count` actions a state with one pass of the network.

        Returns actions `[S, B, count, action_dim]` and log-probabilities `[S, B, count]`.
        """
        mean, log_std = (head.unsqueeze(2) for head in self._head(obs))
        eps = noise.normal(obs.shape[1], count, mean.shape[-1])
        pre_tanh = mean + log_std.exp() * eps
        log_normal = (-0.5 * eps.square() - log_std - LOG_SQRT_2PI).sum(-1)
        return torch.tanh(pre_tanh), log_normal - log_tanh_slope(pre_tanh)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        mean, log_std = self._head(obs)
        pre_tanh = torch.atanh(action.clamp(-ACTION_LIMIT, ACTION_LIMIT))
        z = (pre_tanh - mean) * torch.exp(-log_std)
        log_normal = (-0.5 * z.square() - log_std - LOG_SQRT_2PI).sum(-1)
        return log_normal - log_tanh_slope(pre_tanh)


def log_tanh_slope(pre_tanh: Tensor) -> Tensor:
    """Return `Σ_j log(1 − tanh²(x_j))` over the last axis, in the form that doesn't underflow."""
    return (2 * (math.log(2) - pre_tanh - F.softplus(-2 * pre_tanh))).sum(-1)

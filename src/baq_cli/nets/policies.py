"""Policies with a seed axis; actions live in [−1, 1] everywhere inside the program."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baq_cli.nets.exports import NoExport, PlainMode, plain_mode
from baq_cli.nets.mlp import MLP
from baq_cli.nets.plain import Activation, Dropout, Norm
from baq_cli.nets.start import UNIFORM, Start
from baq_cli.nets.streams import SeedStream

Mean = Literal["tanh", "linear"]
Tensors = Mapping[str, Tensor]
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
ACTION_LIMIT = 1.0 - 1e-6
"""Logged actions on the bound would have an infinite tanh pre-image; they are pulled in to this."""


class ActingPolicy(nn.Module, ABC):
    """What every policy can do. `obs [S, B, obs_dim]`, `action [S, B, action_dim]`.

    With `frozen=True` a policy's parameters are constants, and gradients reach its input alone.
    """

    squashed: bool
    """Whether actions end in a tanh; others are clipped to [−1, 1]."""

    @property
    @abstractmethod
    def exports(self) -> PlainMode | NoExport:
        """How the mode is written to a file that acts alone, or why it can't be."""

    @abstractmethod
    def mode(self, obs: Tensor, frozen: bool = False) -> Tensor:
        """Return the action to evaluate with, `[S, B, action_dim]`."""

    @abstractmethod
    def draw(self, obs: Tensor, noise: SeedStream, frozen: bool = False) -> Tensor:
        """Return a reparametrised random action, `[S, B, action_dim]`."""

    def as_another(self, tensors: Tensors) -> Tensors | None:
        """Return this policy's tensors as they are where it acts as another, by the other's.

        None where their networks differ. Of a Gaussian, a deterministic policy takes the mean.
        """
        own = {name: tensor.shape for name, tensor in self.state_dict().items()}
        if any(name not in tensors or tensors[name].shape != own[name] for name in own):
            return None
        return {name: tensors[name] for name in own}


class Policy(ActingPolicy):
    """A policy whose actions have a density that can be computed."""

    @abstractmethod
    def sample(self, obs: Tensor, noise: SeedStream, frozen: bool = False) -> tuple[Tensor, Tensor]:
        """Return a reparametrised action `[S, B, action_dim]` and its log-probability `[S, B]`."""

    @abstractmethod
    def log_prob(self, obs: Tensor, action: Tensor, frozen: bool = False) -> Tensor:
        """Return `log π(a|s)`, `[S, B]`."""

    def draw(self, obs: Tensor, noise: SeedStream, frozen: bool = False) -> Tensor:
        return self.sample(obs, noise, frozen)[0]


class DeterministicPolicy(ActingPolicy):
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

    @property
    def exports(self) -> PlainMode | NoExport:
        return plain_mode(self.net, self.squashed)

    def mode(self, obs: Tensor, frozen: bool = False, dropout: Dropout | None = None) -> Tensor:
        return torch.tanh(self.net(obs, frozen, dropout=dropout).squeeze(1))

    def draw(self, obs: Tensor, noise: SeedStream, frozen: bool = False) -> Tensor:
        return self.mode(obs, frozen)


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

    @property
    def exports(self) -> PlainMode | NoExport:
        return plain_mode(self.net, self.squashed)

    def head(self, obs: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor]:
        """Return mean `[S, B, action_dim]` and log standard deviation `[S, 1, action_dim]`."""
        return self.mean(obs, frozen), self._log_std(frozen)

    def mean(self, obs: Tensor, frozen: bool = False, dropout: Dropout | None = None) -> Tensor:
        """Return the Gaussian's mean, `[S, B, action_dim]`; a linear one may lie beyond ±1."""
        out: Tensor = self.net(obs, frozen, dropout=dropout).squeeze(1)
        return torch.tanh(out) if self.squashed else out

    def _log_std(self, frozen: bool) -> Tensor:
        return (self.log_std.detach() if frozen else self.log_std).clamp(*self.log_std_range)

    def mode(self, obs: Tensor, frozen: bool = False) -> Tensor:
        return self.within(self.mean(obs, frozen))

    def within(self, mean: Tensor) -> Tensor:
        """Return what `mean` returned as it acts, within ±1."""
        return mean if self.squashed else mean.clamp(-1.0, 1.0)

    def sample(self, obs: Tensor, noise: SeedStream, frozen: bool = False) -> tuple[Tensor, Tensor]:
        mean = self.mean(obs, frozen)
        action = self.sample_about(mean, noise, frozen)
        return action, self.log_density(mean, action, frozen)

    def log_prob(self, obs: Tensor, action: Tensor, frozen: bool = False) -> Tensor:
        return self.log_density(self.mean(obs, frozen), action, frozen)

    def sample_about(
        self, mean: Tensor, noise: SeedStream, frozen: bool = False, clip: bool = True
    ) -> Tensor:
        """Return a reparametrised action about what `mean` returned, in its shape.

        Without `clip` it may lie beyond ±1, and its gradient doesn't end there.
        """
        eps = noise.normal(*mean.shape[1:])
        action = mean + self._log_std(frozen).exp() * eps
        return action.clamp(-1.0, 1.0) if clip else action

    def log_density(self, mean: Tensor, action: Tensor, frozen: bool = False) -> Tensor:
        """Return `log π(a|s)`, `[S, B]`, for what `mean` returned at s."""
        log_std = self._log_std(frozen)
        z = (action - mean) * torch.exp(-log_std)
        return (-0.5 * z.square() - log_std - LOG_SQRT_2PI).sum(-1)

    def pull(self) -> Tensor:
        """Return the factor of `mean_j (a_j − μ_j)²` in `−log π(a|s)`, detached, `[S]`.

        It is `½ Σ_j σ_j⁻²`, exact where all σ_j are alike.
        """
        return 0.5 * torch.exp(-2.0 * self._log_std(frozen=True)).sum(-1).squeeze(1)


class TanhGaussianPolicy(Policy):
    """`a = tanh(μ(s) + σ(s) ε)`, the SAC policy; `log σ` is kept in `log_std_range`.

    With an `initial_log_std` the biases of `log σ` begin there. Several `members` act as one such
    policy, whose μ and σ are the mean and standard deviation of the mixture of theirs before the
    tanh (Off2On, arXiv 2107.00591).
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
        members: int = 1,
    ):
        super().__init__()
        n_out = 2 * action_dim
        self.net = MLP(init, members, obs_dim, hidden, n_out, layer_norm, start, activation)
        self.log_std_range = log_std_range
        if initial_log_std is not None:
            last: Any = self.net.layers[-1]
            last.bias.data[..., action_dim:] = initial_log_std

    @property
    def exports(self) -> PlainMode | NoExport:
        return plain_mode(self.net, self.squashed)

    def as_another(self, tensors: Tensors) -> Tensors | None:
        """Return this policy's tensors by another's, or by those of a Gaussian about a tanh mean.

        The Gaussian's mean becomes μ before the tanh, so that the mode is the same. Its log σ,
        which no state changes, becomes that before the tanh: alike where actions are near zero.
        """
        last = f"net.layers.{len(self.net.layers) - 1}."
        names = last + "weight", last + "bias", "log_std"
        if any(name not in tensors for name in names):
            return super().as_another(tensors)
        weight, bias, log_std = (tensors[name] for name in names)
        if bias.shape[2:] != log_std.shape[1:]:
            return None
        log_std = log_std.clamp(*self.log_std_range).unsqueeze(1)
        widened = {
            names[0]: torch.cat([weight, torch.zeros_like(weight)], -1),
            names[1]: torch.cat([bias, log_std], -1),
        }
        return super().as_another({**tensors, **widened})

    def heads(self, obs: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor]:
        """Return each member's μ and log σ before the tanh, `[S, N, B, action_dim]`.

        Observations may be a member's own, `[S, N, B, obs_dim]`.
        """
        mean, log_std = self.net(obs, frozen).chunk(2, dim=-1)
        return mean, log_std.clamp(*self.log_std_range)

    def head(self, obs: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor]:
        """Return μ and log σ before the tanh, `[S, B, action_dim]`."""
        means, log_stds = self.heads(obs, frozen)
        if self.net.members == 1:
            return means.squeeze(1), log_stds.squeeze(1)
        mean = means.mean(1)
        spread = (means - mean.unsqueeze(1)).square().mean(1)
        variance = (2 * log_stds).exp().mean(1) + spread
        return mean, (0.5 * variance.log()).clamp(*self.log_std_range)

    def mode(self, obs: Tensor, frozen: bool = False) -> Tensor:
        means = self.net(obs, frozen).chunk(2, dim=-1)[0]
        return torch.tanh(means.squeeze(1) if self.net.members == 1 else means.mean(1))

    def draw(self, obs: Tensor, noise: SeedStream, frozen: bool = False) -> Tensor:
        mean, log_std = self.head(obs, frozen)
        return torch.tanh(mean + log_std.exp() * noise.normal(*mean.shape[1:]))

    def sample(self, obs: Tensor, noise: SeedStream, frozen: bool = False) -> tuple[Tensor, Tensor]:
        mean, log_std = self.head(obs, frozen)
        return squash(mean, log_std, noise.normal(*mean.shape[1:]))

    def sample_many(
        self, obs: Tensor, count: int, noise: SeedStream, frozen: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Draw `count` actions a state with one pass of the network.

        Returns actions `[S, B, count, action_dim]` and log-probabilities `[S, B, count]`.
        """
        mean, log_std = (part.unsqueeze(2) for part in self.head(obs, frozen))
        return squash(mean, log_std, noise.normal(obs.shape[1], count, mean.shape[-1]))

    def log_prob(self, obs: Tensor, action: Tensor, frozen: bool = False) -> Tensor:
        mean, log_std = self.head(obs, frozen)
        pre_tanh = torch.atanh(action.clamp(-ACTION_LIMIT, ACTION_LIMIT))
        z = (pre_tanh - mean) * torch.exp(-log_std)
        log_normal = (-0.5 * z.square() - log_std - LOG_SQRT_2PI).sum(-1)
        return log_normal - log_tanh_slope(pre_tanh)


def squash(mean: Tensor, log_std: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """Return `tanh(μ + σ ε)`, `[…, action_dim]`, and its log-probability, `[…]`."""
    pre_tanh = mean + log_std.exp() * eps
    log_normal = (-0.5 * eps.square() - log_std - LOG_SQRT_2PI).sum(-1)
    return torch.tanh(pre_tanh), log_normal - log_tanh_slope(pre_tanh)


def log_tanh_slope(pre_tanh: Tensor) -> Tensor:
    """Return `Σ_j log(1 − tanh²(x_j))` over the last axis, in the form that doesn't underflow."""
    return (2 * (math.log(2) - pre_tanh - F.softplus(-2 * pre_tanh))).sum(-1)

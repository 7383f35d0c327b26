"""Policies that turn noise into actions: along the path of a flow, or in one step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from baq_cli.nets.exports import NoExport
from baq_cli.nets.mlp import MLP
from baq_cli.nets.plain import Activation, Norm
from baq_cli.nets.policies import ActingPolicy
from baq_cli.nets.start import Start
from baq_cli.nets.streams import SeedStream

GLOROT = Start("glorot")
NEEDS_NOISE = NoExport("it acts from fresh noise at every step, which such a file doesn't have")


class FlowPolicy(ActingPolicy):
    """Actions at the end of a flow: noise that a velocity field v(s, x, t) carries from t = 0 to 1.

    `steps` Euler steps of 1/`steps` lead from x₀ ~ N(0, I) to the action, which is clipped to
    [−1, 1] at the end. The field is learned by flow matching (Lipman et al. 2022, arXiv 2210.02747)
    on straight paths: at `x_t = (1 − t) x₀ + t a` it should be `a − x₀`. Networks begin and are
    built as in FQL (Park et al. 2025, arXiv 2502.02538); the input is s, x, t in this order. With
    chunks of h actions, `action_dim` is that of all h, laid end to end.
    """

    squashed = False
    exports = NEEDS_NOISE

    def __init__(
        self,
        init: SeedStream,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        steps: int = 10,
        layer_norm: Norm = False,
        start: Start = GLOROT,
        activation: Activation = "gelu",
    ):
        super().__init__()
        n_in = obs_dim + action_dim + 1
        self.net = MLP(init, 1, n_in, hidden, action_dim, layer_norm, start, activation)
        self.action_dim, self.steps = action_dim, steps

    def velocity(self, obs: Tensor, x: Tensor, time: Tensor, frozen: bool = False) -> Tensor:
        """Return v(s, x, t), `[S, B, action_dim]`, for x of that shape and t `[S, B, 1]`."""
        field: Tensor = self.net(torch.cat([obs, x, time], dim=-1), frozen).squeeze(1)
        return field

    def carry(self, obs: Tensor, start: Tensor, frozen: bool = False) -> Tensor:
        """Return the clipped actions where the flow carries `start`, `[S, B, action_dim]`."""
        x = start
        for step in range(self.steps):
            time = torch.full_like(x[..., :1], step / self.steps)
            x = x + self.velocity(obs, x, time, frozen) / self.steps
        return x.clamp(-1.0, 1.0)

    def carry_many(self, obs: Tensor, starts: Tensor, frozen: bool = False) -> Tensor:
        """Return the actions where the flow carries K starts a state, `[S, B, K, action_dim]`."""
        x = starts
        for step in range(self.steps):
            time = torch.full_like(x[..., :1], step / self.steps)
            field = self.net(obs, frozen, each=torch.cat([x, time], dim=-1)).squeeze(1)
            x = x + field.unflatten(1, x.shape[1:3]) / self.steps
        return x.clamp(-1.0, 1.0)

    def mode(self, obs: Tensor, frozen: bool = False) -> Tensor:
        """Return the action that noise of zero is carried to, `[S, B, action_dim]`."""
        return self.carry(obs, obs.new_zeros(*obs.shape[:2], self.action_dim), frozen)

    def draw(self, obs: Tensor, noise: SeedStream, frozen: bool = False) -> Tensor:
        return self.carry(obs, noise.normal(obs.shape[1], self.action_dim), frozen)

    def draw_many(self, obs: Tensor, count: int, noise: SeedStream, frozen: bool = False) -> Tensor:
        """Return `count` random actions a state, `[S, B, count, action_dim]`."""
        starts = noise.normal(obs.shape[1], count, self.action_dim)
        return self.carry_many(obs, starts, frozen)

    def matching_error(self, obs: Tensor, action: Tensor, noise: SeedStream) -> Tensor:
        """Return `(v(s, x_t, t) − (a − x₀))²`, `[S, B, action_dim]`, for random x₀ and t.

        x₀ is standard normal and t uniform on [0, 1); x₀ is drawn first.
        """
        start = noise.normal(*action.shape[1:])
        return self.error_at(obs, action, start, noise.uniform(action.shape[1], 1))

    def error_at(self, obs: Tensor, action: Tensor, start: Tensor, time: Tensor) -> Tensor:
        """Return `(v(s, x_t, t) − (a − x₀))²` for x₀ `[S, B, action_dim]` and t `[S, B, 1]`."""
        x = (1 - time) * start + time * action
        return (self.velocity(obs, x, time) - (action - start)).square()


class NoisePolicy(ActingPolicy):
    """`a = μ(s, z)` with z ~ N(0, I): one pass of a network from noise to the action.

    It is FQL's one-step policy, distilled from a flow with the same noise; or, `squashed` and with
    `noise_bound=3`, SDM-GAN's implicit one. μ is unbounded unless `squashed`; what acts is clipped
    to [−1, 1]. z has `noise_dim` numbers, by default as many as the action, kept within
    ±`noise_bound`.
    """

    exports = NEEDS_NOISE

    def __init__(
        self,
        init: SeedStream,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        layer_norm: Norm = False,
        start: Start = GLOROT,
        activation: Activation = "gelu",
        noise_dim: int | None = None,
        noise_bound: float | None = None,
        squashed: bool = False,
    ):
        super().__init__()
        self.noise_dim = action_dim if noise_dim is None else noise_dim
        self.noise_bound, self.squashed = noise_bound, squashed
        n_in = obs_dim + self.noise_dim
        self.net = MLP(init, 1, n_in, hidden, action_dim, layer_norm, start, activation)

    def from_noise(self, obs: Tensor, z: Tensor, frozen: bool = False) -> Tensor:
        """Return μ(s, z), not clipped, `[S, B, action_dim]`, for z `[S, B, noise_dim]`."""
        out = self.raw(obs, z, frozen)
        return torch.tanh(out) if self.squashed else out

    def raw(self, obs: Tensor, z: Tensor, frozen: bool = False) -> Tensor:
        """Return the network's output, before a tanh, `[S, B, action_dim]`."""
        out: Tensor = self.net(torch.cat([obs, z], dim=-1), frozen).squeeze(1)
        return out

    def many_from_noise(self, obs: Tensor, z: Tensor, frozen: bool = False) -> Tensor:
        """Return μ(s, z_k), not clipped, `[S, B, K, action_dim]`, for z `[S, B, K, noise_dim]`."""
        out: Tensor = self.net(obs, frozen, each=z).squeeze(1).unflatten(1, z.shape[1:3])
        return torch.tanh(out) if self.squashed else out

    def draw_noise(self, noise: SeedStream, *shape: int) -> Tensor:
        """Draw z, `[S, *shape, noise_dim]`."""
        z = noise.normal(*shape, self.noise_dim)
        return z if self.noise_bound is None else z.clamp(-self.noise_bound, self.noise_bound)

    def mode(self, obs: Tensor, frozen: bool = False) -> Tensor:
        """Return the action at noise of zero, `[S, B, action_dim]`."""
        z = obs.new_zeros(*obs.shape[:2], self.noise_dim)
        return self.from_noise(obs, z, frozen).clamp(-1.0, 1.0)

    def draw(self, obs: Tensor, noise: SeedStream, frozen: bool = False) -> Tensor:
        z = self.draw_noise(noise, obs.shape[1])
        return self.from_noise(obs, z, frozen).clamp(-1.0, 1.0)

"""How uncertain pairs of state and action are, as a model of those in the data sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from baq_cli.agents.interface import Batch, Spec
from baq_cli.agents.parts.vae import VAE
from baq_cli.nets.streams import SeedStream

LEAST_STD = 1e-3
"""Added to standard deviations, as the authors of TD3+BC and SUNG do."""


class PairUncertainty(nn.Module):
    """U(s, a): what a variational auto-encoder of pairs, states standardised, fits on (SUNG).

    `U = mean_j (x̂_j − x_j)² + β mean_l KL_l` for x = (s, a), with one z of 2|A| numbers a pair.
    States that end in a tanh, as in the authors' code, can't be reconstructed beyond ±1.
    """

    state_mean: Tensor
    state_std: Tensor

    def __init__(
        self,
        spec: Spec,
        hidden: Sequence[int],
        beta: float,
        states: Literal["linear", "tanh"] = "linear",
    ):
        super().__init__()
        n_pair = spec.obs_dim + spec.action_dim
        bounded = n_pair if states == "tanh" else spec.action_dim
        own = SeedStream(spec.seeds, "init/vae", spec.device)
        self.vae = VAE(own, n_pair, 0, 2 * spec.action_dim, bounded, hidden, beta)
        mean = torch.zeros(len(spec.seeds), 1, spec.obs_dim, device=spec.device)
        self.register_buffer("state_mean", mean)
        self.register_buffer("state_std", torch.ones_like(mean))

    def standardise(self, chunks: Iterable[Batch]) -> None:
        """Standardise states by those of `chunks` from now on; before, they are taken as given."""
        count, sums = 0, torch.zeros_like(self.state_mean, dtype=torch.float64)
        squares = sums
        for batch in chunks:
            obs = batch.obs.double()
            count += obs.shape[1]
            sums = sums + obs.sum(1, keepdim=True)
            squares = squares + obs.square().sum(1, keepdim=True)
        mean = sums / count
        self.state_mean.copy_(mean)
        self.state_std.copy_((squares / count - mean.square()).clamp(min=0).sqrt() + LEAST_STD)

    def forward(self, obs: Tensor, action: Tensor, noise: SeedStream) -> Tensor:
        """Return U(s, a), `[S, B]`."""
        pair = torch.cat([(obs - self.state_mean) / self.state_std, action], dim=-1)
        return self.vae.negative_elbo(pair, None, noise)

    def many(self, obs: Tensor, actions: Tensor, noise: SeedStream) -> Tensor:
        """Return U(s, a_k), `[S, B, K]`, for actions `[S, B, K, action_dim]`."""
        states = obs.unsqueeze(2).expand(-1, -1, actions.shape[2], -1)
        uncertain: Tensor = self(states.flatten(1, 2), actions.flatten(1, 2), noise)
        return uncertain.unflatten(1, actions.shape[1:3])

"""A variational auto-encoder: how likely an action, or a pair of state and action, is in data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from baq_cli.nets.mlp import MLP
from baq_cli.nets.policies import LOG_SQRT_2PI
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig

LOG_STD_RANGE = (-4.0, 15.0)


class VAEConfig(AgentConfig):
    """The keys of a method that fits a variational auto-encoder before its own updates."""

    vae_steps: int = Field(100_000, ge=1, description="updates of the VAE before the others'")
    vae_hidden: tuple[int, ...] = Field((750, 750), description="hidden layer widths of the VAE")
    vae_learning_rate: float = Field(1e-3, gt=0, description="of the VAE")
    vae_beta: float = Field(0.5, ge=0, description="β, of the KL divergence in the VAE's loss")


class VAE(nn.Module):
    """A model of `data [S, B, data_dim]` given a `condition [S, B, condition_dim]`, or of it alone.

    Encoder and decoder see the condition first: q(z|c, x) is Gaussian, and the decoder's mean of x
    ends with a tanh in its last `bounded` numbers. SPOT (arXiv 2202.06239) models actions given
    states: `data_dim = bounded = |A|`, `condition_dim = |S|`. SUNG (arXiv 2306.07541) models pairs
    (s, a), without a condition; in its released code all numbers are bounded, and states beyond ±1
    can't be reconstructed: `bounded = |A|` leaves them linear. Both have a latent of 2|A| numbers.
    As in their code, the KL divergence is a mean over latent numbers, times `beta`, and the
    reconstruction error a mean over data numbers.
    """

    def __init__(
        self,
        init: SeedStream,
        data_dim: int,
        condition_dim: int,
        latent_dim: int,
        bounded: int,
        hidden: Sequence[int] = (750, 750),
        beta: float = 0.5,
    ):
        super().__init__()
        self.encoder = MLP(init, 1, condition_dim + data_dim, hidden, 2 * latent_dim)
        self.decoder = MLP(init, 1, condition_dim + latent_dim, hidden, data_dim)
        self.data_dim, self.latent_dim = data_dim, latent_dim
        self.linear, self.beta = data_dim - bounded, beta

    def encode(
        self, data: Tensor, condition: Tensor | None = None, frozen: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of q(z|c, x), `[S, B, latent_dim]`."""
        whole = data if condition is None else torch.cat([condition, data], dim=-1)
        mean, log_std = self.encoder(whole, frozen).squeeze(1).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def decode(self, z: Tensor, condition: Tensor | None = None, frozen: bool = False) -> Tensor:
        """Return the mean of x for each z, `[S, B, K, data_dim]`, for z `[S, B, K, latent_dim]`."""
        given = z[:, :, 0, :0] if condition is None else condition
        out = self.decoder(given, frozen, each=z).squeeze(1).unflatten(1, z.shape[1:3])
        return torch.cat([out[..., : self.linear], torch.tanh(out[..., self.linear :])], dim=-1)

    def negative_elbo(
        self,
        data: Tensor,
        condition: Tensor | None,
        noise: SeedStream,
        frozen: bool = False,
        samples: int = 1,
    ) -> Tensor:
        """Return `mean_j (x̂_j − x_j)² + β mean_l KL_l`, `[S, B]`; the error averaged over z's.

        It is what the model trains on, SPOT's constraint and SUNG's uncertainty: the larger, the
        less likely x is.
        """
        mean, log_std = self.encode(data, condition, frozen)
        z, _ = self._posterior(mean, log_std, noise, samples)
        error = (self.decode(z, condition, frozen) - data.unsqueeze(2)).square().mean((2, 3))
        kl = -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).mean(-1)
        return error + self.beta * kl

    def log_likelihood(
        self,
        data: Tensor,
        condition: Tensor | None,
        noise: SeedStream,
        samples: int,
        frozen: bool = False,
    ) -> Tensor:
        """Return `log mean_k p(x|c, z_k) p(z_k) / q(z_k|c, x)`, `[S, B]`: importance-weighted.

        The decoder's variance is the one for which `negative_elbo` is an evidence bound: with means
        over D data and L latent numbers it is `β D / (2 L)`, which is SPOT's β/4 for L = 2 D.
        """
        mean, log_std = self.encode(data, condition, frozen)
        z, eps = self._posterior(mean, log_std, noise, samples)
        variance = self.beta * self.data_dim / (2 * self.latent_dim)
        error = (self.decode(z, condition, frozen) - data.unsqueeze(2)).square()
        log_scale = 0.5 * math.log(variance) + LOG_SQRT_2PI
        log_data = (-0.5 * error / variance - log_scale).sum(-1)
        log_ratio = (0.5 * (eps.square() - z.square()) + log_std.unsqueeze(2)).sum(-1)
        return torch.logsumexp(log_data + log_ratio, dim=2) - math.log(samples)

    def _posterior(
        self, mean: Tensor, log_std: Tensor, noise: SeedStream, samples: int
    ) -> tuple[Tensor, Tensor]:
        """Return reparametrised z's, `[S, B, K, latent_dim]`, and their standard normal noise."""
        eps = noise.normal(mean.shape[1], samples, self.latent_dim)
        return mean.unsqueeze(2) + log_std.exp().unsqueeze(2) * eps, eps

"""An ensemble that predicts the next state and the reward, and says how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baq_cli.agents.base import frozen_copy
from baq_cli.agents.interface import Batch, Experience, Spec
from baq_cli.agents.parts.keeping import keep_where
from baq_cli.nets.mlp import MLP
from baq_cli.nets.start import Start
from baq_cli.nets.streams import SeedStream

BOUND_WEIGHT = 0.01
LEAST_STD = 1e-6
"""A number of the input that spreads less counts as constant, and is not divided by its spread."""
JUDGES = 5_000
"""Rows of a store that members are judged by."""


class Predicted(NamedTuple):
    """What every member predicts, in the units of batches.

    Shapes: mean and std of (next state, reward) `[S, N, B, obs_dim + 1]`; end, the logit of a
    termination, `[S, N, B]`.
    """

    mean: Tensor
    std: Tensor
    end: Tensor


class Imagined(NamedTuple):
    """One step in the model: next_obs `[S, B, obs_dim]`; reward, bootstrap and penalty `[S, B]`."""

    next_obs: Tensor
    reward: Tensor
    bootstrap: Tensor
    penalty: Tensor


class Members(nn.Module):
    """N networks a seed, from standardised (s, a) to a Gaussian of standardised (Δs, r).

    The log-variance stays between two bounds `[S, N, 1, obs_dim + 1]` that are learned.
    """

    def __init__(
        self, init: SeedStream, obs_dim: int, n_in: int, members: int, hidden: Sequence[int]
    ):
        super().__init__()
        self.outputs = obs_dim + 1
        n_out = 2 * self.outputs + 1
        start = Start("normal")
        self.net = MLP(init, members, n_in, hidden, n_out, start=start, activation="silu")
        shape = (len(init.seeds), members, 1, self.outputs)
        self.highest = nn.Parameter(torch.full(shape, 0.5, device=init.device))
        self.lowest = nn.Parameter(torch.full(shape, -10.0, device=init.device))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, log-variance `[S, N, B, obs_dim + 1]` and end `[S, N, B]`."""
        sizes = [self.outputs, self.outputs, 1]
        mean, log_variance, end = self.net(x).split(sizes, dim=-1)
        log_variance = self.highest - F.softplus(self.highest - log_variance)
        log_variance = self.lowest + F.softplus(log_variance - self.lowest)
        return mean, log_variance, end.squeeze(-1)


class GaussianDynamics(nn.Module):
    """A probabilistic ensemble of N dynamics models a seed, as in MOPO (arXiv 2005.13239).

    `learner` is what trains; `kept` holds each member as it was when it was off by least on the
    rows that judge it, in `losses [S, N]`, and is what predicts. The `elites` best of these move a
    state on. Inputs and targets are standardised by the rows that `standardise` saw. Whether a
    transition terminates is predicted too, as in SDM-GAN (2206.07166).

    Departures from both: members differ by their first weights and not by their rows; each has
    bounds of its variance; the best is kept by its likelihood after fixed numbers of
    steps, however little better it is, where the authors stop early.
    """

    losses: Tensor
    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    end_weight: Tensor

    def __init__(
        self,
        spec: Spec,
        hidden: Sequence[int] = (200, 200, 200, 200),
        members: int = 7,
        elites: int = 5,
    ):
        super().__init__()
        self.obs_dim, self.best = spec.obs_dim, elites
        n_in = spec.obs_dim + spec.action_dim
        init = SeedStream(spec.seeds, "init/dynamics", spec.device)
        self.learner = Members(init, spec.obs_dim, n_in, members, hidden)
        self.kept = frozen_copy(self.learner)
        seeds, device = len(spec.seeds), spec.device
        infinite = torch.full((seeds, members), float("inf"), device=device)
        self.register_buffer("losses", infinite)
        for name, width in (("input", n_in), ("target", spec.obs_dim + 1)):
            self.register_buffer(f"{name}_mean", torch.zeros(seeds, 1, width, device=device))
            self.register_buffer(f"{name}_std", torch.ones(seeds, 1, width, device=device))
        self.register_buffer("end_weight", torch.ones(seeds, device=device))

    @property
    def elites(self) -> Tensor:
        """The members with the lowest losses, best first, `[S, elites]`."""
        return self.losses.argsort(dim=1, stable=True)[:, : self.best]

    @torch.no_grad()
    def standardise(self, chunks: Iterable[Batch]) -> None:
        """Standardise by the rows of `chunks` from now on; before, numbers are taken as they are.

        What was fitted in other units is wrong until it is fitted again: do it before a fit.
        """
        count = ended = torch.zeros_like(self.end_weight)
        sums = [[torch.zeros_like(mean, dtype=torch.float64)] * 2 for mean in self._means()]
        for batch in chunks:
            count, ended = count + batch.obs.shape[1], ended + (1 - batch.bootstrap).sum(1)
            values = self._input(batch.obs, batch.action), self._target(batch)
            sums = [
                [total + v.double().pow(k + 1).sum(1, keepdim=True) for k, total in enumerate(both)]
                for both, v in zip(sums, values, strict=True)
            ]
        rows = count.view(-1, 1, 1).double()
        for (first, second), mean, std in zip(sums, self._means(), self._stds(), strict=True):
            mean.copy_(first / rows)
            spread = (second / rows - (first / rows).square()).clamp(min=0).sqrt()
            std.copy_(torch.where(spread < LEAST_STD, torch.ones_like(spread), spread))
        self.end_weight.copy_(((count - ended) / ended.clamp(min=1)).clamp(min=1))

    def fit_loss(self, batch: Batch) -> Tensor:
        """Return the members' summed losses on rows that are not held out, `[S]`.

        A member's is the mean over rows of its `error`, and BOUND_WEIGHT/N of how far apart its
        bounds of the log-variance are, summed over outputs.
        """
        held_out = batch.columns.get("held_out", torch.zeros_like(batch.reward))
        used = (1.0 - held_out).unsqueeze(1)
        fit = (used * self.error(batch, self.learner)).sum(2) / used.sum(2).clamp(min=1.0)
        apart = (self.learner.highest - self.learner.lowest).sum((2, 3))
        return fit.sum(1) + BOUND_WEIGHT * apart.mean(1)

    def error(self, batch: Batch, members: Members) -> Tensor:
        """Return what each of the members is off by, `[S, N, B]`.

        That is the mean over outputs of `(y − μ)²/σ² + log σ²` in standardised units, and the
        cross-entropy of the termination, where these weigh as much as all other rows together.
        """
        mean, log_variance, end = members(self._standard(batch.obs, batch.action))
        y = ((self._target(batch) - self.target_mean) / self.target_std).unsqueeze(1)
        off = (y - mean).square() * (-log_variance).exp() + log_variance
        ended = (1.0 - batch.bootstrap).unsqueeze(1)
        weight = self.end_weight.view(-1, 1, 1)
        wrong = weight * ended * F.softplus(-end) + (1.0 - ended) * F.softplus(end)
        return off.mean(-1) + wrong

    @torch.no_grad()
    def keep_better(self, chunks: Iterable[Batch]) -> None:
        """Keep each member of the learner that is off by less on some rows than the kept one.

        Rows count by their `weight`. Both are measured anew: a loss on other rows, or in other
        units, says nothing of now.
        """
        new, old, count = (torch.zeros_like(self.losses) for _ in range(3))
        for batch in chunks:
            weight = batch.weight.unsqueeze(1)
            new += (weight * self.error(batch, self.learner)).sum(2)
            old += (weight * self.error(batch, self.kept)).sum(2)
            count += weight.sum(2)
        better = new < old  # [S, N]
        self.losses.copy_(torch.where(better, new, old) / count)
        keep_where(better, self.kept, self.learner)

    @torch.no_grad()
    def go_back(self) -> None:
        """Let the learner go on from the members that are kept."""
        keep_where(torch.ones_like(self.losses, dtype=torch.bool), self.learner, self.kept)

    @torch.no_grad()
    def predict(self, obs: Tensor, action: Tensor) -> Predicted:
        """Return what the kept members predict of `[S, B]` states and actions."""
        mean, log_variance, end = self.kept(self._standard(obs, action))
        std, offset = self.target_std.unsqueeze(1), self.target_mean.unsqueeze(1)
        before = F.pad(obs, (0, 1)).unsqueeze(1)
        return Predicted(before + mean * std + offset, (0.5 * log_variance).exp() * std, end)

    @torch.no_grad()
    def step(self, obs: Tensor, action: Tensor, noise: SeedStream) -> Imagined:
        """Move each state on by a sample of one of the elites, drawn anew for every row.

        The penalty is MOPO's, see `uncertainty`. A transition terminates where the drawn elite
        finds that likelier than not.
        """
        mean, std, end = self.predict(obs, action)
        elites = self.elites
        drawn = (noise.uniform(obs.shape[1]) * elites.shape[1]).long()
        chosen = elites.gather(1, drawn).unsqueeze(1)  # [S, 1, B]
        at = chosen.unsqueeze(3).expand(-1, -1, -1, mean.shape[3])
        own_mean, own_std = mean.gather(1, at).squeeze(1), std.gather(1, at).squeeze(1)
        sample = own_mean + own_std * noise.normal(*own_mean.shape[1:])
        goes_on = (end.gather(1, chosen).squeeze(1) <= 0).to(sample.dtype)
        return Imagined(sample[..., :-1], sample[..., -1], goes_on, _longest(std))

    def uncertainty(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return `max_i ‖σ_i(s, a)‖` over all members, of next state and reward, `[S, B]`."""
        return _longest(self.predict(obs, action).std)

    # -- units

    def _means(self) -> tuple[Tensor, Tensor]:
        return self.input_mean, self.target_mean

    def _stds(self) -> tuple[Tensor, Tensor]:
        return self.input_std, self.target_std

    def _input(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.cat([obs, action], dim=-1)

    def _standard(self, obs: Tensor, action: Tensor) -> Tensor:
        return (self._input(obs, action) - self.input_mean) / self.input_std

    def _target(self, batch: Batch) -> Tensor:
        """Return Δs and r, `[S, B, obs_dim + 1]`."""
        return torch.cat([batch.next_obs - batch.obs, batch.reward.unsqueeze(-1)], dim=-1)


def judges(data: Experience, odds: Tensor) -> Iterator[Batch]:
    """Yield rows that tell which members are better: see `GaussianDynamics.keep_better`.

    They are those held out of the dataset, which count by the `odds [S]` together, and online rows,
    which count by the rest of 1; of either evenly spaced ones where there are many.
    """
    held_out = data.chunks(held_out=True, most_rows=JUDGES)
    online = data.chunks(most_rows=JUDGES, store="online")
    for chunks, share in ((held_out, odds), (online, 1 - odds)):
        batches = [*chunks]
        count = sum(batch.obs.shape[1] for batch in batches)
        for batch in batches if count else ():
            yield replace(batch, weight=batch.weight * share.unsqueeze(1) / count)


def _longest(std: Tensor) -> Tensor:
    return std.norm(dim=3).amax(1)

"""What BAQ's confidence κ follows: one class each, all that it remembers in buffers `[S]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Batch, Experience, Spec
from baq_cli.agents.parts.adaptable import Adaptable
from baq_cli.errors import UsageError


@dataclass(frozen=True)
class Evidence:
    """What an update of the policy shows, without gradients.

    `uncertainty` is u(s) and `gap` mean_j (π(s)_j − π_BC(s)_j)², `[S, B]` each; `size` is the mean
    of |Q_i(s, π(s))|, `[S]`; `rate` is ρ, how far κ may move at this update.
    """

    batch: Batch
    uncertainty: Tensor
    gap: Tensor
    size: Tensor
    rate: float


class Confidence(nn.Module):
    """κ in [0, 1], `[S]`: 0 holds a policy to the behaviour, 1 lets it go. This one stays.

    `warmup_env_steps` are those of the frozen policy, `distance_reference` is d_ref, `[S]`.
    """

    data_columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: Spec, warmup_env_steps: int):
        super().__init__()
        self.warmup_env_steps = warmup_env_steps
        self.return_span = spec.return_span

    def begin(self, data: Experience, kappa: Tensor, distance_reference: Tensor) -> None:
        """Measure at the hand-over what it needs, and forget what an earlier phase saw."""

    def annotate(self, batch: Batch, base: Adaptable) -> dict[str, Tensor]:
        """Return columns of transitions that enter a store, `[S, B]` each."""
        return {}

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        """See raw returns and lengths (env_steps) of episodes that ended; return columns, `[S]`."""
        return {}

    def moved(self, kappa: Tensor, seen: Evidence) -> Tensor:
        """Return κ after an update, `[S]`."""
        return kappa

    def report(self) -> dict[str, Tensor]:
        """Return what it goes by, to be logged, `[S]` each."""
        return {}


class Spread(Confidence):
    """Calm critics: κ ← κ + ρ (1 − mean u − κ), the mean over a batch's online rows."""

    def moved(self, kappa: Tensor, seen: Evidence) -> Tensor:
        mean, there = _mean(seen.uncertainty, seen.batch.online)
        return kappa + seen.rate * there * (1.0 - mean - kappa)


class RelativeSpread(Confidence):
    """Calm critics for values of this size: as `Spread`, with mean u / g in place of mean u.

    g = max(1, m / m_0), m being the mean of |Q_i(s, π(s))| and m_0 what it was at the first update
    of the phase: critics that agree as well as before on values twice as large are calmer.
    """

    first_size: Tensor

    def __init__(self, spec: Spec, warmup_env_steps: int):
        super().__init__(spec, warmup_env_steps)
        self.register_buffer("first_size", per_seed(0.0, spec))

    def begin(self, data: Experience, kappa: Tensor, distance_reference: Tensor) -> None:
        self.first_size.zero_()

    def moved(self, kappa: Tensor, seen: Evidence) -> Tensor:
        first = torch.where(self.first_size > 0, self.first_size, seen.size.clamp(min=1e-8))
        self.first_size.copy_(first)
        mean, there = _mean(seen.uncertainty, seen.batch.online)
        calm = 1.0 - mean / (seen.size / first).clamp(min=1.0)
        return kappa + seen.rate * there * (calm - kappa)


class Calibration(Confidence):
    """Values that came true: κ = 1 − clip(o / ½, 0, 1), o the over-estimation on new episodes.

        o ← o + ρ (clip(mean (v − G) / σ_G, −1, 1) − o), from ½ (1 − κ)

    v is the value that the policy follows, Q(s, a), when the transition entered; G the discounted
    return that followed, in update units, known when the episode ends (one that was truncated goes
    on with its last rewards, as in Cal-QL); the mean is over a batch's rows of the `NEWEST`
    episodes that ended. σ_G is the standard deviation of G over the dataset's rows, so that no unit
    of the task is left. Values of soft methods hold their entropy, which G does not.
    """

    TOLERANCE, NEWEST = 0.5, 10
    data_columns = ("mc_return",)

    return_spread: Tensor
    overestimation: Tensor
    episodes: Tensor

    def __init__(self, spec: Spec, warmup_env_steps: int):
        super().__init__(spec, warmup_env_steps)
        self.register_buffer("return_spread", per_seed(1.0, spec))
        self.register_buffer("overestimation", per_seed(self.TOLERANCE, spec))
        self.register_buffer("episodes", per_seed(0.0, spec))

    def begin(self, data: Experience, kappa: Tensor, distance_reference: Tensor) -> None:
        self.overestimation.copy_(self.TOLERANCE * (1.0 - kappa))
        self.episodes.zero_()
        returns = [batch.columns["mc_return"] for batch in data.chunks()]
        if not returns:
            raise UsageError(
                "baq.confidence=calibration measures values by the spread of a dataset's returns, "
                "and this run draws from none: set baq.online_share below 1, or choose another "
                "baq.confidence."
            )
        spread = torch.cat(returns, 1).std(1, unbiased=False)
        self.return_spread.copy_(spread.clamp(min=1e-6))

    def annotate(self, batch: Batch, base: Adaptable) -> dict[str, Tensor]:
        value = base.followed(base.critic(batch.obs, batch.action))
        return {"entry_value": value, "episode_ended": torch.zeros_like(value)}

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        self.episodes += finished
        return {"episode_ended": self.episodes.clone()}  # its number, from 1

    def moved(self, kappa: Tensor, seen: Evidence) -> Tensor:
        columns = seen.batch.columns
        number, ended = columns["episode_ended"], self.episodes.unsqueeze(1)
        newest = seen.batch.online * (number > 0) * (number > ended - self.NEWEST)
        error = (columns["entry_value"] - columns["mc_return"]) / self.return_spread.unsqueeze(1)
        mean, there = _mean(error, newest)
        self.overestimation += seen.rate * there * (mean.clamp(-1.0, 1.0) - self.overestimation)
        return 1.0 - (self.overestimation / self.TOLERANCE).clamp(0.0, 1.0)

    def report(self) -> dict[str, Tensor]:
        return {"overestimation": self.overestimation.clone()}


class Returns(Confidence):
    """Returns that hold: κ ← κ + ρ (1 − clip(f / 0.1, 0, 1) − κ), f their fall since the warm-up.

        f = (R_w − R̄) / (R_high − R_low),  R̄ ← R̄ + 0.2 (R − R̄) at each later episode's end

    R_w is the mean return of the episodes that ended within the warm-up, of the first one where
    none did; R̄ begins there. R_low and R_high are the dataset's lowest and highest return; where
    these are the same, their size stands for the difference. κ waits for the first episode behind
    the warm-up.
    """

    TOLERANCE, NEW = 0.1, 0.2

    reference: Tensor
    recent: Tensor
    first_episodes: Tensor
    later_episodes: Tensor
    env_steps: Tensor

    def __init__(self, spec: Spec, warmup_env_steps: int):
        super().__init__(spec, warmup_env_steps)
        for name in ("reference", "recent", "first_episodes", "later_episodes", "env_steps"):
            self.register_buffer(name, per_seed(0.0, spec))

    def begin(self, data: Experience, kappa: Tensor, distance_reference: Tensor) -> None:
        for buffer in self.buffers():
            buffer.zero_()

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        returns = returns.to(self.reference)
        self.env_steps += finished * lengths
        warm = (self.env_steps <= self.warmup_env_steps) | (self.first_episodes == 0)
        first, later = finished & warm, finished & ~warm
        self.first_episodes += first
        self.later_episodes += later
        count = self.first_episodes.clamp(min=1.0)
        self.reference += first * (returns - self.reference) / count
        recent = self.recent + self.NEW * later * (returns - self.recent)
        self.recent.copy_(torch.where(first, self.reference, recent))
        return {}

    @property
    def fall(self) -> Tensor:
        """f, `[S]`: how far returns have fallen, as a part of the dataset's range."""
        return (self.reference - self.recent) / self.return_span

    def moved(self, kappa: Tensor, seen: Evidence) -> Tensor:
        calm = 1.0 - (self.fall / self.TOLERANCE).clamp(0.0, 1.0)
        return kappa + seen.rate * (self.later_episodes > 0) * (calm - kappa)

    def report(self) -> dict[str, Tensor]:
        return {"return_fall": self.fall}


class Dual(Returns):
    """An allowed distance to the behaviour: 1 − κ is the dual variable of mean gap ≤ ε.

        κ ← clip(κ + ρ clip(1 − mean gap / ε, −1, 1), 0, 1),  ε = max(d_ref, 10⁻³) exp(10⁻⁴ n)

    The mean is over a batch's online rows. n, which widens ε, counts environment steps behind the
    warm-up: those of episodes at whose end returns hold (f ≤ 0.1, as for *returns*), less those of
    others, and never below 0.
    """

    WIDENING, LEAST, MOST_EXPONENT = 1e-4, 1e-3, 20.0

    nearest: Tensor
    widened: Tensor

    def __init__(self, spec: Spec, warmup_env_steps: int):
        super().__init__(spec, warmup_env_steps)
        self.register_buffer("nearest", per_seed(1.0, spec))
        self.register_buffer("widened", per_seed(0.0, spec))

    def begin(self, data: Experience, kappa: Tensor, distance_reference: Tensor) -> None:
        super().begin(data, kappa, distance_reference)
        self.nearest.copy_(distance_reference.clamp(min=self.LEAST))

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        before = self.later_episodes.clone()
        columns = super().on_episode_end(finished, returns, lengths)
        way = torch.where(self.fall <= self.TOLERANCE, lengths, -lengths)
        later = self.later_episodes > before
        self.widened.copy_((self.widened + later * way).clamp(min=0.0))
        return columns

    @property
    def allowed(self) -> Tensor:
        """ε, `[S]`."""
        return self.nearest * (self.WIDENING * self.widened).clamp(max=self.MOST_EXPONENT).exp()

    def moved(self, kappa: Tensor, seen: Evidence) -> Tensor:
        mean, there = _mean(seen.gap, seen.batch.online)
        slack = (1.0 - mean / self.allowed).clamp(-1.0, 1.0)
        return (kappa + seen.rate * there * slack).clamp(0.0, 1.0)

    def report(self) -> dict[str, Tensor]:
        return super().report() | {"allowed_distance": self.allowed}


def _mean(values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the chosen rows of `[S, B]`, and whether there are any, `[S]` each."""
    rows = chosen.sum(1)
    return (values * chosen).sum(1) / rows.clamp(min=1.0), rows > 0


CONFIDENCES: dict[str, type[Confidence]] = {
    "spread": Spread,
    "relative_spread": RelativeSpread,
    "calibration": Calibration,
    "returns": Returns,
    "dual": Dual,
}
"""What κ may follow, by the recipe's name."""

"""SAC-N whose critics are held apart by the directions of their gradients."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Batch
from baq_cli.agents.objectives import td_loss
from baq_cli.agents.sac_n import SACN
from baq_cli.nets.streams import SeedStream


class EDAC(SACN):
    """EDAC (An et al. 2021, arXiv 2110.01548): SAC-N with critics that differ in their gradients.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over N critics,
              + η mean_B[Σ_{i≠j} cos(∇_a Q_i(s, a), ∇_a Q_j(s, a))] / (N − 1)
              η = `diversity_weight`; y as SAC-N, or with `max_target_backup`
              y = r + γ (1 − d) min_j max_k Q_j(s', a'_k),  a'_k: `target_actions` samples of π(s')
        π, α  as SAC-N
    The sum has both orders of a pair. Gradients that differ lower the minimum beside the data with
    fewer critics: the authors take 10 on HalfCheetah and Walker2d, 50 on Hopper.
    The best of several actions is by the critics, not their targets, and without entropy, as in the
    authors' code.

    Online: the same losses, the second term at the actions of the batch, whichever store they are
    from. Actions are samples of π.

    At the hand-over: as SAC-N, so batches are drawn from the dataset and the online rows together,
    or with `online_share` in fixed parts. The paper has no online phase.

    Departures: those of SAC-N. With one action dimension a direction is a sign, which has no slope:
    there EDAC learns as SAC-N does.
    """

    name = "edac"
    title = "EDAC"
    family = "ensemble"
    constraint_online = "stays"

    class Config(SACN.Config):
        critics: int = Field(10, ge=2)
        diversity_weight: float = Field(1.0, ge=0, description="η, weight of the diversity term")
        max_target_backup: bool = Field(
            False, description="bootstrap on each critic's best of several policy actions"
        )
        target_actions: int = Field(10, ge=1, description="actions that such a target looks at")

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.diversity_weight: Tensor
        weight = per_seed(self.config.diversity_weight, self.spec)  # as configured, or dropped
        self.register_buffer("diversity_weight", weight, persistent=False)

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        if not self.config.max_target_backup:
            return super().q_target(batch, noise)
        with torch.no_grad():
            count = self.config.target_actions
            actions, _ = self.policy.sample_many(self.policy_next_obs(batch), count, noise)
            best = self.critic.many(batch.next_obs, actions).amax(3)  # [S, N, B]
            return batch.reward + batch.discount * best.amin(1)

    def critic_loss(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, dict[str, Tensor]]:
        q, slope = self.critic.slopes(batch.obs, batch.action)
        td = td_loss(q, self.q_target(batch, noise), batch.weight)
        alike = (batch.constraint * similarity(slope)).mean(1)
        return td + self.diversity_weight * alike, {"q": q.mean((1, 2)), "similarity": alike}

    def drop_constraint(self) -> None:
        self.diversity_weight.zero_()


def similarity(slope: Tensor) -> Tensor:
    """Return `Σ_{i≠j} cos(g_i, g_j) / (N − 1)` of gradients `[S, N, B, action_dim]`, `[S, B]`.

    Of unit vectors u_i the sum is `‖Σ_i u_i‖² − Σ_i ‖u_i‖²`.
    """
    unit = slope / (slope.norm(dim=-1, keepdim=True) + 1e-10)
    together, alone = unit.sum(1).square().sum(-1), unit.square().sum((1, 3))
    return (together - alone) / (slope.shape[1] - 1)

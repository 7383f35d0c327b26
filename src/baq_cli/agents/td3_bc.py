"""TD3 with a behaviour-cloning term."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import Batch, Experience, Losses, Seen, Target
from baq_cli.agents.objectives import mean_abs, squared_distance, td_loss
from baq_cli.agents.parts.adaptable import Adaptable
from baq_cli.agents.parts.td3 import TD3
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig


class TD3BC(TD3, Adaptable):
    """TD3+BC (Fujimoto, Gu 2021, arXiv 2106.06860): TD3 whose actor also clones the data.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over critics
              y = r + γ (1 − d) min_j Q̄_j(s', a'),  a' = clip(π̄(s') + clip(ε, ±c), ±1)
              ε ~ N(0, σ²),  σ = `target_noise`,  c = `target_noise_clip`
        π     −mean_B[Q_1(s, π(s))] / mean_B|Q_1(s, π(s))| + (1/α) mean_B mean_j (π(s)_j − a_j)²
    The policy steps on every second gradient step, and the targets with it.

    Online: the same losses. Actions have Gaussian noise of std `exploration_noise`.

    At the hand-over: the losses stay as they are; batches are drawn from the dataset and the online
    rows together, or with `online_share` in fixed parts.

    Departures: the policy's loss is divided by the paper's α (the same minimiser; Adam doesn't see
    the scale), so that the cloning term's weight is 1/α; critic and policy step on one backward
    pass, from the same parameters.
    """

    name = "td3_bc"
    title = "TD3+BC"
    family = "policy constraint"
    constraint_online = "stays"

    class Config(TD3.Config):
        former: ClassVar[dict[str, Any]] = AgentConfig.former | {
            "actor_q": "mean",
            "targets_move": "every_step",
        }

        normalize_observations: bool = True
        alpha: float = Field(2.5, gt=0, description="weight of the value against cloning")
        actor_q: Literal["first", "mean", "min"] = Field(
            "first", description="the critics' value that the actor follows"
        )
        targets_move: Literal["every_step", "with_policy"] = Field(
            "with_policy", description="when target networks follow"
        )

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.bc_weight: Tensor
        self.register_buffer("bc_weight", per_seed(self.initial_bc_weight(), self.spec))

    def initial_bc_weight(self) -> float:
        return 1.0 / float(self.config.alpha)

    def targets(self) -> list[Target]:
        if self.config.targets_move == "with_policy":
            return super().targets()
        return [replace(target, follows=None) for target in super().targets()]

    def in_actor(self, q: Tensor) -> Tensor:
        """Return those of `[S, N, B]` critics' values that the actor's loss averages."""
        if self.config.actor_q == "min":
            return q.amin(1, keepdim=True)
        return q[:, :1] if self.config.actor_q == "first" else q

    def followed(self, q: Tensor) -> Tensor:
        return self.in_actor(q).mean(1)

    def policy_loss(self, batch: Batch) -> tuple[Tensor, Seen]:
        """Return `mean_B[−Q(s, π)/mean|Q| + w_bc (π(s) − a)²]`, `[S]`; and π(s), Q_i(s, π(s)).

        Q is the first critic, the least, or every one, whose terms are then averaged.
        """
        action = self.policy.mode(batch.obs)
        q_policy = self.critic(batch.obs, action, frozen=True)
        followed = self.in_actor(q_policy)
        value = -(followed.mean((1, 2)) / mean_abs(followed))
        cloning = (batch.constraint * squared_distance(action, batch.action)).mean(1)
        return value + self.bc_weight * cloning, Seen(action, q_policy)

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        q = self.critic(batch.obs, batch.action)
        critic = td_loss(q, self.q_target(batch, noise), batch.weight)
        metrics = {"q": q.mean((1, 2)), "bc_weight": self.bc_weight}
        if "policy" not in active:
            return Losses(metrics, critic=critic)
        policy, seen = self.policy_loss(batch)
        return Losses(metrics, seen, critic=critic, policy=policy)

    def hand_over(self, data: Experience) -> frozenset[str]:
        self.bc_weight.fill_(self.initial_bc_weight())
        return frozenset()

    def drop_constraint(self) -> None:
        self.bc_weight.zero_()

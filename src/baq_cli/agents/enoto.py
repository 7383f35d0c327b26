"""Ensemble-based offline-to-online: pessimism offline, weighted pairs and optimism online."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.cql import CQL
from baq_cli.agents.interface import Batch, Losses
from baq_cli.agents.objectives import td_loss
from baq_cli.agents.parts.soft import SoftActorCritic
from baq_cli.agents.plans import Draw, Plan
from baq_cli.nets.critics import Reduction, reduce_q
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Initialization, LogStd, Positive


class ENOTO(CQL):
    """ENOTO (Zhao et al. 2023, arXiv 2306.06871): CQL-N offline, SAC-N made optimistic online.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over N critics, + α_c mean_i gap_i  (gap as CQL)
              y = r + γ (1 − d) min_j Q̄_j(s', a'),  a' the mode of π(s')
        π, α  as SAC

    Online:
        Q_i   ω mean_B[(Q_i(s, a) − y)²], summed over critics
              ω = sigmoid(−T mean_B std_i Q̄_i(s, a)) + 0.5,  T = `weight_temperature`
              y = r + γ (1 − d) [mean_{i<j} min(Q̄_i, Q̄_j)(s', a') − α log π(a'|s')],  a' ~ π(s')
        π, α  as SAC
    Actions are the best of `ucb_actions` samples of π by mean_i Q_i + c std_i Q_i, c = `ucb_bonus`.
    ω is one number a batch (here a seed), as in the authors' code.

    At the hand-over: the penalty goes; targets gain entropy and average over all pairs
    (`online_target`); the online store starts empty and no row of the dataset is drawn again; the
    first `warmup_env_steps` are taken without updates.

    Departures: all groups step on one backward pass, from the same parameters; the authors' base on
    AntMaze, LAPO, is not here.
    """

    name = "enoto"
    title = "ENOTO"
    family = "ensemble"
    constraint_online = "ends"

    class Config(CQL.Config):
        unused: ClassVar[frozenset[str]] = frozenset(
            {"online_share", "entropy_backup", "max_target_backup", "cql_target_gap"}
        )
        former: ClassVar[dict[str, Any]] = SoftActorCritic.Config.former | {"cql_min_gap": None}

        own: ClassVar[dict[str, str]] = {"critics": "how many there are is its pessimism"}

        initialization: Initialization = "uniform"
        policy_initialization: Initialization | None = None
        last_layer_gain: Positive | None = None
        normalize_observations: bool = False
        initial_log_std: LogStd | None = None
        cql_weight: float = Field(5.0, ge=0, description="α_c, the penalty's weight")
        critics: int = Field(10, ge=2)
        policy_learning_rate: float = Field(3e-5, gt=0)
        temperature_learning_rate: float | None = Field(1e-4, gt=0)
        warmup_env_steps: int = Field(1_000, ge=0)
        online_target: Reduction = Field("weighted_min_pair", description="reduction online")
        ucb_actions: int = Field(10, ge=1, description="actions to choose the best of")
        ucb_bonus: float = Field(10.0, ge=0, description="c, the weight of the ensemble's std")
        weight_temperature: float = Field(10.0, ge=0, description="T of the loss weight")

    config: Config

    def penalty(self, batch: Batch, q: Tensor, noise: SeedStream) -> Tensor:
        """Return the conservative gap averaged over critics, `[S]`."""
        return super().penalty(batch, q, noise) / self.config.critics

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        with torch.no_grad():
            next_action = self.policy.mode(batch.next_obs)
            next_q = self.critic_target(batch.next_obs, next_action)
            next_value = reduce_q(next_q, self.config.target_reduction, noise)
            return batch.reward + batch.discount * next_value

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        q = self.critic(batch.obs, batch.action)
        weight = self.loss_weight(batch)
        policy, temperature = self.actor_losses(batch, noise)
        return Losses(
            {"q": q.mean((1, 2)), "loss_weight": weight, "alpha": self.alpha.squeeze(1)},
            critic=weight * td_loss(q, self.online_q_target(batch, noise), batch.weight),
            policy=policy,
            temperature=temperature,
        )

    def online_q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `r + γ (1 − d) [mean over pairs of min(Q̄_i, Q̄_j)(s', a') − α log π(a'|s')]`."""
        with torch.no_grad():
            next_action, next_log_prob = self.policy.sample(batch.next_obs, noise)
            next_q = self.critic_target(batch.next_obs, next_action)
            next_value = reduce_q(next_q, self.config.online_target, noise)
            next_value = next_value - self.alpha * next_log_prob
            return batch.reward + batch.discount * next_value

    def loss_weight(self, batch: Batch) -> Tensor:
        """Return `sigmoid(−T · mean_B std_i Q̄_i(s, a)) + 0.5`, `[S]`."""
        with torch.no_grad():
            spread = self.critic_target(batch.obs, batch.action).std(1).mean(1)
            return torch.sigmoid(-self.config.weight_temperature * spread) + 0.5

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        """Return the best of K sampled actions by `mean_i Q_i + c · std_i Q_i`."""
        actions, _ = self.policy.sample_many(obs, self.config.ucb_actions, noise)
        q = self.critic.many(obs, actions)  # [S, N, E, K]
        best = (q.mean(1) + self.config.ucb_bonus * q.std(1)).argmax(2)  # [S, E]
        chosen = best.unsqueeze(2).unsqueeze(3).expand(-1, -1, -1, actions.shape[-1])
        return actions.gather(2, chosen).squeeze(2)

    def acting_parts(self) -> tuple[str, ...]:
        return ("policy.", "critic.")

    def online_plan(self) -> Plan:
        config = self.config
        return Plan(
            (Draw(("online",)),), config.utd, config.warmup_env_steps, capacity=config.capacity
        )

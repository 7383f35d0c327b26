"""Off2On: several CQL agents become one pessimistic ensemble, fed by how online its data look."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.base import per_seed
from baq_cli.agents.interface import ONLINE, Batch, Experience, Group, Losses
from baq_cli.agents.parts.cql_members import CQLMembers
from baq_cli.agents.parts.density_ratio import DensityRatio
from baq_cli.agents.plans import UNION, Draw, Plan
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Initialization, Widths

LEAST_PRIORITY, MOST_PRIORITY = 1e-3, 1e3


class Off2On(CQLMembers):
    """Off2On (Lee et al. 2021, arXiv 2107.00591): balanced replay and a pessimistic Q-ensemble.

    Offline: N agents (`members`) that share nothing, each CQL with `critics` critics:
        Q_ic  mean_B[(Q_ic(s, a) − y_i)²] + α_c gap_ic, summed over critics; gap as CQL's, of π_i
              y_i = r + γ (1 − d) min_c Q̄_ic(s', a'),  a' ~ π_i(s')
        π_i   mean_B[α_i log π_i(a|s) − min_c Q_ic(s, a)],  a ~ π_i(s)
        α_i   −log α_i · mean_B[log π_i(a|s) + H],  H = `target_entropy`

    Online: one policy π = tanh N(μ, σ²), with μ = mean_i μ_i and σ² = mean_i(μ_i² + σ_i²) − μ²:
        Q_ic  mean_B[(Q_ic(s, a) − y_i)²], summed over all critics
              y_i = r + γ (1 − d) [min_c Q̄_ic(s', a') − α log π(a'|s')],  a' ~ π(s')
        π     mean_B[α log π(a|s) − mean_i min_c Q_ic(s, a)],  a ~ π(s), through all π_i
        α     −log α · mean_B[log π(a|s) + H]
        w     −mean_offline log(2 / (w(s, a) + 1)) − mean_online log(2 w(s, a) / (w(s, a) + 1))
    The batch is drawn from both stores by priority. A row that was drawn gets, with
    T = `ratio_temperature`, w^(1/T) / mean_offline w^(1/T), in 0.001 to 1000. The means are over
    batches that are drawn from each store uniformly. A new row enters at the greatest priority so
    far. Evaluations in either phase act by tanh(μ).

    At the hand-over: the N agents become the ensemble, without the penalty; targets begin as the
    critics, α as `initial_temperature`, all optimisers fresh. The dataset's rows have priority 1,
    the greatest is M f / ((1 − f) W), f = `initial_online_share`, for M rows of data and
    W = `warmup_env_steps`: so a batch has a share of f of the first W online rows, which come
    without updates. Then follow `first_updates`, and `utd` an environment step.

    Departures: the agents are pre-trained in one run, each on rows of its own (the authors: five
    runs); critics, policy, temperature and ratio step on one backward pass, from the same
    parameters, and priorities are of the ratio after it; environment steps and updates take turns
    one by one (the authors: 1 000 each); priorities are drawn from row by row, not stratified;
    hidden biases begin at 0.1 (0).
    """

    name = "off2on"
    title = "Off2On"
    family = "ensemble"
    constraint_online = "ends"
    needs_own_pretraining = True
    fresh_online = ("ratio", "greatest")

    class Config(CQLMembers.Config):
        unused: ClassVar[frozenset[str]] = frozenset(
            {"online_share", "target_reduction", "entropy_backup"}
        )

        initialization: Initialization = "small_last"
        warmup_env_steps: int = Field(1_000, ge=0, description="environment steps before updates")
        first_updates: int = Field(10_000, ge=0, description="updates at once after the warm-up")
        initial_online_share: float = Field(
            0.5, gt=0, lt=1, description="f, of the batch, that the rows of the warm-up make up"
        )
        ratio_hidden: Widths = Field((256, 256), description="hidden layer widths of the ratio")
        ratio_learning_rate: float = Field(3e-4, gt=0, description="of the density ratio")
        ratio_temperature: float = Field(
            5.0, gt=0, description="T: priorities are the ratio's T-th root"
        )

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        if self.phase == "online":
            spec = self.spec
            pair = spec.obs_dim + spec.action_dim
            self.ratio = DensityRatio(init, pair, self.config.ratio_hidden)
            self.greatest: Tensor
            self.register_buffer("greatest", per_seed(1.0, spec))

    def groups(self) -> dict[str, Group]:
        groups = super().groups()
        if self.phase == "online":
            groups["ratio"] = Group((self.ratio,), self.config.ratio_learning_rate)
        return groups

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        return self.loss_apart(batch, noise)

    # -- online: one ensemble

    def online_plan(self) -> Plan:
        config = self.config
        balanced = Draw(UNION.stores, prioritised=True, name="balanced")
        apart = (Draw((store,), name=store) for store in UNION.stores)
        return Plan(
            (balanced, *apart),
            config.utd,
            config.warmup_env_steps,
            config.first_updates,
            capacity=config.capacity,
        )

    def hand_over(self, data: Experience) -> frozenset[str]:
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.reset_temperature()
        share, rows = self.config.initial_online_share, max(1, data.size("offline"))
        first = max(1, self.config.warmup_env_steps)
        self.greatest.fill_(rows * share / ((1 - share) * first))
        return frozenset(self.groups())

    def q_target(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return each critic's target, its member's own, `[S, N · C, B]`."""
        with torch.no_grad():
            action, log_prob = self.policy.sample(batch.next_obs, noise)
            next_q = self.by_member(self.critic_target(batch.next_obs, action)).amin(2)
            own = next_q.repeat_interleave(self.config.critics, dim=1)
            return self.backup(batch, own, log_prob)

    def actor_losses(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, Tensor]:
        action, log_prob = self.policy.sample(batch.obs, noise)
        q = self.by_member(self.critic(batch.obs, action, frozen=True)).amin(2).mean(1)
        surplus = (log_prob.detach() + self.target_entropy).mean(1)
        return (self.alpha * log_prob - q).mean(1), -self.log_alpha * surplus

    def online_loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        balanced = batch.part("balanced")
        losses = super().loss(balanced, noise, active)
        online, offline = (_pairs(batch.part(store)) for store in ("online", "offline"))
        losses.terms["ratio"] = self.ratio.loss(online, offline)
        losses.metrics |= {
            "online_share": balanced.online.mean(1),
            "greatest": self.greatest.clone(),
        }
        return losses

    def annotate(self, batch: Batch) -> dict[str, Tensor]:
        new = self.greatest.unsqueeze(1).expand_as(batch.source)
        return {"priority": torch.where(batch.source == ONLINE, new, 1.0)}

    def reprioritise(self, batch: Batch) -> Tensor:
        rooted = self.ratio(_pairs(batch)) ** (1 / self.config.ratio_temperature)
        usual = rooted[:, batch.parts["offline"]].mean(1, keepdim=True) + 1e-10
        found = (rooted / usual).clamp(LEAST_PRIORITY, MOST_PRIORITY)
        most = found[:, batch.parts["balanced"]].amax(1)
        self.greatest.copy_(torch.maximum(self.greatest, most))
        return found


def _pairs(batch: Batch) -> Tensor:
    return torch.cat([batch.obs, batch.action], dim=-1)

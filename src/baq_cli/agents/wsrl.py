"""WSRL: conservative pre-training, then soft actor-critic online without the data."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from baq_cli.agents.cal_ql import CalQL
from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import Plan
from baq_cli.nets.critics import Reduction
from baq_cli.nets.streams import SeedStream


class WSRL(CalQL):
    """WSRL (Zhou et al. 2024, arXiv 2412.07762): conservative pre-training, then SAC, data left.

    Offline:
        Q_i   as CQL, of ten critics; with `calibrated`, as Cal-QL
              y = r + γ (1 − d) max_k min_{j ∈ Z} Q̄_j(s', a'_k),  a'_k: K samples of π(s')
              Z: two draws of a critic with replacement, at every update
        π     mean_B[α log π(a|s) − min_i Q_i(s, a)],  a ~ π(s); it has LayerNorm, as critics do
        α     as SAC

    Online:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over critics
              y = r + γ (1 − d) min_{j ∈ Z} Q̄_j(s', a'),  a' ~ π(s')
        π, α  as offline
    `utd` critic steps follow each environment step; policy and temperature step once in so many, on
    as many batches as one.

    At the hand-over: the penalty ends (`conservative_online`) and so does the target's maximum over
    actions (`online_max_target_backup`, which the authors keep on AntMaze); no row of the dataset
    is drawn any more (`online_share`). The pre-trained policy acts for `warmup_env_steps` before
    the first update, to fill the store. Networks, temperature and optimisers go on. CQL's and
    Cal-QL's checkpoints can be continued as well, with the critics and the policy that they have;
    their optimisers begin anew.

    Departures: with `calibrated`, the returns of Cal-QL; each critic step draws a batch of its own,
    and a policy step that of the last one and others beside it (the authors: all batches of the
    step); these share one backward pass, from the same parameters. Steps of the policy fall on
    every `utd`-th gradient step, which the count of pre-training may shift from the last of an
    environment step's.
    """

    name = "wsrl"
    title = "WSRL"
    family = "conservative critic"
    constraint_online = "ends"

    class Config(CalQL.Config):
        own: ClassVar[dict[str, str]] = {"online_share": "it keeps no dataset online"}

        critics: int = Field(10, ge=1)
        layer_norm: bool = True
        policy_layer_norm: bool = True
        target_reduction: Reduction = "min_of_two_draws"
        calibrated: bool = Field(
            False, description="offline: the penalty stops at the return, as Cal-QL's"
        )
        utd: int = Field(4, ge=1)
        warmup_env_steps: int = Field(5_000, ge=0)
        online_share: float | None = Field(1.0, ge=0, le=1)
        conservative_online: bool = Field(False, description="whether the penalty stays online")
        online_max_target_backup: bool = Field(
            False, description="bootstrap on the best of K policy actions, online"
        )

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.steps = 1
        """Critic steps a policy step."""
        if self.phase == "offline":
            return
        config = self.config
        self.steps, self.max_backup = config.utd, config.online_max_target_backup
        self.every = {"policy": config.utd, "temperature": config.utd}
        if not config.conservative_online:
            self.drop_constraint()

    def calibrate(self, q_policy: Tensor, batch: Batch) -> Tensor:
        return super().calibrate(q_policy, batch) if self.config.calibrated else q_policy

    def critic_loss(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, dict[str, Tensor]]:
        own = -(-batch.obs.shape[1] // self.steps)  # the first of as many batches as steps
        return super().critic_loss(batch.rows(slice(own)), noise)

    def online_plan(self) -> Plan:
        """Return draws of a batch for the critics, and behind it of the policy's other batches.

        Both have the same shares of the stores.
        """
        plan, others = super().online_plan(), self.config.utd - 1
        beside = [replace(draw, share=draw.share * others) for draw in plan.draws]
        return replace(plan, draws=(*plan.draws, *beside) if others else plan.draws)

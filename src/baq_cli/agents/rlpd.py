"""RLPD: soft actor-critic online, half of whose rows are a dataset's, with many updates a step."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.agents.parts.soft import SoftActorCritic
from baq_cli.nets.critics import Reduction
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import Initialization


class RLPD(SoftActorCritic):
    """RLPD (Ball et al. 2023, arXiv 2302.02948): SAC from scratch, beside a dataset.

    Online:
        Q_i   mean_{i,B}[(Q_i(s, a) − y)²], of N critics with LayerNorm
              y = r + γ (1 − d) [min_{j ∈ Z} Q̄_j(s', a') − α log π(a'|s')],  a' ~ π(s')
              Z: two critics, drawn without replacement at every update
        π     mean_B[α log π(a|s) − mean_i Q_i(s, a)],  a ~ π(s)
        α     −log α · mean_B[log π(a|s) + H],  H = `target_entropy`
    Half of every batch is online rows (`online_share`), the rest the dataset's: this method has no
    pre-training, and needs a dataset. The first `warmup_env_steps` actions are uniformly random.
    Then `utd` critic steps follow each environment step; policy and temperature step at the last of
    them, on its batch. The authors draw one critic in place of two on AntMaze
    (`target_reduction: one`), and leave the entropy out of y there and on Adroit
    (`entropy_backup: false`).

    Departures: each update draws a batch of its own (the authors: one for all updates of a step,
    split); the last critic step, the policy's and the temperature's share one backward pass, from
    the same parameters; the temperature's loss is in log α (the authors': in α). A checkpoint that
    it continues has its policy act in the place of random actions, and steps of the policy fall on
    every `utd`-th gradient step, which its count may shift from the last of an environment step's.
    """

    name = "rlpd"
    title = "RLPD"
    family = "ensemble"
    learns_offline: ClassVar[bool] = False
    actor_reduction: ClassVar[Reduction] = "mean"

    class Config(SoftActorCritic.Config):
        initialization: Initialization = "glorot"
        critics: int = Field(10, ge=1)
        layer_norm: bool = True
        target_reduction: Reduction = "min_of_two"
        target_entropy: float | None = Field(
            None, description="H, the policy's; null: minus |A| / 2"
        )
        utd: int = Field(20, ge=1)
        warmup_env_steps: int = Field(5_000, ge=0, description="random environment steps first")
        online_share: float | None = Field(0.5, ge=0, le=1)

    config: Config

    def build(self, init: SeedStream) -> None:
        super().build(init)
        if self.config.target_entropy is None:
            self.target_entropy /= 2
        if self.phase == "online":  # pre-training, on a base's account, has no steps to group by
            self.every = {"policy": self.config.utd, "temperature": self.config.utd}

    def critic_loss(self, batch: Batch, noise: SeedStream) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().critic_loss(batch, noise)
        return loss / self.config.critics, metrics

"""Calibrated Q-learning."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.cql import CQL
from baq_cli.agents.interface import Batch
from baq_cli.recipes.closed import Initialization, Widths


class CalQL(CQL):
    """Cal-QL (Nakamoto et al. 2023, arXiv 2303.05479): CQL whose penalty stops at the return.

    Offline:
        Q_i   as CQL, with max(Q_i(s, a_k), G) in place of Q_i(s, a_k) at the policy's actions a_k
              G: the Monte-Carlo return of the row, from s on
              y = r + γ (1 − d) max_k min_j Q̄_j(s', a'_k),  a'_k: K samples of π(s')
        π, α  as SAC

    Online: the same losses. The returns of an episode's rows are filled in when it ends; until then
    the calibration doesn't bind.

    At the hand-over: the losses stay as they are; half of each batch are online rows
    (`online_share`).

    Departures: a truncated episode's return continues with its mean reward (the paper's tasks end
    at success); all groups step on one backward pass, from the same parameters.
    """

    name = "cal_ql"
    title = "Cal-QL"
    family = "conservative critic"
    constraint_online = "stays"
    data_columns = ("mc_return",)

    class Config(CQL.Config):
        former: ClassVar[dict[str, Any]] = CQL.Config.former | {"max_target_backup": False}

        hidden: Widths = (256, 256)
        policy_initialization: Initialization | None = None
        normalize_observations: bool = False
        policy_learning_rate: float = Field(1e-4, gt=0)
        cql_weight: float = Field(5.0, ge=0, description="α_c, the penalty's weight")
        max_target_backup: bool = Field(
            True, description="bootstrap on the best of K policy actions"
        )
        online_share: float | None = Field(
            0.5, ge=0, le=1, description="share of online rows a batch; null draws from the union"
        )

    def calibrate(self, q_policy: Tensor, batch: Batch) -> Tensor:
        floor = batch.columns["mc_return"].unsqueeze(1).unsqueeze(3)  # [S, 1, B, 1]
        return torch.maximum(q_policy, floor)

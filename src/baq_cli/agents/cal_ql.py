"""Calibrated Q-learning."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from baq_cli.agents.cql import CQL
from baq_cli.agents.interface import Batch


class CalQL(CQL):
    """Cal-QL (Nakamoto et al. 2023, arXiv 2303.05479): CQL whose penalty stops at the return.

    Values at policy actions enter the penalty as `max(Q, G)` with G the Monte-Carlo return of the
    transition, offline and online; the returns of online episodes are filled in as they end, and
    until then the calibration doesn't bind. Departure: a truncated episode's return continues
    with its mean reward (the paper's tasks end at success).
    """

    name = "cal_ql"
    title = "Cal-QL"
    data_columns = ("mc_return",)

    class Config(CQL.Config):
        online_share: float | None = Field(
            0.5, ge=0, le=1, description="share of online rows a batch; null draws from the union"
        )

    def calibrate(self, q_policy: Tensor, batch: Batch) -> Tensor:
        floor = batch.columns["mc_return"].unsqueeze(1).unsqueeze(3)  # [S, 1, B, 1]
        return torch.maximum(q_policy, floor)

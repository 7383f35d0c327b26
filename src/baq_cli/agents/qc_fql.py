"""Q-chunking with FQL: values, flow and policy of several actions at once."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator
from torch import Tensor

from baq_cli.agents.fql import FQL
from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import Plan
from baq_cli.nets.streams import SeedStream


class QCFQL(FQL):
    """QC-FQL (Li, Zhou, Levine 2025, arXiv 2507.07969): FQL on chunks of h actions, done in a row.

    Offline: as FQL with the chunk c = (a, …, a_{h−1}) for an action, h = `chunk`:
        Q_i   mean_B[m_{h−1} (Q_i(s, c) − y)²], averaged over critics
              y = Σ_k γᵏ r_k + γʰ (1 − d) mean_i Q̄_i(s_h, c'),  c' = clip(μ(s_h, z'), ±1)
        v     mean_B mean_k m_k mean_j (v(s, x_t, t)_kj − (c − x₀)_kj)²
              x_t = (1 − t) x₀ + t c,  x₀ ~ N(0, I),  t ~ U(0, 1)
        μ     α mean_B mean_kj (μ(s, z) − f(s, z))_kj² − mean_B mean_i Q_i(s, clip(μ(s, z), ±1))
    m_k is 1 where step k is of the same episode and stored, else 0: a chunk that would cross an
    episode's end teaches v what there is of it, and the critics nothing. d: whether one of its
    steps terminated.

    Online: the same losses. A chunk is sampled, and its actions are done one after the other, none
    looking at what comes of those before; so it is in evaluations. At an episode's end the rest of
    a chunk is dropped.

    At the hand-over: the losses stay as they are, with the same α; the first `warmup_env_steps` are
    taken without updates; batches are drawn from the dataset and the online rows together, or with
    `online_share` in fixed parts.

    Departures: FQL's; a chunk never goes on from the newest stored row to the oldest, as one that
    straddles the write head can in the authors' code; `alpha` is theirs for one task (cube-triple)
    and is to be chosen for others; their variant without a one-step policy, QC, is not here.
    """

    name = "qc_fql"
    title = "QC-FQL"
    family = "generative policy"
    constraint_online = "stays"

    class Config(FQL.Config):
        alpha: float = Field(100.0, ge=0, description="weight of the distance to the flow's chunk")
        warmup_env_steps: int = Field(
            5_000, ge=0, description="online environment steps before the first update"
        )
        chunk: int = Field(5, ge=1, le=1000, description="h, actions decided on at once")

        @model_validator(mode="after")
        def _has_room_for_a_chunk(self) -> QCFQL.Config:
            if self.capacity < self.chunk:
                raise ValueError(
                    f"capacity {self.capacity} is below chunk {self.chunk}: no chunk of online "
                    "rows would be whole, and critics would learn nothing of them. Expected "
                    "capacity >= chunk"
                )
            return self

    config: Config

    def build(self, init: SeedStream) -> None:
        self.chunk = self.config.chunk
        super().build(init)

    def offline_plan(self) -> Plan:
        return replace(super().offline_plan(), window=self.chunk)

    def online_plan(self) -> Plan:
        return replace(super().online_plan(), window=self.chunk)

    def flow_loss(self, batch: Batch, noise: SeedStream) -> Tensor:
        """Return `mean_k m_k mean_j (v(s, x_t, t)_kj − (c − x₀)_kj)²`, `[S, B]`."""
        if batch.valid is None:  # chunks of one action
            return super().flow_loss(batch, noise)
        error = self.flow.matching_error(batch.obs, batch.action, noise)
        return (batch.valid * error.unflatten(2, (self.chunk, -1)).mean(-1)).mean(-1)

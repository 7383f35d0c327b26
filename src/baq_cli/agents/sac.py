"""Soft actor-critic, online from scratch."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from baq_cli.agents.parts.soft import SoftActorCritic
from baq_cli.agents.plans import Draw, Plan


class SAC(SoftActorCritic):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), with a learned temperature.

    Online:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over critics
              y = r + γ (1 − d) [min_j Q̄_j(s', a') − α log π(a'|s')],  a' ~ π(s')
        π     mean_B[α log π(a|s) − min_i Q_i(s, a)],  a ~ π(s)
        α     −log α · mean_B[log π(a|s) + H],  H = `target_entropy`
    The first `warmup_env_steps` actions are uniformly random. Batches are online rows alone.

    Departures: N critics instead of two; the critic, policy and temperature step on one backward
    pass, from the same parameters.
    """

    name = "sac"
    title = "SAC"
    family = "actor-critic"
    learns_offline: ClassVar[bool] = False

    class Config(SoftActorCritic.Config):
        unused: ClassVar[frozenset[str]] = frozenset({"online_share"})

        warmup_env_steps: int = Field(5_000, ge=0, description="random environment steps first")

    config: Config

    def online_plan(self) -> Plan:
        config = self.config
        return Plan(
            draws=(Draw(("online",)),),
            utd=config.utd,
            warmup_env_steps=config.warmup_env_steps,
            capacity=config.capacity,
        )

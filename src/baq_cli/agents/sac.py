"""Soft actor-critic, online from scratch."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from baq_cli.agents.interface import Draw, Plan
from baq_cli.agents.parts.soft import SoftActorCritic


class SAC(SoftActorCritic):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), with a learned temperature.

    Departures: N critics instead of two; the critic, policy and temperature step on one backward
    pass, from the same parameters.
    """

    name = "sac"
    title = "SAC"
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

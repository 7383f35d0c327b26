"""What a method holds on to in its online phase, as its plan and its class say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.plans import Plan
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.agents.wsrl import WSRL
from baq_cli.engine.checkpoints.continuing import continuing
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.load import resolve

Stance = Literal["policy", "both", "data", "neither"]
"""What a fine-tuning is held to: the policy that it begins with, the dataset, both, nothing."""
Settings = dict[str, float]
WARMUP_ENV_STEPS = int(WSRL.Config.model_fields["warmup_env_steps"].default)
"""Steps of the policy as it was handed over, where a method that leaves the data has none of its
own: as many as the authors of WSRL take, who found out what they are good for."""
HALF = 0.5
"""The share of online rows where a method is given the dataset back."""


@dataclass(frozen=True)
class Anchors:
    """What a method, with some settings, is held by online.

    data: whether rows of the dataset are in its batches, and not only for want of others.
    data_share: their share, where it is fixed; None where they are drawn by how many there are, or
    by priority.
    warmup_env_steps: of the policy as it was handed over, before the first update.
    keeps_policy: whether the pre-trained policy stays beside the new one, as it is.
    constraint: see `Agent.constraint_online`. scratch: whether it begins without a policy.
    """

    data: bool
    data_share: float | None
    warmup_env_steps: int
    keeps_policy: bool
    constraint: str
    scratch: bool

    @property
    def stance(self) -> Stance:
        """What it holds on to, taken together."""
        policy = not self.scratch and (
            self.warmup_env_steps > 0
            or self.keeps_policy
            or self.constraint in ("stays", "relaxes")
        )
        if policy:
            return "both" if self.data else "policy"
        return "data" if self.data else "neither"


def anchors_of(
    method: type[Agent], config: AgentConfig | None = None, scratch: bool = False
) -> Anchors:
    """Return what a method is held by online, with a configuration or its defaults.

    What it does before its first update is its policy's, unless it begins from `scratch`.
    """
    spec = Spec((0,), 1, 1, device=torch.device("meta"))
    plan = make_agent(method.name, config or method.Config(), spec, "online").online_plan()
    share = _share(plan)
    return Anchors(
        data=share is None or share > 0,
        data_share=share,
        warmup_env_steps=0 if scratch else plan.warmup_env_steps,
        keeps_policy="policy" in method.fresh_online,
        constraint=method.constraint_online,
        scratch=scratch,
    )


def _share(plan: Plan) -> float | None:
    """Return the part of the real rows of a batch that are the dataset's, where it is fixed."""
    real = [draw for draw in plan.draws if draw.stores != ("model",)]
    if not plan.uses_offline:
        return 0.0
    if any(len(draw.stores) > 1 for draw in real):
        return None
    total = sum(draw.share for draw in real)
    return sum(draw.share for draw in real if draw.stores == ("offline",)) / total


def without_data(method: type[Agent], section: Mapping[str, Any]) -> Settings | None:
    """Return the keys that hold a method to the policy alone; None where no keys do."""
    return _reaching("policy", method, section, {"online_share": 1.0})


def with_data(method: type[Agent], section: Mapping[str, Any]) -> Settings | None:
    """Return the keys that put the dataset into a method's batches; None where no keys do."""
    return _reaching("both", method, section, {"online_share": HALF})


def _reaching(
    stance: Stance, method: type[Agent], section: Mapping[str, Any], keys: Settings
) -> Settings | None:
    """Return the fewest keys that give a method a stance, among those that it has."""
    warm: Settings = {"warmup_env_steps": WARMUP_ENV_STEPS}
    if method.Config.unused & keys.keys():
        return {} if anchors_of(method, configured(method.name, section)).stance == stance else None
    if stance == "policy" and "warmup_env_steps" not in method.Config.unused:
        begun = anchors_of(method, configured(method.name, section)).warmup_env_steps
        keys = keys | ({} if begun else warm)
    for settings in ({}, keys):
        found = anchors_of(method, configured(method.name, {**section, **settings}))
        if found.stance == stance:
            return settings
    return None


def configured(algo: str, section: Mapping[str, Any]) -> AgentConfig:
    """Return a method's configuration with a section; raises UsageError as a recipe does."""
    configs = {name: method.Config for name, method in METHODS.items()}
    return resolve([{"algo": algo, algo: dict(section)}], configs).method


def can_go_on(algo: str) -> list[str]:
    """Return the methods that can fine-tune a method's checkpoint, its own first."""
    own = [algo] if METHODS[algo].learns_online else []
    return [*own, *continuing(algo)]

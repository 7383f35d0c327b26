"""The methods that BAQ adapts, with the settings that they have inside it, and BAQ's own."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from baq_cli.agents.awac import AWAC
from baq_cli.agents.cal_ql import CalQL
from baq_cli.agents.cql import CQL
from baq_cli.agents.edac import EDAC
from baq_cli.agents.iql import IQL
from baq_cli.agents.parts.adaptable import Adaptable
from baq_cli.agents.parts.sections import OnBase
from baq_cli.agents.rebrac import ReBRAC
from baq_cli.agents.rlpd import RLPD
from baq_cli.agents.sac_n import SACN
from baq_cli.agents.td3_bc import TD3BC
from baq_cli.nets.critics import Reduction
from baq_cli.recipes.closed import LogStd

ADAPTED: dict[str, type[Adaptable]] = {
    base.name: base for base in (TD3BC, AWAC, IQL, CQL, CalQL, SACN, EDAC, ReBRAC, RLPD)
}
"""Methods with an ensemble of critics, a policy beside it, and a TD term that takes weights."""


class BaseTD3BC(TD3BC.Config):
    """TD3+BC as BAQ adapts it: its actor follows the mean of an ensemble, not one critic of it."""

    actor_q: Literal["first", "mean", "min"] = "mean"
    targets_move: Literal["every_step", "with_policy"] = "every_step"


class BaseCQL(CQL.Config):
    """CQL as BAQ adapts it, with the penalty that BAQ's own settings were found with."""

    cql_weight: float = Field(5.0, ge=0, description="α_c, the penalty's weight")
    initial_log_std: LogStd | None = None


class Adapted(OnBase):
    """The base's name and section.

    A section has its method's keys. Their defaults don't follow those of TD3+BC and CQL alone.
    """

    bases: ClassVar[tuple[str, ...]] = tuple(ADAPTED)

    base: Literal["td3_bc", "awac", "iql", "cql", "cal_ql", "sac_n", "edac", "rebrac", "rlpd"] = (
        Field("td3_bc", description="the method it adapts")
    )
    td3_bc: BaseTD3BC = BaseTD3BC()
    awac: AWAC.Config = AWAC.Config()
    iql: IQL.Config = IQL.Config()
    cql: BaseCQL = BaseCQL()
    cal_ql: CalQL.Config = CalQL.Config()
    sac_n: SACN.Config = SACN.Config()
    edac: EDAC.Config = EDAC.Config()
    rebrac: ReBRAC.Config = ReBRAC.Config()
    rlpd: RLPD.Config = RLPD.Config()


class BAQConfig(Adapted):
    """BAQ's section. What it shares with its base (networks, batches, rates) is set here."""

    former: ClassVar[dict[str, Any]] = Adapted.former | {
        "confidence": "spread",
        "constraint": "auto",
        "align_weight": 3.0,
    }

    critics: int = Field(4, ge=2)
    layer_norm: bool = True
    target_reduction: Reduction = "min_of_two"
    normalize_observations: bool = True
    warmup_env_steps: int = Field(1_000, ge=0, description="steps of the frozen policy first")
    online_share: float | None = Field(
        0.5, ge=0, le=1, description="ρ, share of online rows a batch; null draws from the union"
    )

    weight: bool = Field(True, description="switch: weight TD errors by behaviour distance")
    priority: Literal["rising", "falling", "off"] = Field(
        "rising", description="switch: priority against behaviour distance"
    )
    align: bool = Field(True, description="switch: align with the behaviour where uncertain")
    align_to: Literal["behavior", "handover"] = Field(
        "behavior", description="what alignment holds to: π_BC, or the policy as it was handed over"
    )
    relax: bool = Field(True, description="switch: relax with confidence (off holds κ at 0)")
    confidence: Literal["relative_spread", "spread", "calibration", "returns", "dual"] = Field(
        "relative_spread", description="what κ follows while it relaxes"
    )
    constraint: Literal["kept", "dropped", "auto"] = Field(
        "kept", description="the base's own constraint online; auto: dropped when align is on"
    )

    k_q: float = Field(3.0, ge=0, description="how fast the weight falls with distance")
    k_p: float = Field(3.0, ge=0, description="how fast the priority changes with distance")
    priority_floor: float = Field(0.05, gt=0, description="ε, added to every priority")
    align_weight: float = Field(1.0, ge=0, description="λ, in units of the base's own loss")
    confidence_rate: float = Field(1e-3, gt=0, le=1, description="of κ, a gradient step")
    bound: float | None = Field(
        None,
        gt=0,
        description="δ, squared distance of the policy to its slow average that is free; null: any",
    )
    bound_weight: float = Field(10.0, ge=0, description="λ_b, of what is beyond δ")
    bound_rate: float = Field(1e-3, gt=0, le=1, description="of the slow average, a policy step")
    distance_limit: float | None = Field(
        0.1, gt=0, description="scale distances down so that their offline median is at most this"
    )
    behavior_hidden: tuple[int, ...] = Field((256, 256), description="hidden layer widths of π_BC")
    behavior_learning_rate: float = Field(3e-4, gt=0, description="of π_BC")

    @property
    def drops_constraint(self) -> bool:
        """Whether the base's own constraint is off online."""
        return self.constraint == "dropped" or (self.constraint == "auto" and self.align)

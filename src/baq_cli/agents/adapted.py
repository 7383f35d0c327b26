"""The methods that BAQ adapts, with the settings that they have inside it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

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
from baq_cli.recipes.closed import LogStd

ADAPTED: dict[str, type[Adaptable]] = {
    base.name: base for base in (TD3BC, IQL, CQL, CalQL, SACN, EDAC, ReBRAC, RLPD)
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

    base: Literal["td3_bc", "iql", "cql", "cal_ql", "sac_n", "edac", "rebrac", "rlpd"] = Field(
        "td3_bc", description="the method it adapts"
    )
    td3_bc: BaseTD3BC = BaseTD3BC()
    iql: IQL.Config = IQL.Config()
    cql: BaseCQL = BaseCQL()
    cal_ql: CalQL.Config = CalQL.Config()
    sac_n: SACN.Config = SACN.Config()
    edac: EDAC.Config = EDAC.Config()
    rebrac: ReBRAC.Config = ReBRAC.Config()
    rlpd: RLPD.Config = RLPD.Config()

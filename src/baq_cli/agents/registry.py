"""The methods, by name."""

from __future__ import annotations

import torch

from baq_cli.agents.adaptive_bc import AdaptiveBC
from baq_cli.agents.awac import AWAC
from baq_cli.agents.baq import BAQ
from baq_cli.agents.base import Agent
from baq_cli.agents.bc import BC
from baq_cli.agents.cal_ql import CalQL
from baq_cli.agents.cql import CQL
from baq_cli.agents.edac import EDAC
from baq_cli.agents.enoto import ENOTO
from baq_cli.agents.famo2o import FamO2O
from baq_cli.agents.fql import FQL
from baq_cli.agents.hi_ors import HiORS
from baq_cli.agents.interface import Spec
from baq_cli.agents.iql import IQL
from baq_cli.agents.moore import MOORe
from baq_cli.agents.off2on import Off2On
from baq_cli.agents.pex import PEX
from baq_cli.agents.qc_fql import QCFQL
from baq_cli.agents.rebrac import ReBRAC
from baq_cli.agents.rlpd import RLPD
from baq_cli.agents.ro2o import RO2O
from baq_cli.agents.sac import SAC
from baq_cli.agents.sac_n import SACN
from baq_cli.agents.sdm_gan import SDMGAN
from baq_cli.agents.so2 import SO2
from baq_cli.agents.spot import SPOT
from baq_cli.agents.sung import SUNG
from baq_cli.agents.td3_bc import TD3BC
from baq_cli.agents.wsrl import WSRL
from baq_cli.recipes.closed import AgentConfig
from baq_cli.units import Phase

METHODS: dict[str, type[Agent]] = {
    method.name: method
    for method in (
        BAQ,
        AWAC,
        IQL,
        CQL,
        CalQL,
        TD3BC,
        BC,
        ENOTO,
        AdaptiveBC,
        SAC,
        SACN,
        EDAC,
        MOORe,
        ReBRAC,
        FQL,
        QCFQL,
        SPOT,
        PEX,
        RLPD,
        WSRL,
        FamO2O,
        SUNG,
        Off2On,
        SO2,
        RO2O,
        SDMGAN,
        HiORS,
    )
}


def method_configs() -> dict[str, type[AgentConfig]]:
    """Return the configuration class of every method, by name."""
    return {name: method.Config for name, method in METHODS.items()}


def online_draws_from_data(algo: str, config: AgentConfig) -> bool:
    """Return whether a method's online batches have rows of a dataset, where there is one."""
    spec = Spec((0,), 1, 1, device=torch.device("meta"))
    return make_agent(algo, config, spec, "online").online_plan().uses_offline


def make_agent(algo: str, config: AgentConfig, spec: Spec, phase: Phase) -> Agent:
    """Build a method's agent for a phase, on the spec's device."""
    return METHODS[algo](config, spec, phase).to(spec.device)

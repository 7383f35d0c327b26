"""Soft actor-critic with many critics, pessimistic by their minimum alone."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from baq_cli.agents.parts.soft import SoftActorCritic
from baq_cli.recipes.closed import Initialization, Widths


class SACN(SoftActorCritic):
    """SAC-N (An et al. 2021, arXiv 2110.01548): SAC on a dataset, with N critics and their minimum.

    Offline:
        Q_i   mean_B[(Q_i(s, a) − y)²], summed over N critics
              y = r + γ (1 − d) [min_j Q̄_j(s', a') − α log π(a'|s')],  a' ~ π(s')
        π     mean_B[α log π(a|s) − min_i Q_i(s, a)],  a ~ π(s)
        α     −log α · mean_B[log π(a|s) + H],  H = `target_entropy`
    The more critics, the lower their minimum where the data say little: N is the pessimism. The
    authors take 10 on HalfCheetah, 20 on Walker2d, 200 to 500 on Hopper.

    Online: the same losses. Actions are samples of π.

    At the hand-over: the losses, the temperature and the optimisers stay as they are; batches are
    drawn from the dataset and the online rows together, or with `online_share` in fixed parts. The
    paper has no online phase.

    Departures: critics, policy and temperature step on one backward pass, from the same
    parameters (the authors: one after the other); first layers begin in ±1/√n of their inputs (the
    authors': of their outputs).
    """

    name = "sac_n"
    title = "SAC-N"
    family = "ensemble"
    constraint_online = "stays"
    log_std_range: ClassVar[tuple[float, float]] = (-5.0, 2.0)

    class Config(SoftActorCritic.Config):
        own: ClassVar[dict[str, str]] = {"critics": "how many there are is its pessimism"}

        hidden: Widths = (256, 256, 256)
        initialization: Initialization = "small_last"
        critics: int = Field(10, ge=1)
        initial_log_std: Annotated[float, Field(ge=-5, le=2)] | None = None  # it is kept there

    config: Config

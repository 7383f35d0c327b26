"""What data alone say of a policy: its value at start states, with what is known beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.agents.base import Agent
from baq_cli.bootstrap import Interval, mean_interval
from baq_cli.data.episodes import Episodes, returns_to_go
from baq_cli.engine.estimation.fitted_q import FittedQ, FittedQConfig
from baq_cli.engine.experience.inputs import Inputs

Array = npt.NDArray[Any]
STEPS = 5_000


@dataclass(frozen=True)
class Estimate:
    """What is estimated of S policies from K episodes.

    `value` is the mean over seeds of the discounted return, in raw reward units, from the first
    states of the episodes; its interval, and those by seed, come of drawing episodes anew: how
    wrong the critics are is not in them. `behavior` is what the data's own episodes reached from
    there, discounted, truncated ones continued (see `monte_carlo_returns`); `behavior_raw` their
    undiscounted return; `gain` the mean of the value minus the behaviour's, start by start.
    """

    discount: float
    gradient_steps: int
    episodes: int
    value: Interval
    seeds: tuple[Interval, ...]
    behavior: Interval
    behavior_raw: Interval
    gain: Interval

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON has it: None for the interval of a single episode."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def discount_of(agent: Agent) -> float:
    """Return γ of the phase that an agent was built for."""
    plan = agent.offline_plan() if agent.phase == "offline" else agent.online_plan()
    return plan.discount or agent.config.discount


def fitted_q(
    agent: Agent, episodes: Episodes, inputs: Inputs, config: FittedQConfig | None = None
) -> FittedQ:
    """Return fitted Q evaluation for an agent's policies, not fitted yet."""
    return FittedQ(agent.spec, episodes, inputs, discount_of(agent), config, agent.chunk)


def estimate(
    agent: Agent,
    episodes: Episodes,
    inputs: Inputs,
    steps: int = STEPS,
    config: FittedQConfig | None = None,
) -> Estimate:
    """Estimate the value of an agent's policies, as an evaluation plays them, from a dataset.

    Raises NonFiniteError where the critics diverge.
    """
    fitted = fitted_q(agent, episodes, inputs, config)
    fitted.fit(agent.act, steps)
    return of_values(fitted.values(), discount_of(agent), steps, episodes)


def of_values(values: Array, discount: float, steps: int, episodes: Episodes) -> Estimate:
    """Return what values `[S, K]` of the episodes' first states say."""
    reached = discounted_returns(episodes, discount)
    return Estimate(
        discount=discount,
        gradient_steps=steps,
        episodes=len(episodes.starts),
        value=mean_interval(values.mean(0)),
        seeds=tuple(mean_interval(each) for each in values),
        behavior=mean_interval(reached),
        behavior_raw=mean_interval(episodes.returns),
        gain=mean_interval(values.mean(0) - reached),
    )


def discounted_returns(episodes: Episodes, discount: float) -> Array:
    """Return the discounted return of each episode in raw reward units, `[K]` float64.

    A truncated one goes on beyond the log as `monte_carlo_returns` has it.
    """
    reward, last = episodes.reward.astype(np.float64), episodes.starts + episodes.lengths - 1
    found: Sequence[float] = [
        float(returns_to_go(reward[start : stop + 1], bool(ended), discount)[0])
        for start, stop, ended in zip(episodes.starts, last, episodes.terminated[last], strict=True)
    ]
    return np.asarray(found)


def _plain(value: Any) -> Any:
    """Return an entry with None for NaN."""
    if isinstance(value, dict):
        return {key: _plain(number) for key, number in value.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and isnan(value) else value

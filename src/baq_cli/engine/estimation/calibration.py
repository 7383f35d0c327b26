"""Whether critics say what came: values predicted of logged actions, and the returns from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from baq_cli.agents.base import Agent
from baq_cli.data.episodes import Episodes, monte_carlo_returns
from baq_cli.engine.estimation.closeness import evenly
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.nets.critics import QEnsemble

Array = npt.NDArray[Any]
Predict = Callable[[Array, Array], Array]
"""Q(s, a), `[S, N]`, of raw observations `[N, obs_dim]` and actions `[N, action_dim]`."""
BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Predicted values Q(s, a) of logged actions beside the discounted returns realised from there.

    The critics' values are the policy's: that it goes on from s' as it would itself. The returns
    are the behaviour's. So `bias`, predicted minus realised, is what the policy is thought to gain
    after the logged action, and the critics' error; `correlation` is Pearson's, over transitions.
    Both `[S]`. `predicted_bins` and `realised_bins [10]` are means within tenths of the predicted
    values, over all seeds.
    """

    transitions: int
    episodes: int
    predicted: float
    realised: float
    bias: tuple[float, ...]
    correlation: tuple[float | None, ...]
    predicted_bins: tuple[float, ...]
    realised_bins: tuple[float, ...]


def held_out_rows(episodes: Episodes) -> Array:
    """Return transitions of the episodes that are set aside; of all, where there is only one."""
    rows = np.flatnonzero(episodes.held_out())
    rows = rows if len(rows) else np.arange(len(episodes))
    return rows[evenly(len(rows))]


def calibration(
    predict: Predict, episodes: Episodes, reward: Array, discount: float
) -> Calibration:
    """Hold predictions against the returns of held-out episodes; `reward [M]` in their units.

    A truncated episode goes on beyond the log as `monte_carlo_returns` has it.
    """
    rows = held_out_rows(episodes)
    realised = monte_carlo_returns(episodes, reward, discount)[rows].astype(np.float64)
    predicted = predict(episodes.obs[rows], episodes.action[rows])
    pairs = predicted.ravel(), np.tile(realised, len(predicted))
    parts = np.array_split(np.argsort(pairs[0], kind="stable"), min(BINS, len(pairs[0])))
    return Calibration(
        transitions=len(rows),
        episodes=len(np.unique(episodes.episode[rows])),
        predicted=float(predicted.mean()),
        realised=float(realised.mean()),
        bias=tuple((predicted - realised).mean(1).tolist()),
        correlation=tuple(_correlation(each, realised) for each in predicted),
        predicted_bins=tuple(float(pairs[0][part].mean()) for part in parts),
        realised_bins=tuple(float(pairs[1][part].mean()) for part in parts),
    )


def own_critics(agent: Agent, inputs: Inputs) -> Predict | None:
    """Return what a method's critics predict, in the units of its updates: the mean of them.

    None where it has none that judge single actions in states as they are, or acts alone.
    """
    critic, spec = getattr(agent, "critic", None), agent.spec
    if not isinstance(critic, QEnsemble) or agent.chunk > 1:
        return None
    first = next(critic.parameters())
    if first.is_meta or first.shape[2] != spec.obs_dim + spec.action_dim:
        return None

    def predict(obs: Array, action: Array) -> Array:
        states, actions = (
            part.float().to(spec.device).expand(len(spec.seeds), -1, -1)
            for part in (inputs.obs(obs), torch.from_numpy(action))
        )
        with torch.no_grad():
            return np.asarray(critic(states, actions).mean(1).cpu().numpy(), dtype=np.float64)

    return predict


def _correlation(x: Array, y: Array) -> float | None:
    """Return Pearson's correlation; None where one of them is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])

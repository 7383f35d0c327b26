"""How far policies are from data: their actions from those that were logged, state by state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.data.episodes import Episodes
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.nets.policies import Policy
from baq_cli.nets.streams import SeedStream

Array = npt.NDArray[Any]
MOST_ROWS, ROWS = 20_000, 4096


@dataclass(frozen=True)
class Closeness:
    """How far S policies act from the data, over evenly spaced transitions.

    `distance [S]` is the mean of the root mean square, over action dimensions, of what the policy
    does minus what was logged, in shares of an action's range: 0 is the same, 1 the other end.
    `spread` is that of the logged actions from their own mean, to read it by. `log_likelihood [S]`
    is the mean of log π(a|s), actions in [−1, 1]; None where the policy that acts has no density.
    `actions` says what was compared: the policy's `mode`, or `samples`.
    """

    distance: tuple[float, ...]
    spread: float
    log_likelihood: tuple[float, ...] | None
    actions: str
    transitions: int


def closeness(agent: Agent, episodes: Episodes, inputs: Inputs) -> Closeness:
    """Compare what an agent's policies do, as an evaluation plays them, with what was logged."""
    rows, spec = evenly(len(episodes)), agent.spec
    noise = SeedStream(spec.seeds, "act/closeness", spec.device)
    before, has_density = noise.state(), _acts_by_its_policy(agent)
    apart: list[Tensor] = []
    likely: list[Tensor] = []
    obs, logged = inputs.obs(episodes.obs[rows]).float(), torch.from_numpy(episodes.action[rows])
    with torch.no_grad():
        for states, done in zip(obs.split(ROWS), logged.split(ROWS), strict=True):
            states, done = (
                part.to(spec.device).expand(len(spec.seeds), -1, -1) for part in (states, done)
            )
            action = agent.act(states, noise)[..., : spec.action_dim]
            apart.append((action - done).square().mean(-1).sqrt() / 2)
            if has_density:
                likely.append(agent.policy.log_prob(states, done))  # type: ignore[operator]
    spread = logged - logged.mean(0)
    return Closeness(
        distance=_by_seed(apart),
        spread=float(spread.square().mean(-1).sqrt().mean() / 2),
        log_likelihood=_by_seed(likely) if likely else None,
        actions="mode" if torch.equal(before, noise.state()) else "samples",
        transitions=len(rows),
    )


def evenly(count: int, most: int = MOST_ROWS) -> Array:
    """Return at most so many places in `range(count)`, evenly spaced."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def _acts_by_its_policy(agent: Agent) -> bool:
    """Return whether what acts is the policy itself, with a density."""
    return type(agent).act is Agent.act and isinstance(agent.policy, Policy)


def _by_seed(parts: list[Tensor]) -> tuple[float, ...]:
    means: list[float] = torch.cat(parts, dim=1).double().mean(1).tolist()
    return tuple(means)

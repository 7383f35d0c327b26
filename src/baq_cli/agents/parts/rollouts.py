"""Transitions that a model makes, a few steps at a time, and where its rollouts begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from baq_cli.agents.interface import Experience
from baq_cli.agents.plans import Draw
from baq_cli.nets.streams import SeedStream

AT_ONCE = 4_096
"""Rollouts that are made together: every member's layers of these are in memory at a time."""


@torch.no_grad()
def roll_out(
    imagine: Callable[[Tensor], Mapping[str, Tensor]],
    data: Experience,
    starts: Draw,
    rollouts: int,
    horizon: int,
    noise: SeedStream,
) -> None:
    """Put `rollouts · horizon` transitions a seed into the model store.

    `imagine` makes a transition, by field, of each of the states `[S, K, obs_dim]`. A rollout
    begins at a state of a row as `starts` draws it and goes on from the next state; where it has
    terminated, from another such state. So no row follows a termination, and every seed has as many
    rows as the others, whatever its model thinks of terminations.
    """
    for done in range(0, rollouts, AT_ONCE):
        rows = min(AT_ONCE, rollouts - done)
        obs = data.sample((starts,), rows, noise).obs
        for _ in range(horizon):
            made = imagine(obs)
            data.put("model", made)
            other = data.sample((starts,), rows, noise).obs
            obs = torch.where(made["bootstrap"].unsqueeze(-1) > 0, made["next_obs"], other)

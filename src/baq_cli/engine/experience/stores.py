"""The two stores of an online phase, with the columns that the method computes."""

from __future__ import annotations

import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import OnlinePlan
from baq_cli.engine.experience.store import Layout, Store
from baq_cli.engine.experience.sumtree import SumTree
from baq_cli.nets.streams import SeedStream

ANNOTATE_ROWS = 8192


def annotate(agent: Agent, obs: Tensor, action: Tensor) -> dict[str, Tensor]:
    """Return the method's own columns for transitions `[S, B]`, without gradients."""
    with torch.no_grad():
        return agent.annotate(obs, action)


def make_stores(
    agent: Agent, plan: OnlinePlan, offline: Store | None, env_steps: int
) -> tuple[Store | None, Store]:
    """Return the offline store as the plan wants it in reach, and an empty online store.

    The online store has room for `env_steps` transitions a seed, or the plan's capacity.
    """
    spec = agent.spec
    seeds = len(spec.seeds)
    probe = torch.zeros(seeds, 1, spec.obs_dim, device=spec.device)
    none = torch.zeros(seeds, 1, spec.action_dim, device=spec.device)
    own = tuple(annotate(agent, probe, none))
    layout = Layout(spec.obs_dim, spec.action_dim, (*agent.data_columns, *own))
    capacity = min(plan.capacity, env_steps)
    online = Store.empty(layout, seeds, capacity, spec.device)
    prioritised = any(draw.prioritised for draw in plan.draws)
    if prioritised:
        online.priorities = SumTree(seeds, capacity, spec.device)
    if offline is None or not plan.uses_offline:
        return None, online
    offline = Store(layout, offline.rows, offline.size)
    if own:
        _annotate_store(offline, agent, own)
    if plan.offline_share < 1:
        offline.subset = _subset(offline.size, plan, spec.seeds, spec.device)
    if prioritised and offline.own is not None:
        priority = offline.own[..., own.index("priority")]
        if offline.subset is not None:
            priority = priority.gather(1, offline.subset)
        offline.priorities = SumTree(seeds, offline.reach, spec.device)
        offline.priorities.fill(priority.double())
    return offline, online


def _annotate_store(offline: Store, agent: Agent, own: tuple[str, ...]) -> None:
    where = offline.layout.slices
    parts = []
    for rows in offline.rows[0, : offline.size].split(ANNOTATE_ROWS):
        shared = rows.unsqueeze(0).expand(len(agent.spec.seeds), -1, -1)
        columns = annotate(agent, shared[..., where["obs"]], shared[..., where["action"]])
        parts.append(torch.stack([columns[name] for name in own], dim=-1))
    offline.own = torch.cat(parts, dim=1)


def _subset(size: int, plan: OnlinePlan, seeds: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the rows that stay in reach, `[S, K]`, drawn once for each seed."""
    keep = min(size, max(plan.offline_min_rows, round(plan.offline_share * size)))
    return SeedStream(seeds, "subset", device).permutation(size)[:, :keep].contiguous()

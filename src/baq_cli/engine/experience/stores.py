"""The two stores of an online phase, with the columns that the method computes."""

from __future__ import annotations

import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import OFFLINE, ONLINE, Batch, Plan, StoreName
from baq_cli.engine.experience.store import Layout, Store
from baq_cli.engine.experience.sumtree import SumTree
from baq_cli.nets.streams import SeedStream

ANNOTATE_ROWS = 8192


def annotate(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    """Return the method's own columns for transitions `[S, B]`, without gradients."""
    with torch.no_grad():
        return agent.annotate(batch)


def own_columns(agent: Agent) -> tuple[str, ...]:
    """Return the names of the columns that a method computes itself."""
    spec = agent.spec
    layout = Layout(spec.obs_dim, spec.action_dim, agent.data_columns)
    rows = torch.zeros(len(spec.seeds), 1, layout.width, device=spec.device)
    source = torch.full(rows.shape[:2], ONLINE, device=spec.device)
    return tuple(annotate(agent, layout.batch(rows, source, 1.0)))


def make_stores(
    agent: Agent, plan: Plan, offline: Store | None, env_steps: int
) -> tuple[Store | None, Store]:
    """Return the offline store as the plan wants it in reach, and an empty online store.

    The online store has room for `env_steps` transitions a seed, or the plan's capacity.
    """
    spec = agent.spec
    seeds = len(spec.seeds)
    own = own_columns(agent)
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
        _annotate_store(offline, agent, own, plan.discount or agent.config.discount)
    if plan.offline_share < 1:
        offline.subset = _subset(offline.size, plan, spec.seeds, spec.device)
    if prioritised and offline.own is not None:
        priority = offline.own[..., own.index("priority")]
        if offline.subset is not None:
            priority = priority.gather(1, offline.subset)
        offline.priorities = SumTree(seeds, offline.reach, spec.device)
        offline.priorities.fill(priority.double())
    return offline, online


def stores_by_name(offline: Store | None, online: Store) -> dict[StoreName, Store]:
    """Return the stores that there are, as a replay takes them."""
    found: dict[StoreName, Store] = {} if offline is None else {"offline": offline}
    return found | {"online": online}


def odds_of(agent: Agent, plan: Plan) -> dict[str, Tensor]:
    """Return the buffers `[S]` of a method that the plan's draws name as odds."""
    names = [draw.odds for draw in plan.all_draws if draw.odds is not None]
    return {name: agent.get_buffer(name) for name in names}


def _annotate_store(offline: Store, agent: Agent, own: tuple[str, ...], discount: float) -> None:
    known = Layout(agent.spec.obs_dim, agent.spec.action_dim, agent.data_columns)
    parts = []
    for rows in offline.rows[0, : offline.size].split(ANNOTATE_ROWS):
        shared = rows.unsqueeze(0).expand(len(agent.spec.seeds), -1, -1)
        source = torch.full(shared.shape[:2], OFFLINE, device=shared.device)
        columns = annotate(agent, known.batch(shared, source, discount))
        parts.append(torch.stack([columns[name] for name in own], dim=-1))
    offline.own = torch.cat(parts, dim=1)


def _subset(size: int, plan: Plan, seeds: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the rows that stay in reach, `[S, K]`, drawn once for each seed."""
    keep = min(size, max(plan.offline_min_rows, round(plan.offline_share * size)))
    return SeedStream(seeds, "subset", device).permutation(size)[:, :keep].contiguous()

"""The stores of a phase, with the columns that the method computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import OFFLINE, ONLINE, Batch
from baq_cli.agents.plans import Plan, StoreName
from baq_cli.engine.experience.columns import DATA_COLUMNS, columns_of, data_layout
from baq_cli.engine.experience.store import PRIORITY, Layout, Store
from baq_cli.engine.experience.sumtree import SumTree
from baq_cli.errors import listed
from baq_cli.nets.streams import SeedStream

ANNOTATE_ROWS = 8192
Blocks = list[dict[str, Tensor] | None]


def annotate(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    """Return the method's own columns for transitions `[S, B]`, without gradients."""
    with torch.no_grad():
        return agent.annotate(batch)


def own_columns(agent: Agent) -> tuple[str, ...]:
    """Return the names of the columns that a method computes itself.

    Raises ValueError for a name that the data's columns have.
    """
    spec = agent.spec
    layout = Layout(spec.obs_dim, spec.action_dim, agent.data_columns)
    rows = torch.zeros(len(spec.seeds), 1, layout.width, device=spec.device)
    source = torch.full(rows.shape[:2], ONLINE, device=spec.device)
    own = tuple(annotate(agent, layout.batch(rows, source, 1.0)))
    if taken := [name for name in own if name in DATA_COLUMNS]:
        raise ValueError(f"'{agent.name}' computes columns that the data provide: {listed(taken)}")
    return own


def make_stores(
    agent: Agent,
    plan: Plan,
    offline: Store | None,
    env_steps: int,
    kept: Tensor | None = None,
) -> tuple[Store | None, Store]:
    """Return the offline store as the plan wants it in reach, and an empty online store.

    The online store has room for `env_steps` transitions a seed, or the plan's capacity. `kept`
    are the method's own columns of the offline rows, `[S, rows, K]`, as a checkpoint has them:
    the method may have learned since they were computed.
    """
    spec = agent.spec
    seeds = len(spec.seeds)
    own = own_columns(agent)
    layout = Layout(spec.obs_dim, spec.action_dim, (*columns_of(agent, plan), *own))
    capacity = min(plan.capacity, env_steps)
    online = Store.empty(layout, seeds, capacity, spec.device)
    prioritised = any(draw.prioritised for draw in plan.all_draws)
    if prioritised:
        online.priorities = SumTree(seeds, capacity, spec.device, agent.reprioritises)
        online.keeps_priorities = not agent.reprioritises
    if offline is None or not plan.uses_offline:
        return None, online
    offline = Store(layout, offline.rows, offline.size)
    if own:
        if kept is None:
            kept = _annotated(offline, agent, own, plan.discount or agent.config.discount)
        offline.own = kept
    if plan.offline_share < 1:
        offline.subset = _subset(offline.size, plan, spec.seeds, spec.device)
    if prioritised and offline.own is not None:
        priority = offline.own[..., own.index(PRIORITY)]
        if offline.subset is not None:
            priority = priority.gather(1, offline.subset)
        offline.priorities = SumTree(seeds, offline.reach, spec.device, agent.reprioritises)
        offline.priorities.fill(priority.double())
    return offline, online


@dataclass
class Stores:
    """The stores of a phase, and what a checkpoint keeps of them.

    The dataset's rows are read again at a resume; its `own` columns and all priorities that
    updates change are kept, because the method may have learned since.
    """

    offline: Store | None
    online: Store | None = None
    model: Store | None = None

    def by_name(self) -> dict[StoreName, Store]:
        """Return those that there are, as a replay takes them."""
        return stores_by_name(self.offline, self.online, self.model)

    def blocks(self) -> dict[StoreName, Blocks]:
        """Return what is kept in blocks; None for a block that is as it was at the last call."""
        return {
            "online": self.online.blocks() if self.online else [],
            "offline": self.offline.own_blocks() if self.offline else [],
            "model": self.model.blocks() if self.model else [],
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the priorities that blocks don't hold, `[S, rows]` by name."""
        return {
            f"priorities.{name}": store.priorities.priorities[:, : store.reach]
            for name, store in self.by_name().items()
            if store.priorities is not None and store.priorities.changes
        }

    def state(self) -> dict[str, int]:
        """Return how many rows the model's store was given, a seed."""
        return {} if self.model is None else {"model_written": self.model.written}

    def refill(
        self,
        blocks: Mapping[StoreName, Sequence[dict[str, Tensor]]],
        written: Mapping[StoreName, int],
        tensors: Mapping[str, Tensor],
    ) -> None:
        """Go on with what a checkpoint holds; the offline columns were given to `make_stores`."""
        for name, store in self.by_name().items():
            if name in written:
                store.refill_blocks(blocks.get(name, []), written[name])
            kept = tensors.get(f"priorities.{name}")
            if kept is not None and store.priorities is not None:
                store.priorities.fill(kept.to(store.rows.device))
        if self.offline is not None and blocks.get("offline"):
            self.offline.own_is_kept()


def stores_by_name(
    offline: Store | None, online: Store | None = None, model: Store | None = None
) -> dict[StoreName, Store]:
    """Return the stores that there are, as a replay takes them."""
    all_three: dict[StoreName, Store | None]
    all_three = {"offline": offline, "online": online, "model": model}
    return {name: store for name, store in all_three.items() if store is not None}


def odds_of(agent: Agent, plan: Plan) -> dict[str, Tensor]:
    """Return the buffers `[S]` of a method that the plan's draws name as odds."""
    names = [draw.odds for draw in plan.all_draws if draw.odds is not None]
    return {name: agent.get_buffer(name) for name in names}


def model_store(agent: Agent, plan: Plan, layout: Layout) -> Store | None:
    """Return the empty store of a method that generates transitions, laid out as the others."""
    if not plan.model_capacity:
        return None
    spec = agent.spec
    return Store.empty(layout, len(spec.seeds), plan.model_capacity, spec.device)


def _annotated(offline: Store, agent: Agent, own: tuple[str, ...], discount: float) -> Tensor:
    """Return the method's own columns of a dataset's rows, `[S, rows, K]`."""
    known = data_layout(offline.layout)
    parts = []
    for rows in offline.rows[0, : offline.size].split(ANNOTATE_ROWS):
        shared = rows.unsqueeze(0).expand(len(agent.spec.seeds), -1, -1)
        source = torch.full(shared.shape[:2], OFFLINE, device=shared.device)
        columns = annotate(agent, known.batch(shared, source, discount))
        parts.append(torch.stack([columns[name] for name in own], dim=-1))
    return torch.cat(parts, dim=1)


def _subset(size: int, plan: Plan, seeds: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the rows that stay in reach, `[S, K]`, drawn once for each seed."""
    keep = min(size, max(plan.offline_min_rows, round(plan.offline_share * size)))
    return SeedStream(seeds, "subset", device).permutation(size)[:, :keep].contiguous()

"""Updates on random transitions: what a method's update costs, without data or an environment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.plans import Plan, StoreName
from baq_cli.agents.registry import make_agent
from baq_cli.engine.experience.columns import DATA_COLUMNS, columns_of
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.store import Layout, Store
from baq_cli.engine.experience.stores import make_stores, odds_of, stores_by_name
from baq_cli.engine.experience.windows import Window
from baq_cli.engine.updates.cpu_record import RECORD_AFTER
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.updater import Updater
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe
from baq_cli.units import Phase


def synthetic_updater(
    recipe: Recipe,
    spec: Spec,
    phase: Phase = "offline",
    rows: int = 4096,
    record_after: int = RECORD_AFTER,
) -> Updater:
    """Return an updater of a fresh agent whose stores hold `rows` random transitions each.

    Batches are drawn by the method's own plan: online from both stores, and from a model's rows.
    """
    agent = make_agent(recipe.run.algo, recipe.method, spec, phase)
    learner = Learner(agent)
    plan = learner.plan
    layout = Layout(spec.obs_dim, spec.action_dim, columns_of(agent, plan))
    offline = Store(layout, random_rows(layout, (1, rows), spec.device), rows)
    stream = SeedStream(spec.seeds, f"batch/synthetic/{phase}", spec.device)
    stores: dict[StoreName, Store] = {"offline": offline}
    if phase == "online":
        stores = _online_stores(agent, plan, offline, rows)
    if plan.model_capacity:
        stores["model"] = _filled(next(iter(stores.values())).layout, spec, rows)
    of_batches = stream, recipe.method.batch_size, learner.discount, odds_of(agent, plan)
    replay = Replay(plan.draws, stores, *of_batches, Window.of(plan))
    return Updater(learner, replay, recipe.run.capture, record_after)


def operations_of(updater: Updater) -> float:
    """Count the operations of an update's matrix products, over a whole schedule of groups."""
    learner = updater.learner
    period = max(learner.agent.every.values(), default=1)
    eager = Updater(learner, updater.replay, capture=False)
    with _Products() as products:
        for _ in range(period):
            eager.step()
    return products.operations / period


class _Products(TorchDispatchMode):
    """Counts the operations of matrix products that are made inside its block.

    PyTorch's own counter (whose formulas these are) loads its compiler first, which takes longer
    than all else of a run's start.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or that is what loads the compiler

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        found = func(*args, **given)
        product = func._overloadpacket
        if product is torch.ops.aten.baddbmm_:
            self.operations += _in_place_product(args[1].shape, args[2].shape)
        elif product in flop_registry:
            self.operations += flop_registry[product](*args, **given, out_val=found)
        return found


def _in_place_product(a: torch.Size, b: torch.Size) -> int:
    """Count what PyTorch has no formula for: shapes `[P, m, k]` times `[P, k, n]`."""
    return 2 * a[0] * a[1] * a[2] * b[2]


def _online_stores(agent: Agent, plan: Plan, offline: Store, rows: int) -> dict[StoreName, Store]:
    seeds = len(agent.spec.seeds)
    reached, online = make_stores(agent, plan, offline, rows)
    online.refill(random_rows(online.layout, (seeds, online.capacity), offline.rows.device), rows)
    if online.priorities is not None:
        online.priorities.fill(online.rows[..., online.layout.slices["priority"].start].double())
    return stores_by_name(reached, online)


def _filled(layout: Layout, spec: Spec, rows: int) -> Store:
    """Return a store of `rows` random transitions of each seed."""
    return Store(layout, random_rows(layout, (len(spec.seeds), rows), spec.device), rows)


def random_rows(layout: Layout, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Return rows whose observations, actions and rewards are uniform in [−1, 1]."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(*shape, layout.width, generator=generator) * 2 - 1
    rows[..., layout.slices["bootstrap"]] = 1.0
    for name in layout.columns:
        column = rows[..., layout.slices[name]]
        column.abs_()
        known = DATA_COLUMNS.get(name)
        if known is not None and known.synthetic is not None:
            column.fill_(known.synthetic)
    return rows.to(device)

"""Parameter groups: which of them an update trains, and how each is moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Batch, Group, Losses
from baq_cli.agents.registry import METHODS
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.updater import Updater
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.closed import AgentConfig
from baq_cli.units import Phase
from support.builders import offline_replay, small_agent, tiny_batch, tiny_spec

SEEDS = (0, 1, 2)
UPDATES, MOST = 12, 2.0
SIZES = torch.tensor([0.02, 1.0, 5.0], dtype=torch.float64)
"""Of the seeds' losses: gradients of the first are never clipped, of the last always."""

# -- how a group is moved


def pull(w: Tensor, b: Tensor, obs: Tensor, size: Tensor) -> Tensor:
    """Return a loss of one seed: w `[3, 2]`, b `[4]`, obs `[B, 2]`."""
    return size * ((obs @ w.T - 1).square().sum(1).mean() + (b.cumsum(0) + 1).square().sum())


class Pulled(Agent):
    """Two parameters in one group, each seed with a loss of another size."""

    name = "pulled"
    group: Group

    def build(self, init: SeedStream) -> None:
        self.w = nn.Parameter(init.normal(3, 2).double())
        self.b = nn.Parameter(init.normal(4).double())

    def groups(self) -> dict[str, Group]:
        return {"both": replace(self.group, modules=(self.w, self.b))}

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        each = zip(self.w, self.b, batch.obs, SIZES, strict=True)
        return Losses(both=torch.stack([pull(*parts) for parts in each]))


def batches() -> list[Batch]:
    return [tiny_batch(len(SEEDS), 3 + step) for step in range(UPDATES)]


@pytest.mark.parametrize("clip", [None, MOST])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_a_group_is_moved_as_pytorchs_adamw_and_clipping_move_each_seed_alone(
    betas: tuple[float, float], weight_decay: float, clip: float | None
) -> None:
    group = Group((), 0.03, betas=betas, weight_decay=weight_decay, clip=clip)
    agent = type("Case", (Pulled,), {"group": group})(AgentConfig(), tiny_spec(SEEDS), "offline")
    start = {n: p.detach().clone() for n, p in agent.named_parameters()}
    learner = Learner(agent)
    for batch in batches():
        learner.update(batch)
    clipped = []
    for i in range(len(SEEDS)):
        w, b = (start[name][i].clone().requires_grad_() for name in ("w", "b"))
        optimizer = torch.optim.AdamW([w, b], 0.03, betas, weight_decay=weight_decay)
        for batch in batches():
            optimizer.zero_grad()
            pull(w, b, batch.obs[i], SIZES[i]).backward()
            norm = nn.utils.clip_grad_norm_([w, b], clip or float("inf"))
            clipped.append((i, float(norm) > MOST))
            optimizer.step()
        torch.testing.assert_close(agent.w[i], w, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(agent.b[i], b, rtol=1e-9, atol=1e-12)
    assert {(0, False), (2, True)} <= set(clipped), "the case should clip some and not others"


# -- how fast


PHASES = [
    (algo, phase)
    for algo, method in sorted(METHODS.items())
    for phase in ("offline", "online")
    if getattr(method, f"learns_{phase}")
]


def key_of_rate(group: str, keys: set[str], phase: str) -> str:
    """Return the key that says a group's learning rate: its own, or that of its kind."""
    if phase == "online" and "online_learning_rate" in keys:
        return "online_learning_rate"
    if (own := f"{group}_learning_rate") in keys:
        return own
    judges = group in ("critic", "value", "dual")
    return "learning_rate" if judges else "policy_learning_rate"


@pytest.mark.parametrize(("algo", "phase"), PHASES)
def test_each_rate_of_a_recipe_is_that_of_the_groups_it_is_for(algo: str, phase: Phase) -> None:
    config = METHODS[algo].Config
    keys = {k for k in config.model_fields if k.endswith("learning_rate")} - config.unused
    rates: dict[str, float | None] = {
        key: 0.01 * (number + 1) for number, key in enumerate(sorted(keys))
    }
    lagrange = {"cql_target_gap": 1.0} if algo in ("cql", "cal_ql") else {}
    groups = small_agent(algo, (0,), phase=phase, **rates, **lagrange).groups()
    assert ("dual" in groups) == bool(lagrange)
    for name, group in groups.items():
        assert group.learning_rate == rates[key_of_rate(name, keys, phase)], name
    if "temperature_learning_rate" in keys and "temperature" in groups:
        rates["temperature_learning_rate"] = None
        alike = small_agent(algo, (0,), phase=phase, **rates).groups()
        assert alike["temperature"].learning_rate == alike["policy"].learning_rate


@pytest.mark.parametrize("algo", [algo for algo, phase in PHASES if phase == "online"])
def test_an_online_phase_spends_steps_as_its_recipe_says(algo: str) -> None:
    said = {"utd": 3, "warmup_env_steps": 7, "capacity": 11}
    said = {key: value for key, value in said.items() if key not in METHODS[algo].Config.unused}
    plan = small_agent(algo, (0,), phase="online", **said).online_plan()
    assert {key: getattr(plan, key) for key in said} == said


# -- updates that are refused


class Refusing(Pulled):
    """`Pulled`, but a seed's update is made only where the batch's first reward asks for it."""

    group = Group((), 0.03)

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.register_buffer("asked", torch.zeros(len(SEEDS), 1).double())

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        term = super().loss(batch, noise, active).terms["both"]
        wanted = batch.reward[:, 0] > 0
        asked = self.get_buffer("asked") + batch.reward[:, :1]
        loss = term * torch.where(wanted, 1.0, float("inf"))
        return Losses(both=loss).updating({"both": wanted}, {"asked": asked})


def test_a_refused_update_leaves_a_seeds_parameters_and_moments_whatever_its_loss() -> None:
    agent = Refusing(AgentConfig(), tiny_spec(SEEDS), "offline")
    plain = Pulled(AgentConfig(), tiny_spec(SEEDS), "offline")
    plain.group = Refusing.group
    learner, other = Learner(agent), Learner(plain)
    asks = torch.tensor([[1.0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 1]]).double()
    for number, asked in enumerate(asks):
        batch = tiny_batch(len(SEEDS), 3)
        batch = replace(batch, reward=asked.unsqueeze(1).expand(-1, 3))
        before = {n: p.detach().clone() for n, p in agent.named_parameters()}
        moments = {n: t.clone() for n, t in learner.optimizer_state().items()}
        learner.update(batch)
        other.update(batch)
        for name, p in agent.named_parameters():
            for i, moves in enumerate(asked):
                assert torch.equal(p[i], before[name][i]) == (moves == 0), (number, name, i)
        if number == 2:  # of two seeds of three nothing is written
            changed = {n: (t != moments[n]).sum() for n, t in learner.optimizer_state().items()}
            assert changed["optimizer.both.exp_avg"] == 3 * 2 + 4
    for name, p in agent.named_parameters():  # a seed that is never refused knows of none of it
        assert torch.equal(p[2], dict(plain.named_parameters())[name][2])
    assert agent.get_buffer("asked").squeeze(1).tolist() == asks.sum(0).tolist()


# -- which groups an update trains


def parameters_of(group: Group) -> list[Tensor]:
    return [
        p for m in group.modules for p in ([m] if isinstance(m, nn.Parameter) else m.parameters())
    ]


def groups_of(learner: Learner) -> dict[str, dict[str, Tensor]]:
    """Return the parameters and moments of each group."""
    moments = learner.optimizer_state()
    return {
        name: {"values": torch.cat([p.detach().flatten() for p in parameters_of(group)])}
        | {k: t.clone() for k, t in moments.items() if k.startswith(f"optimizer.{name}.")}
        for name, group in learner.agent.groups().items()
    }


TRAINS = [
    (algo, name, 1_000)
    for algo in sorted(METHODS)
    for name in small_agent(algo, (0,)).groups()
    if METHODS[algo].learns_offline
]
RECORDED = [("iql", "value", 1), ("td3_bc", "policy", 1)]


@pytest.mark.parametrize(("algo", "trained", "record_after"), TRAINS + RECORDED)
def test_a_plan_that_trains_a_group_leaves_the_others_as_they_were(
    algo: str, trained: str, record_after: int
) -> None:
    agent = small_agent(algo, (0, 1))
    learner = Learner(agent)
    learner.plan = replace(learner.plan, train=frozenset({trained}))
    before = groups_of(learner)
    updater = Updater(learner, offline_replay(agent), record_after=record_after)
    for _ in range(max([4, *agent.every.values()])):
        updater.step()
    for name, found in groups_of(learner).items():
        for key, tensor in found.items():
            assert torch.equal(tensor, before[name][key]) == (name != trained), (name, key)
    assert bool(updater.records) == (record_after == 1)


def test_a_plan_trains_every_group_unless_it_names_some() -> None:
    agent: Any = small_agent("iql", (0, 1))
    learner = Learner(agent)
    assert learner.active() == {"critic", "policy", "value"}
    learner.plan = replace(learner.plan, train=frozenset({"critic", "value"}))
    assert learner.active() == {"critic", "value"}
    agent.every = {"critic": 2}
    assert learner.active() == {"value"}
    learner.count()
    assert learner.active() == {"critic", "value"}

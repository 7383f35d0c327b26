"""A method that adapts another: what it doesn't say itself is its base's, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from baq_cli.agents.base import Agent, per_seed
from baq_cli.agents.interface import Batch, Experience, Losses
from baq_cli.agents.parts.sections import OnBase
from baq_cli.agents.parts.wrapper import Wrapper
from baq_cli.agents.plans import Draw, Plan, StoreName
from baq_cli.agents.registry import METHODS
from baq_cli.nets.streams import SeedStream
from baq_cli.runs.folder import read_metrics
from support.builders import tiny_agent
from support.recordings import ID, own_folders
from support.runs import execute, last_tensors, recipe_of
from support.small_data import write_steady
from support.staged_method import Staged


class Busy(Staged):
    """A base that uses all that a method can: stages, odds, chunks, a clock and more."""

    name = "busy"

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.reads_clock, self.data_columns = frozenset({"share"}), ("mc_return",)
        self.odds: Tensor
        self.begun: Tensor
        self.moved: Tensor
        self.register_buffer("odds", per_seed(0.25, self.spec))
        self.register_buffer("begun", per_seed(0.0, self.spec))
        self.register_buffer("moved", per_seed(0.0, self.spec))
        if self.phase == "online":
            self.chunk = 2

    def plan(self, stores: tuple[StoreName, ...], warmup: int = 0) -> Plan:
        plan = super().plan(stores, warmup)
        mixed = Draw(("offline", "model"), 0.5, odds="odds")
        by_priority = replace(plan.draws[0], prioritised=self.phase == "online")
        return replace(plan, draws=(by_priority, mixed), next_action=True)

    def loss(self, batch: Batch, noise: SeedStream, active: frozenset[str]) -> Losses:
        losses = super().loss(batch, noise, active)
        if "critic" in losses.terms:
            assert batch.has_next is not None
            losses.terms["critic"] = losses.terms["critic"] * (1 + batch.has_next.mean(1))
            losses.metrics["share"] = self.clock.share.expand_as(self.odds)
            every_other = torch.arange(len(self.odds)) % 2 == 0
            losses.updating({"critic": every_other}, {"moved": self.moved + 1})
        return losses

    def begin_stage(self, stage: str, data: Experience) -> None:
        self.begun += data.size("offline")

    def finish_offline(self, data: Experience) -> None:
        self.odds.fill_(0.75)

    def hand_over(self, data: Experience) -> frozenset[str]:
        self.odds += 0.1
        return super().hand_over(data) | {"critic"}

    def annotate(self, batch: Batch) -> dict[str, Tensor]:
        return {"priority": batch.reward.abs() + 0.1}

    def reprioritise(self, batch: Batch) -> Tensor:
        return 0.5 * batch.reward.abs() + 0.1

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        self.begun += finished * lengths
        return {"priority": 1.0 + lengths}

    def explore(self, obs: Tensor, noise: SeedStream) -> Tensor:
        return self.ahead(super().explore(obs, noise))

    def act(self, obs: Tensor, noise: SeedStream) -> Tensor:
        shape = obs.shape[1], self.spec.action_dim
        return self.ahead((self.policy.mode(obs) + 0.2 * noise.normal(*shape)).clamp(-1, 1))

    def ahead(self, action: Tensor) -> Tensor:
        return torch.cat([action, -action], -1) if self.chunk > 1 else action

    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        return {"odds": self.odds}


class BareConfig(OnBase):
    bases: ClassVar[tuple[str, ...]] = ("busy",)
    base: Literal["busy"] = "busy"
    busy: Staged.Config = Staged.Config()


class Bare(Wrapper):
    """A wrapper that says nothing."""

    name = "bare"
    BASES: ClassVar = {"busy": Busy}
    Config = BareConfig


@pytest.fixture(autouse=True)
def methods() -> Iterator[None]:
    with own_folders(), pytest.MonkeyPatch.context() as patch:
        for probe in (Busy, Bare):
            patch.setitem(METHODS, probe.name, probe)
        write_steady(ID)
        yield


def test_every_question_that_the_engine_asks_a_method_is_passed_on() -> None:
    hooks = [n for n, v in vars(Agent).items() if isinstance(v, FunctionType | property)]
    assert {name for name in hooks if name[0] != "_"} <= vars(Wrapper).keys()


def both_phases(algo: str, folder: Path) -> list[Path]:
    watched = {"episodes": 2, "background": False}
    watched |= {"every_gradient_steps": 5, "every_env_steps": 5}
    settings = {"hidden": [8, 8], "normalize_observations": True, "warmup_env_steps": 3}
    run = {"dataset": ID, "env": "Steady-v0", "gradient_steps": 12, "env_steps": 12}
    recipe = recipe_of(algo, settings, **run, evaluation=watched)
    runs = [folder / f"{algo}-offline", folder / f"{algo}-online"]
    execute(recipe, runs[0])
    execute(recipe, runs[1], source=runs[0])
    return runs


def test_a_wrapper_that_says_nothing_is_its_base_to_the_bit(tmp_path: Path) -> None:
    """Through the whole engine: stages, routines, draws, acting, evaluations and the hand-over."""
    runs = both_phases("busy", tmp_path), both_phases("bare", tmp_path)
    for alone, wrapped in zip(*runs, strict=True):
        ours, theirs = last_tensors(wrapped), last_tensors(alone)
        assert any("odds" in name for name in theirs)
        assert {n.replace("agent/base.", "agent/") for n in ours} == theirs.keys()
        for name, value in ours.items():
            assert torch.equal(value, theirs[name.replace("agent/base.", "agent/")]), name
        assert known(wrapped) == known(alone)


def known(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "wall_seconds"} for row in read_metrics(run)]


def test_the_clock_of_a_base_is_that_of_its_wrapper() -> None:
    agent = tiny_agent("bare")
    agent.clock.write(3, 4, 0.5)
    assert float(agent.base.clock.share) == 0.5

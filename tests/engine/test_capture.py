"""An update captured as a CUDA graph, or recorded on a CPU, is the update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.bench.updates import Case as Measured
from baq_cli.bench.updates import Sizes, spec_of
from baq_cli.engine.experience.store import Store
from baq_cli.engine.experience.stores import stores_by_name
from baq_cli.engine.updates.card_graph import EAGER_FIRST
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.synthetic import synthetic_updater
from baq_cli.engine.updates.updater import Updater
from baq_cli.recipes.load import resolve
from baq_cli.units import Phase
from support.builders import (
    add_online,
    dataset_store,
    offline_replay,
    reader_of,
    replay_of,
    small_agent,
    stores_in_reach,
)

SEEDS = (0, 1)
UPDATES = 32
RECORD_AFTER = 5
CAPACITY = 24
"""Of the online store: it grows, fills up and is written over within a run of updates."""

Case = tuple[str, Phase, dict[str, Any]]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("cql", {"gradient": "sampled", "gradient_actions": 2}),
    ("cal_ql", {"gradient": "sampled"}),
    ("cql", {"max_target_backup": True}),
    ("famo2o", {"base": "cql"}),
    ("famo2o", {"base": "awac"}),
    ("baq", {"base": "iql", "online_share": None}),
    ("baq", {"base": "cql", "priority": "falling"}),
    ("baq", {"confidence": "calibration", "bound": 0.001}),
    ("baq", {"confidence": "dual", "base": "sac_n"}),
    ("sung", {"base": "cql"}),
    ("td3_bc", {"layer_norm": True, "target_reduction": "weighted_min_pair", "critics": 3}),
    ("td3_bc", {"targets_move": "every_step", "actor_q": "min", "policy_every": 3}),
    ("awac", {"mean": "tanh", "initialization": "orthogonal"}),
    ("cql", {"cql_target_gap": 0.8, "cql_min_gap": -1.0}),
    ("sdm_gan", {"first_loss_limit": 0.5, "loss_limit_every": 3}),  # refuses some updates
]
ONLINE_ALONE = {"confidence", "bound"}
"""Keys that change nothing offline."""


def cases(marks: Any = ()) -> list[Any]:
    """Return every method, and some variants, in each of its phases, as parameters with names."""
    found = []
    for algo, settings in [*((algo, {}) for algo in METHODS), *VARIANTS]:
        method = METHODS[algo]
        has: dict[Phase, bool] = {
            "offline": method.learns_offline,
            "online": method.learns_online,
        }
        words = [f"{key}={value}" for key, value in settings.items()]
        has["offline"] &= not ONLINE_ALONE & settings.keys()
        for phase in (phase for phase, there in has.items() if there):
            name = "-".join([algo, phase, *words])
            found.append(pytest.param((algo, phase, settings), id=name, marks=marks))
    return found


class Training:
    """Updates of one case: with an online store that grows between them in an online phase."""

    def __init__(self, case: Case, device: str):
        algo, phase, settings = case
        self.agent = small_agent(algo, SEEDS, device, phase, **settings)
        self.learner = Learner(self.agent)
        self.learner.cosine_steps = UPDATES  # IQL's rate is another at every update
        self.online: Store | None = None
        if phase == "offline":
            self.replay = offline_replay(self.agent)
            return
        plan, dataset = self.learner.plan, dataset_store(self.agent)
        self.agent.hand_over(reader_of(self.agent, dataset))
        offline, self.online = stores_in_reach(self.agent, plan, dataset, CAPACITY)
        self.replay = replay_of(self.agent, plan, stores_by_name(offline, self.online))

    def before_update(self, step: int) -> None:
        if self.online is not None:
            add_online(self.agent, self.online, step)

    def by_updater(self, updates: int, capture: bool) -> Updater:
        updater = Updater(self.learner, self.replay, capture, RECORD_AFTER)
        for step in range(updates):
            self.before_update(step)
            self.last = updater.step()
        return updater

    def by_hand(self, updates: int) -> None:
        for step in range(updates):
            self.before_update(step)
            self.last = self.replay.batch()
            self.learner.update(self.last)
            if self.agent.reprioritises:
                self.replay.set_priorities(self.learner.reprioritised(self.last))

    last: Batch


def assert_same(one: Training, other: Training, **within: float) -> None:
    """Check what was drawn exactly; parameters, moments and metrics within a tolerance."""
    assert one.learner.gradient_steps == other.learner.gradient_steps
    assert torch.equal(one.learner.noise.state(), other.learner.noise.state())
    assert torch.equal(one.replay.stream.state(), other.replay.stream.state())
    drawn, others = one.last.tensors(), other.last.tensors()
    assert drawn.keys() == others.keys()
    for name, values in drawn.items():
        assert torch.equal(values, others[name]), name
    assert one.last.parts == other.last.parts
    tensors = [
        training.agent.state_dict() | training.learner.state() | training.learner.metrics
        for training in (one, other)
    ]
    assert tensors[0].keys() == tensors[1].keys()
    for name, value in tensors[0].items():
        np.testing.assert_allclose(
            value.cpu(), tensors[1][name].cpu(), **within, equal_nan=True, err_msg=name
        )


@pytest.mark.parametrize("case", cases(pytest.mark.cuda))
def test_a_captured_update_is_the_eager_one(case: Case) -> None:
    captured, eager = Training(case, "cuda"), Training(case, "cuda")
    period = max(captured.agent.every.values(), default=1)
    updates = max(UPDATES, EAGER_FIRST * (1 + period) + 2 * period)  # each set of groups captured
    updater = captured.by_updater(updates, capture=True)
    assert updater.graphs, "the test is of captured updates"
    assert not eager.by_updater(updates, capture=False).graphs
    assert_same(captured, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "case", [pytest.param(("td3_bc", "offline", {}), id="td3_bc", marks=pytest.mark.cuda)]
)
def test_each_set_of_groups_has_a_graph_of_its_own(case: Case) -> None:
    updater = Training(case, "cuda").by_updater(4 * EAGER_FIRST, capture=True)
    both = frozenset({"critic", "policy"})
    assert set(updater.graphs) == {both, both - {"policy"}}


@pytest.mark.parametrize("case", cases())
def test_a_recorded_update_is_the_eager_one_in_every_bit(case: Case) -> None:
    recorded, eager, by_hand = (Training(case, "cpu") for _ in range(3))
    updater = recorded.by_updater(UPDATES, capture=True)
    assert updater.records, "the test is of recorded updates"
    assert not eager.by_updater(UPDATES, capture=False).records
    by_hand.by_hand(UPDATES)
    assert_same(recorded, eager, rtol=0, atol=0)
    assert_same(eager, by_hand, rtol=0, atol=0)


@pytest.mark.parametrize("algo", ["baq", "cql", "iql", "td3_bc"])
def test_so_it_is_at_the_sizes_that_people_train(algo: str) -> None:
    """Large batches go through a network in blocks, narrow layers transposed."""
    sizes, cpu = Sizes(rows=2_000), torch.device("cpu")
    spec = spec_of(Measured(algo, 2), sizes, cpu)
    found = []
    for capture in (True, False):
        recipe = resolve([{"algo": algo, "capture": capture}], method_configs())
        updater = synthetic_updater(recipe, spec, "offline", sizes.rows, record_after=1)
        for _ in range(4):
            updater.step()
        assert bool(updater.records) == capture
        found.append(updater.learner.agent.state_dict() | updater.learner.state())
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_each_set_of_groups_has_a_record_of_its_own() -> None:
    updater = Training(("td3_bc", "offline", {}), "cpu").by_updater(12, capture=True)
    both = frozenset({"critic", "policy"})
    assert set(updater.records) == {both, both - {"policy"}}


def test_a_record_reads_what_changes_between_updates() -> None:
    """A rollback writes parameters and momentum; the tensors they are in stay."""
    case: Case = ("iql", "offline", {})
    recorded, eager = Training(case, "cpu"), Training(case, "cpu")
    for training, capture in ((recorded, True), (eager, False)):
        before = {name: t.clone() for name, t in training.agent.state_dict().items()}
        updater = training.by_updater(UPDATES, capture)
        training.agent.load_state_dict(before)
        training.learner.forget_momentum(0)
        training.learner.scale_updates(np.array([0.5, 1.0]))
        for _ in range(3):
            training.last = updater.step()
    assert_same(recorded, eager, rtol=0, atol=0)


def test_an_updater_records_after_so_many_updates_and_not_before() -> None:
    training = Training(("bc", "offline", {}), "cpu")
    updater = Updater(training.learner, training.replay, record_after=3)
    had = []
    for _ in range(5):
        updater.step()
        had.append(bool(updater.records))
    assert had == [False, False, False, True, True]


@pytest.mark.parametrize(
    "read", [lambda numbers: numbers.sum().item(), lambda numbers: bool(numbers.sum() > 0)]
)
def test_an_update_that_reads_a_number_is_not_recorded_as_if_that_stayed(
    read: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = METHODS["bc"].loss

    def reading(*args: Any) -> Any:
        losses = loss(*args)
        read(losses.terms["policy"])
        return losses

    monkeypatch.setattr(METHODS["bc"], "loss", reading)
    training = Training(("bc", "offline", {}), "cpu")
    with pytest.raises(RuntimeError, match="must not read numbers"):
        training.by_updater(UPDATES, capture=True)


def test_a_tensor_made_of_numbers_within_an_update_is_made_anew_by_its_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = METHODS["bc"].loss

    def scaled(*args: Any) -> Any:
        losses = loss(*args)
        factor = torch.tensor([1.0, 2.0])
        losses.terms["policy"] = losses.terms["policy"] * factor.mul_(2.0)  # grows if it is kept
        return losses

    monkeypatch.setattr(METHODS["bc"], "loss", scaled)
    recorded, eager = (Training(("bc", "offline", {}), "cpu") for _ in range(2))
    assert recorded.by_updater(UPDATES, capture=True).records
    eager.by_updater(UPDATES, capture=False)
    assert_same(recorded, eager, rtol=0, atol=0)

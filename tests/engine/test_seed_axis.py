"""Laws 1 and 2: seeds train as one program, and each trains as it would alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baq_cli.agents.interface import PLAIN_FIELDS, Batch
from baq_cli.agents.registry import METHODS
from baq_cli.engine.updates.learner import Learner
from baq_cli.nets.streams import SeedStream
from support.builders import (
    FORM,
    LOSSES,
    KnownNoise,
    batch_for,
    finetune,
    numbers,
    pretrain,
    small_agent,
    tensor,
    tiny_agent,
    trained_together,
)

SEEDS = (0, 1, 2)
UPDATES = 25
OFFLINE = sorted(name for name, method in METHODS.items() if method.learns_offline)
ONLINE = sorted(name for name, method in METHODS.items() if method.learns_online)


def gradients(agent: Any, loss: str, batch: Batch) -> dict[str, Tensor]:
    agent = copy.deepcopy(agent)
    named = {n: p for n, p in agent.named_parameters() if p.requires_grad}
    found = {n: torch.zeros_like(p) for n, p in named.items()}
    for active in trained_together(agent):
        losses = getattr(agent, loss)(batch, KnownNoise(), active)
        for name, slope in zip(named, losses.gradients(list(named.values())), strict=True):
            found[name] += slope
    return found


@pytest.mark.parametrize(("algo", "loss"), LOSSES)
def test_no_seeds_gradient_sees_another_seeds_batch(algo: str, loss: str) -> None:
    agent = tiny_agent(algo, phase=FORM[loss], critics=3)
    batch = batch_for(agent)
    other = {
        name: torch.stack([value[0], tensor(numbers(*value.shape[1:], phase=5.0, size=0.8))])
        for name, value in batch.tensors().items()
        if name[0] != "."
    }
    moved = {n: torch.stack([c[0], c[1].flip(0)]) for n, c in batch.columns.items()}
    before = gradients(agent, loss, batch)
    after = gradients(agent, loss, replace(batch, **other, columns=moved))
    for name in before:
        np.testing.assert_allclose(after[name][0], before[name][0], rtol=0, atol=1e-12)
    assert any(not torch.equal(after[name][1], before[name][1]) for name in before)


@pytest.mark.parametrize(("algo", "loss"), LOSSES)
def test_no_seeds_gradient_sees_another_seeds_parameters(algo: str, loss: str) -> None:
    agent: Any = tiny_agent(algo, phase=FORM[loss], critics=3)
    batch = batch_for(agent)
    before = gradients(agent, loss, batch)
    with torch.no_grad():
        for tensor_ in (*agent.parameters(), *agent.buffers()):
            tensor_[1] = 0.3 * tensor_[1] + 0.1
    after = gradients(agent, loss, batch)
    for name in before:
        np.testing.assert_allclose(after[name][0], before[name][0], rtol=0, atol=1e-12)


def test_streams_give_a_seed_the_same_numbers_alone_and_among_others() -> None:
    together = SeedStream((5, 3, 8), "noise")
    alone = SeedStream((3,), "noise")
    for draw in ("normal", "uniform", "index"):
        for shape in ((1,), (17,), (40, 3)):
            assert torch.equal(getattr(together, draw)(*shape)[1], getattr(alone, draw)(*shape)[0])
    assert torch.equal(together.permutation(50)[1], alone.permutation(50)[0])
    assert torch.equal(together.state()[1], alone.state()[0])


def test_streams_of_other_names_and_seeds_are_others() -> None:
    draws = [SeedStream((s,), n).normal(100) for s in (0, 1) for n in ("noise", "batch")]
    correlation = np.corrcoef(torch.cat(draws).numpy())
    assert np.abs(correlation - np.eye(4)).max() < 0.4


def test_a_stream_continues_from_its_saved_state() -> None:
    stream = SeedStream(SEEDS, "noise")
    stream.normal(7)
    state = stream.state()
    expected = stream.normal(20)
    fresh = SeedStream(SEEDS, "noise")
    fresh.restore(state)
    assert torch.equal(fresh.normal(20), expected)


def assert_same_run(
    together: tuple[Learner, list[Batch]], alone: tuple[Learner, list[Batch]], i: int
) -> None:
    """Check batches and noise exactly, parameters and buffers within rounding."""
    (group, group_batches), (single, single_batches) = together, alone
    for one, other in zip(group_batches, single_batches, strict=True):
        for name in PLAIN_FIELDS:
            assert torch.equal(getattr(one, name)[i], getattr(other, name)[0]), name
    assert torch.equal(group.noise.state()[i], single.noise.state()[0])
    ours, own = group.agent.state_dict(), single.agent.state_dict()
    for name, value in own.items():
        np.testing.assert_allclose(
            ours[name][i], value[0], rtol=1e-5, atol=1e-5, equal_nan=True, err_msg=name
        )


def assert_same_start(algo: str) -> None:
    together = small_agent(algo, SEEDS).state_dict()
    for i, seed in enumerate(SEEDS):
        for name, value in small_agent(algo, (seed,)).state_dict().items():
            assert np.array_equal(together[name][i], value[0], equal_nan=True), name
    weights = next(w for name, w in together.items() if name.removeprefix("base.") == POLICY)
    assert not torch.equal(weights[0], weights[1])


POLICY = "policy.net.layers.0.weight"


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((algo, {}) for algo in OFFLINE),
    ("awac", {"mean": "tanh", "initialization": "orthogonal", "last_layer_gain": 0.01}),
    ("td3_bc", {"targets_move": "every_step", "actor_q": "min", "initialization": "normal"}),
    ("cql", {"cql_target_gap": 0.8, "policy_hidden": (8,)}),
]


@pytest.mark.parametrize("algo", METHODS)
def test_a_seed_starts_from_the_same_weights_alone_and_among_others(algo: str) -> None:
    assert_same_start(algo)


@pytest.mark.parametrize(("algo", "settings"), VARIANTS)
def test_a_seed_pretrains_the_same_alone_and_among_others(
    algo: str, settings: dict[str, Any]
) -> None:
    together = pretrain(small_agent(algo, SEEDS, **settings), UPDATES)
    for i, seed in enumerate(SEEDS):
        alone = pretrain(small_agent(algo, (seed,), **settings), UPDATES)
        assert_same_run(together, alone, i)


@pytest.mark.parametrize("algo", ONLINE)
def test_a_seed_fine_tunes_the_same_alone_and_among_others(algo: str) -> None:
    together = finetune(small_agent(algo, SEEDS), None, UPDATES)
    for i, seed in enumerate(SEEDS):
        alone = finetune(small_agent(algo, (seed,)), None, UPDATES)
        assert_same_run(together, alone, i)

"""QC-FQL: FQL's losses on chunks that are cut from the real stores, against walks made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.plans import UNION
from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.engine.experience.store import END, Layout, Store
from baq_cli.engine.experience.windows import Window
from baq_cli.recipes.load import resolve
from support.builders import (
    ALL_GROUPS,
    GAMMA,
    Array,
    KnownNoise,
    forward,
    numbers,
    q_values,
    small_agent,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_spec,
)

H = 3
WIDTH = 2 * H


def expected_terms(agent: Any, c: SimpleNamespace, noise: KnownNoise) -> dict[str, Array]:
    """Return the losses of chunks `c` by the paper's equations."""
    next_z, start, z = noise.normals
    policy, alpha = agent.policy.net, agent.config.alpha
    next_chunk = np.clip(forward(policy, np.concatenate([c.next_obs, next_z], -1))[:, 0], -1, 1)
    next_value = q_values(agent.critic_target, c.next_obs, next_chunk).mean(1)
    y = c.reward + GAMMA**H * c.alive * next_value
    errors = (q_values(agent.critic, c.obs, c.chunk) - y[:, None]) ** 2

    time = noise.uniforms[0]
    at = np.concatenate([c.obs, (1 - time) * start + time * c.chunk, time], -1)
    missed = (forward(agent.flow.net, at)[:, 0] - (c.chunk - start)) ** 2
    by_step = missed.reshape(*missed.shape[:2], H, 2).mean(-1)

    x = z
    for step in range(2):
        now = np.full_like(x[..., :1], step / 2)
        x = x + forward(agent.flow.net, np.concatenate([c.obs, x, now], -1))[:, 0] / 2
    chunk = forward(policy, np.concatenate([c.obs, z], -1))[:, 0]
    distance = ((chunk - np.clip(x, -1, 1)) ** 2).mean(-1)
    value = q_values(agent.critic, c.obs, np.clip(chunk, -1, 1)).mean(1)
    return {
        "critic": (c.valid[:, None, :, -1] * errors).mean((1, 2)),
        "flow": (c.valid * by_step).mean((1, 2)),
        "policy": (alpha * distance - value).mean(1),
    }


LAYOUT = Layout(2, 2, (END,))
KINDS = "....T..C....."
WHOLE = "xxx--x--xxx--"
"""Rows of an episode that terminates, of one that is cut, and of one that goes on; which of them
begin a chunk that is whole."""


def log_of(seed: int) -> SimpleNamespace:
    """Return the transitions of a seed in the order of time."""
    rows, phase = len(KINDS), 10.0 * seed
    return SimpleNamespace(
        obs=numbers(rows, 2, phase=phase),
        action=numbers(rows, 2, phase=phase + 1, size=0.9),
        next_obs=numbers(rows, 2, phase=phase + 2),
        reward=numbers(rows, phase=phase + 3, size=2.0),
        bootstrap=np.array([kind != "T" for kind in KINDS]),
        end=np.array([kind in "TC" for kind in KINDS]),
    )


def chunks_of(log: SimpleNamespace, starts: list[int]) -> list[dict[str, Any]]:
    """Return the chunk that begins at each row, by walking on; what is missing is padded."""
    found = []
    for start in starts:
        steps = [start]
        while len(steps) < H and not log.end[steps[-1]] and steps[-1] + 1 < len(KINDS):
            steps.append(steps[-1] + 1)
        padded = steps + [steps[-1]] * (H - len(steps))
        chunk = {"obs": log.obs[start], "chunk": log.action[padded].flatten()}
        chunk["reward"] = sum(GAMMA**k * log.reward[row] for k, row in enumerate(steps))
        chunk["alive"] = float(all(log.bootstrap[steps]))
        chunk["next_obs"] = log.next_obs[steps[-1]]
        chunk["valid"] = np.arange(H) < len(steps)
        found.append(chunk)
    return found


def stored(logs: list[SimpleNamespace], capacity: int) -> Store:
    """Return a ring in which logs were written row by row, one a seed; ends are filled in."""
    store = Store.empty(LAYOUT, len(logs), capacity, torch.device("cpu"))
    store.rows = store.rows.double()
    for row in range(len(KINDS)):
        fields = {
            name: tensor([getattr(log, name)[row] for log in logs])
            for name in ("obs", "action", "next_obs", "reward", "bootstrap")
        }
        packed = LAYOUT.pack(fields | {END: torch.zeros(len(logs))})
        slot = store.append(packed)
        for seed, log in enumerate(logs):
            if log.end[row]:
                store.overwrite(seed, torch.tensor([slot]), END, torch.ones(1))
    return store


@pytest.mark.parametrize("capacity", [len(KINDS), 9])
def test_losses_of_chunks_from_the_store_are_those_of_a_walk(capacity: int) -> None:
    """All rows of a ring that has room left, and of one that has been written over in part."""
    settings = {"chunk": H, "flow_steps": 2, "alpha": 3.0, "discount": GAMMA}
    agent, logs = tiny_agent("qc_fql", tiny_spec(), **settings), [log_of(0), log_of(1)]
    plan = agent.online_plan()
    assert plan.window == agent.offline_plan().window == agent.chunk == H
    kept = range(len(KINDS) - capacity, len(KINDS))
    index, window = torch.tensor([[row % capacity for row in kept]] * 2), Window.of(plan)
    rows = window.gather(stored(logs, capacity), index).double()
    batch = window.batch(LAYOUT, rows, torch.ones(2, capacity).double(), GAMMA, {})

    by_seed = [chunks_of(log, list(kept)) for log in logs]
    walked = SimpleNamespace()
    for name in by_seed[0][0]:
        values = np.array([[chunk[name] for chunk in chunks] for chunks in by_seed], float)
        setattr(walked, name, values)
    whole = [mark == "x" for mark in WHOLE[kept.start :]]
    assert walked.valid.all(-1).tolist() == [whole, whole]
    noise = KnownNoise()
    found = terms(agent.loss(batch, noise, ALL_GROUPS))
    for name, expected in expected_terms(agent, walked, noise).items():
        assert_allclose(found[name], expected, rtol=2e-6, err_msg=name)


def test_an_online_store_has_room_for_a_chunk_or_is_refused() -> None:
    """With room for one, its critics learn of the online rows: the oldest begins a whole chunk."""
    with pytest.raises(ValueError, match=r"capacity 2 is below chunk 3: .* capacity >= chunk"):
        tiny_agent("qc_fql", tiny_spec(), chunk=H, capacity=H - 1)
    window = Window.of(tiny_agent("qc_fql", chunk=H, capacity=H).online_plan())
    store, whole = stored([log_of(0)], H), torch.arange(H).unsqueeze(0)
    rows = window.gather(store, whole)
    batch = window.batch(LAYOUT, rows, torch.ones(1, H).double(), GAMMA, {})
    assert batch.weight.sum() == 1


def test_chunks_of_one_action_are_fql() -> None:
    one, plain = (tiny_agent(algo, **how) for algo, how in (("qc_fql", {"chunk": 1}), ("fql", {})))
    plain.config = plain.config.model_copy(update={"alpha": one.config.alpha})
    assert one.chunk == plain.chunk == 1
    found, expected = (
        terms(each.loss(tiny_batch(), KnownNoise(), ALL_GROUPS)) for each in (one, plain)
    )
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name


def test_it_acts_and_explores_by_chunks_that_are_fresh_samples() -> None:
    agent: Any = small_agent("qc_fql", (0, 1), chunk=4)
    obs = torch.randn(2, 7, 3)
    noise: Any = KnownNoise()
    for decide in (agent.act, agent.explore):
        found = decide(obs, SimpleNamespace(normal=lambda *shape: noise.normal(*shape).float()))
        z = torch.from_numpy(noise.normals[-1]).float()
        assert found.shape == (2, 7, 8)
        assert torch.equal(found, agent.policy.from_noise(obs, z).clamp(-1, 1))
    assert not np.array_equal(*noise.normals)


def test_it_begins_to_learn_online_after_some_steps_from_the_union() -> None:
    config: Any = resolve([{"algo": "qc_fql"}], method_configs()).method
    plan = METHODS["qc_fql"](config, tiny_spec(), "online").online_plan()
    assert (plan.draws, plan.warmup_env_steps, plan.window) == ((UNION,), 5_000, 5)

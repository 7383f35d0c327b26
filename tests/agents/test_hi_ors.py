"""Hi-ORS: its loss, what it accepts over a history of returns, and a threshold that only rises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from baq_cli.agents.plans import Draw
from baq_cli.cli.finetune import inherited
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.experience.columns import columns_of
from baq_cli.engine.experience.inputs import Inputs, offline_store
from baq_cli.engine.experience.stores import make_stores
from support.builders import (
    ALL_GROUPS,
    EXACT,
    Array,
    KnownNoise,
    arrays,
    dataset_store,
    every_column,
    forward,
    gaussian_log_prob,
    make_episodes,
    reader_of,
    small_agent,
    tensor,
    terms,
    tiny_agent,
    tiny_batch,
    tiny_spec,
)
from support.recordings import ID, own_folders
from support.runs import execute, last_tensors, recipe_of
from support.small_data import write_steady

# -- the loss


def flow_error(agent: Any, b: Any, noise: KnownNoise) -> Array:
    """Return mean_j (v(s, x_t, t)_j − (a − x₀)_j)², `[S, B]`; the noise's share is Beta(1.5, 1)."""
    start, u = noise.normals[0], noise.uniforms[0]
    time = 1 - (0.999 * u ** (1 / 1.5) + 0.001)
    at = np.concatenate([b.obs, (1 - time) * start + time * b.action, time], axis=-1)
    missed = forward(agent.policy.net, at)[:, 0] - (b.action - start)
    found: Array = (missed**2).mean(2)
    return found


@pytest.mark.parametrize("policy", ["flow", "gaussian"])
@pytest.mark.parametrize(
    ("phase", "used"),
    [
        # returns are 1, −2, 3 and 0.5, 4, −1: their medians are 1 and 0.5
        ("offline", [[1, 0, 1], [1, 1, 0]]),
        ("online", [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_rows_that_count_count_alike(policy: str, phase: Any, used: list[list[int]]) -> None:
    agent = tiny_agent("hi_ors", phase=phase, policy=policy, pretraining_quantile=0.5)
    batch, noise = tiny_batch(**every_column()), KnownNoise()
    still = batch.next_obs.clone()
    still[0, 0] = batch.obs[0, 0] + tensor([0.0009, -0.0009])  # less than `min_change`
    batch = replace(batch, next_obs=still)
    counted = np.array(used)
    counted[0, 0] = 0
    loss = agent.loss if phase == "offline" else agent.online_loss
    found, b = loss(batch, noise, ALL_GROUPS), arrays(batch)
    if policy == "flow":
        error = flow_error(agent, b, noise)
    else:
        error = -gaussian_log_prob(agent.policy, b.obs, b.action)
    assert_allclose(terms(found)["policy"], (error * counted).sum(1) / counted.sum(1), **EXACT)
    assert_allclose(found.metrics["rows_used"], counted.mean(1))


def test_a_batch_in_which_nothing_moves_teaches_nothing() -> None:
    agent = tiny_agent("hi_ors", phase="online")
    batch = tiny_batch(**every_column())
    losses = agent.online_loss(replace(batch, next_obs=batch.obs), KnownNoise(), ALL_GROUPS)
    assert terms(losses)["policy"].tolist() == [0.0, 0.0]
    losses.terms["policy"].sum().backward()
    assert all(not p.grad.any() for p in agent.policy.parameters())


def test_the_times_of_the_flow_are_near_the_noise_as_often_as_the_authors() -> None:
    """P(share of noise ≤ x) = x^1.5 of Beta(1.5, 1): a half of them are above 0.63."""
    agent = tiny_agent("hi_ors")
    asked: list[Array] = []
    known = agent.policy.error_at

    def noted(*given: Any) -> Any:
        asked.append(given[3].numpy())
        return known(*given)

    agent.policy.error_at = noted
    noise: Any = KnownNoise()
    quantiles = np.array([0.0, 0.125, 0.5])
    noise.uniform = lambda *_: tensor(np.stack([quantiles, quantiles])[..., None])
    agent.error(tiny_batch(), noise)
    assert_allclose(1 - asked[0][0, :, 0], 0.001 + 0.999 * np.array([0, 0.25, 0.6299605249]))


# -- what is accepted


def accepting(**settings: Any) -> Any:
    """Return an agent of one seed whose window holds four returns, handed over at m = 0."""
    own = {"recent": 4, "first_threshold": 0.0, "min_steps": 3} | settings
    agent = tiny_agent("hi_ors", tiny_spec((0,)), phase="online", **own)
    agent.hand_over(reader_of(agent, None))
    return agent


def end(agent: Any, finished: list[bool], returns: list[float], steps: list[int]) -> list[float]:
    """End episodes; return the priorities of the seeds' rows."""
    given = torch.tensor(returns), torch.tensor(steps, dtype=torch.float32)
    found: list[float] = agent.on_episode_end(torch.tensor(finished), *given)["priority"].tolist()
    return found


HISTORY = [
    # return, steps, accepted, threshold after it: the median of the last four accepted
    (-1.0, 9, 0.0, 0.0),  # 0 0 0 0
    (5.0, 9, 1.0, 0.0),  # 5 0 0 0
    (5.0, 2, 0.0, 0.0),  # too short
    (4.0, 9, 1.0, 2.0),  # 5 4 0 0
    (1.0, 9, 0.0, 2.0),  # it would have been, before
    (2.0, 3, 1.0, 3.0),  # 5 4 2 0: reached is enough
    (3.0, 9, 1.0, 3.5),  # 5 4 2 3
    (4.0, 9, 1.0, 3.5),  # 4 4 2 3
    (9.0, 9, 1.0, 3.5),  # 4 9 2 3
    (8.0, 9, 1.0, 6.0),  # 4 9 8 3
    (7.0, 9, 1.0, 7.5),  # 4 9 8 7
    (7.5, 9, 1.0, 7.75),  # 7.5 9 8 7
    (7.75, 9, 1.0, 7.75),  # 7.5 7.75 8 7: the median falls to 7.625, the threshold does not
]


def test_a_history_of_returns_is_accepted_and_weighed_as_written() -> None:
    agent = accepting()
    for number, (total, steps, accepted, threshold) in enumerate(HISTORY):
        assert end(agent, [True], [total], [steps]) == [accepted], number
        assert agent.threshold.tolist() == [threshold], number
    assert agent.accepted_episodes.item() == sum(int(a) for _, _, a, _ in HISTORY)
    assert sorted(agent.accepted_returns[0].tolist()) == [7.0, 7.5, 7.75, 8.0]


def test_seeds_whose_episode_goes_on_change_nothing() -> None:
    own = {"recent": 2, "first_threshold": 1.0, "min_steps": 1}
    agent = tiny_agent("hi_ors", phase="online", **own)
    agent.hand_over(reader_of(agent, None))
    end(agent, [False, True], [50.0, 3.0], [9, 9])
    assert agent.threshold.tolist() == [1.0, 2.0]
    assert agent.accepted_episodes.tolist() == [0, 1]
    assert agent.accepted_returns.tolist() == [[1.0, 1.0], [3.0, 1.0]]


@given(
    st.lists(
        st.tuples(st.floats(-100, 100, width=32), st.integers(1, 6), st.booleans()), max_size=30
    ),
    st.floats(0, 1),
    st.integers(1, 7),
)
def test_the_threshold_never_falls_and_nothing_below_it_is_accepted(
    history: list[tuple[float, int, bool]], quantile: float, recent: int
) -> None:
    agent = accepting(quantile=quantile, recent=recent, first_threshold=-20.0)
    taken: list[float] = [-20.0] * recent
    for total, steps, finished in history:
        before = agent.threshold.item()
        accepted = end(agent, [finished], [total], [steps])[0]
        reached = total >= before - 1e-6 * abs(before)  # what float32 may round
        assert accepted == float(reached and steps >= 3)
        if accepted and finished:
            taken.append(total)
        assert agent.threshold.item() >= before
        assert agent.threshold.item() <= max(taken)
        assert sorted(agent.accepted_returns[0].tolist()) == sorted(taken[-recent:])


# -- the hand-over

LENGTHS, REWARDS = [4, 1, 2], [1.0, 1.0, 1.0, 1.0, 9.0, 2.5, 2.5]
"""Episodes that return 4, 9 and 5."""


@pytest.mark.parametrize(
    ("quantile", "threshold", "reached"),
    [(0.0, 4.0, [1, 0, 0]), (0.5, 5.0, [0, 0, 0]), (1.0, 9.0, [0, 0, 0])],
)
def test_the_first_threshold_is_a_quantile_of_the_datasets_episodes_however_long(
    quantile: float, threshold: float, reached: list[int]
) -> None:
    """Only the first episode has three steps, which an accepted one needs."""
    settings = {"quantile": quantile, "recent": 3, "normalize_observations": False}
    agent: Any = small_agent("hi_ors", (0, 1), phase="online", **settings)
    episodes = make_episodes(LENGTHS, [True, False, True], REWARDS)
    inputs = Inputs.fit(agent.config, 3, episodes)
    columns = columns_of(agent, agent.online_plan())
    store = offline_store(episodes, inputs, agent.spec, columns, 0.9)
    agent.hand_over(reader_of(agent, store))
    assert agent.accepted_returns.tolist() == [[4.0, 5.0, 9.0]] * 2
    assert agent.threshold.tolist() == [threshold] * 2
    offline = make_stores(agent, agent.online_plan(), store, 8)[0]
    assert offline is not None
    assert offline.own is not None
    assert offline.own[..., 0].tolist() == [np.repeat(reached, LENGTHS).tolist()] * 2
    assert offline.priorities is not None
    assert offline.priorities.total.tolist() == [4.0 * reached[0]] * 2


def test_an_episode_that_does_as_well_as_the_data_is_accepted_whatever_float32_rounds() -> None:
    """0.6 in a dataset is float32(0.6): 25 of them are a digit more than 25 online ones."""
    agent: Any = small_agent("hi_ors", (0,), phase="online", normalize_observations=False)
    episodes = make_episodes([25, 25], [True, True], [0.6] * 50)
    columns = columns_of(agent, agent.online_plan())
    store = offline_store(episodes, Inputs.fit(agent.config, 3, episodes), agent.spec, columns, 0.9)
    agent.hand_over(reader_of(agent, store))
    alike = sum([0.6] * 25)
    assert torch.tensor(alike) < agent.threshold, "the case should be one that is rounded"
    assert end(agent, [True], [alike], [25]) == [1.0]
    assert end(agent, [True], [alike - 1e-4], [25]) == [0.0]


def test_an_online_row_is_accepted_when_its_episode_is_over_and_not_before() -> None:
    agent = accepting(first_threshold=-1e12)
    columns = {"episode_return": np.full((1, 3), -1e9), "episode_length": np.zeros((1, 3))}
    batch = tiny_batch(seeds=1, **columns)
    online = replace(batch, source=torch.ones_like(batch.source))
    assert agent.annotate(online)["priority"].tolist() == [[0, 0, 0]]


def test_a_threshold_that_has_risen_stays_at_another_hand_over() -> None:
    agent = accepting()
    for _ in range(4):
        end(agent, [True], [6.0], [9])
    agent.hand_over(reader_of(agent, None))
    assert agent.threshold.tolist() == [6.0]
    assert agent.accepted_returns.tolist() == [[6.0] * 4]


def test_batches_are_of_accepted_rows_and_of_the_dataset_where_there_are_none() -> None:
    def draws(share: float | None) -> tuple[Draw, ...]:
        found: tuple[Draw, ...] = tiny_agent("hi_ors", online_share=share).online_plan().draws
        return found

    how: dict[str, Any] = {"prioritised": True, "otherwise": "offline"}
    assert draws(1.0) == (Draw(("online",), **how),)
    assert draws(0.5) == (Draw(("online",), 0.5, **how), Draw(("offline",), 0.5, **how))
    assert draws(None) == (Draw(("offline", "online"), **how),)


def test_it_acts_by_samples_and_a_gaussian_is_evaluated_by_its_mode() -> None:
    obs = tiny_batch().obs
    flow, gaussian = (tiny_agent("hi_ors", policy=policy) for policy in ("flow", "gaussian"))
    one, other = (flow.act(obs, KnownNoise(size=size)).detach() for size in (0.5, 1.5))
    assert not torch.equal(one, other)
    noise = KnownNoise()
    assert_allclose(gaussian.act(obs, noise).detach(), gaussian.policy.mode(obs).detach())
    assert not noise.normals
    gaussian.explore(obs, noise)
    assert noise.normals


def test_a_policy_of_behaviour_cloning_is_continued_by_a_gaussian(tmp_path: Path) -> None:
    run: dict[str, Any] = {"dataset": ID, "env": "Steady-v0", "gradient_steps": 5, "env_steps": 6}
    with own_folders():
        write_steady(ID)
        cloned = recipe_of("bc", {"normalize_observations": False}, **run)
        execute(cloned, tmp_path / "bc")
        source = load(tmp_path / "bc")
        (layer,) = inherited(source, "hi_ors", {})
        assert layer["hi_ors"] == {"policy": "gaussian"}
        settings = {"normalize_observations": False, "warmup_env_steps": 6, **layer["hi_ors"]}
        execute(recipe_of("hi_ors", settings, **run), tmp_path / "on", source=tmp_path / "bc")
    before, after = last_tensors(tmp_path / "bc"), last_tensors(tmp_path / "on")
    policy = [name for name in before if name.startswith("agent/policy.")]
    assert policy
    for name in policy:
        assert torch.equal(before[name], after[name]), name


def test_the_dataset_of_a_run_has_the_columns_that_it_asks_for() -> None:
    agent: Any = small_agent("hi_ors", (0,))
    store = dataset_store(agent)
    length = store.rows[0, :, store.layout.slices["episode_length"].start]
    assert length.tolist() == [12.0] * 120

"""The columns that data give a transition, and what a method writes to an episode's rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import Draw, Plan
from baq_cli.agents.registry import METHODS
from baq_cli.agents.sac import SAC
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.experience.columns import DATA_COLUMNS, UNKNOWN_RETURN, Ended, columns_of
from baq_cli.engine.experience.inputs import Inputs, offline_store
from baq_cli.engine.experience.store import Layout, Store
from baq_cli.engine.experience.sumtree import SumTree
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.schema import Recipe
from support.builders import make_episodes, tiny_agent, tiny_spec
from support.odd_envs import LIMIT, PLAN, STEADY
from support.runs import assert_same_end, execute, recipe_of, states, stopped_at

STEPS, EVERY = 24, 7
"""Environment steps of a run, and between its checkpoints; episodes have at most five."""
AT_LEAST = -2.5
"""The return from which the probe accepts an episode: some are above it and some below."""
GAMMA = 0.9

# -- one table for the dataset and for the environment


@pytest.mark.parametrize("name", [n for n, column in DATA_COLUMNS.items() if column.at_end])
@given(
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=12),
    st.booleans(),
    st.floats(0.1, 10),
    st.floats(-3, 3),
)
def test_an_episode_has_the_same_columns_in_a_dataset_and_where_it_was_played(
    name: str, rewards: list[float], terminated: bool, scale: float, shift: float
) -> None:
    logged = make_episodes(
        [3, len(rewards), 2], [True, terminated, False], [1, 2, 3, *rewards, 4, 5]
    )
    inputs = Inputs.fit(AgentConfig(reward_scale=scale, reward_shift=shift), 3, logged)
    store = offline_store(logged, inputs, tiny_spec(obs_dim=3), (name,), GAMMA)
    rows = store.rows[0, 3 : 3 + len(rewards), store.layout.slices[name].start]
    at_end = DATA_COLUMNS[name].at_end
    assert at_end is not None
    played = at_end(Ended(inputs.reward(np.array(rewards)), rewards, terminated, GAMMA))
    assert_allclose(rows, played, rtol=1e-5, atol=1e-5)


def test_the_return_of_an_episode_is_in_raw_units_and_undiscounted() -> None:
    logged = make_episodes([3, 2], [True, False], [1.0, 2.0, 4.0, -1.0, -0.5])
    inputs = Inputs.fit(AgentConfig(reward_scale=100.0, reward_shift=7.0), 3, logged)
    store = offline_store(logged, inputs, tiny_spec(obs_dim=3), ("episode_return",), 0.5)
    column = store.rows[0, :, store.layout.slices["episode_return"].start]
    assert column.tolist() == [7.0, 7.0, 7.0, -1.5, -1.5]


@pytest.mark.parametrize("asked", ["mc_returns", "end"])
def test_a_column_that_data_don_t_provide_is_refused_by_name(asked: str) -> None:
    agent = tiny_agent("iql")
    agent.data_columns = ("held_out", asked)
    near = {"mc_returns": "did you mean 'mc_return'", "end": "did you mean|known: "}
    with pytest.raises(
        ValueError, match=rf"'iql' asks the data for the column '{asked}': {near[asked]}"
    ):
        columns_of(agent, agent.online_plan())


# -- priorities of an episode's rows


def test_a_priority_that_is_written_later_counts_for_that_seed_and_those_rows_alone() -> None:
    layout = Layout(1, 1, ("priority",))
    store = Store.empty(layout, 2, 70, torch.device("cpu"))
    store.priorities = SumTree(2, 70, torch.device("cpu"))
    before = torch.rand(2, 70, generator=torch.Generator().manual_seed(0))
    for step in range(70):
        one = torch.zeros(2, 1)
        fields = {"obs": one, "action": one, "next_obs": one, "reward": one[:, 0]}
        fields |= {"bootstrap": one[:, 0], "priority": before[:, step]}
        store.append(layout.pack(fields), before[:, step])
    slots = torch.tensor([2, 40, 69])
    store.overwrite(1, slots, "priority", torch.tensor([0.0, 8.0, 1.0]))
    before[1, slots] = torch.tensor([0.0, 8.0, 1.0])
    assert torch.equal(store.rows[..., layout.slices["priority"].start], before)
    whole = SumTree(2, 70, torch.device("cpu"))
    whole.fill(before.double())
    for one, other in zip(store.priorities.levels, whole.levels, strict=True):
        assert torch.equal(one, other)


def test_a_seed_whose_priorities_are_all_zero_draws_a_row_that_is_there() -> None:
    tree = SumTree(2, 50, torch.device("cpu"))
    tree.fill(torch.tensor([[0.0] * 50, [0.0] * 49 + [1.0]]))
    mass = torch.rand(2, 9, dtype=torch.float64) * tree.total.unsqueeze(1)
    assert tree.find(mass).tolist() == [[0] * 9, [49] * 9]


# -- a method that accepts episodes when they are over


class Accepting(SAC):
    """SAC that draws only from online episodes whose return was high enough."""

    name = "accepting"
    threshold: ClassVar[float] = AT_LEAST
    data_columns = ("episode_return",)

    def annotate(self, batch: Batch) -> dict[str, Tensor]:
        zero = torch.zeros_like(batch.reward)
        return {"accepted": zero - 1, "priority": zero}

    def on_episode_end(
        self, finished: Tensor, returns: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        accepted = (returns >= self.threshold).to(torch.float32)
        return {"priority": accepted, "accepted": accepted}

    def online_plan(self) -> Plan:
        draws = (Draw(("online",), prioritised=True),)
        return Plan(draws, 1, self.config.warmup_env_steps, capacity=self.config.capacity)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(METHODS, Accepting.name, Accepting)
    return


def recipe(env: str = STEADY, seeds: tuple[int, ...] = (0, 1), **settings: Any) -> Recipe:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    method = {"warmup_env_steps": 4} | settings
    run = {"env": env, "seeds": list(seeds), "env_steps": STEPS, "evaluation": watched}
    return recipe_of("accepting", method, **run)


def stored(run: Path) -> tuple[Layout, Tensor, Tensor, list[dict[str, Any]]]:
    """Return a finished run's rows in the order they were written, their priorities, and the
    episodes that had not ended.
    """
    saved = load(run)
    blocks = [block for block in saved.blocks if block is not None]
    layout = Layout(3, 1, ("episode_return", "accepted", "priority"))
    parts = [torch.cat([block[name] for block in blocks], dim=1) for name in ("rows", "priorities")]
    turn = -(saved.state["written"] % parts[0].shape[1])
    return layout, parts[0].roll(turn, 1), parts[1].roll(turn, 1), saved.state["running"]


def assert_accepted_by_return(run: Path, capacity: int = STEPS, fault: int | None = None) -> None:
    """Check each row against a walk over the episodes, told apart by their observations' step.

    Of an episode that a fault cut before the row `fault` the return is known, and the method is
    told nothing.
    """
    layout, rows, priorities, running = stored(run)
    assert rows.shape[1] == capacity
    seen = set()
    for seed in (0, 1):
        column = {name: rows[seed, :, at.start] for name, at in layout.slices.items()}
        step = rows[seed, :, 2]
        starts = [k for k in range(capacity) if step[k] == 0]
        left = len(running[seed]["rewards"])
        for begin, stop in zip(starts, [*starts[1:], capacity], strict=True):
            part = slice(begin, stop)
            over = stop < capacity or left == 0
            told = over and not (
                stop == fault and stop - begin < LIMIT and column["bootstrap"][stop - 1]
            )
            total = float(column["reward"][part].double().sum())
            accepted = float(total >= AT_LEAST)
            seen.add(accepted if told else -1.0)
            expected = [accepted if told else -1.0] * (stop - begin)
            assert column["accepted"][part].tolist() == expected
            assert priorities[seed, part].tolist() == [accepted if told else 0.0] * (stop - begin)
            expected = total if over else UNKNOWN_RETURN
            assert_allclose(column["episode_return"][part], expected, rtol=1e-5)
    assert {0.0, 1.0} <= seen


def test_what_a_method_says_of_an_episode_is_written_to_all_its_rows(tmp_path: Path) -> None:
    execute(recipe(), tmp_path)
    assert_accepted_by_return(tmp_path)


def test_rows_written_over_before_their_episode_ends_are_left_alone(tmp_path: Path) -> None:
    execute(recipe(capacity=3), tmp_path)
    layout, rows, priorities, running = stored(tmp_path)
    assert rows.shape[1] == 3
    for seed in (0, 1):
        accepted = rows[seed, :, layout.slices["accepted"].start]
        left = len(running[seed]["rewards"])
        assert (accepted == -1).tolist() == [k >= 3 - left for k in range(3)]
        assert priorities[seed].tolist() == accepted.clamp(min=0).tolist()


def test_a_method_is_not_told_of_an_episode_that_a_fault_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLAN, f"raises 13 {tmp_path / 'done'}")
    execute(recipe("Odd-v0"), tmp_path / "run")
    assert_accepted_by_return(tmp_path / "run", fault=1)  # after 2 x 5 steps of evaluation


def test_rows_of_a_running_episode_get_their_columns_after_a_resume_too(tmp_path: Path) -> None:
    execute(recipe(), tmp_path / "whole")
    names = list(states(tmp_path / "whole"))[:-1]
    midway = [
        n for n in names if any(e["rewards"] for e in states(tmp_path / "whole")[n]["running"])
    ]
    assert midway, "a checkpoint falls into an episode"
    for name in midway:
        run = stopped_at(tmp_path / "whole", name, tmp_path / name)
        execute(recipe(), run, resume=True)
        assert_same_end(tmp_path / "whole", run)


def test_a_seed_has_the_same_columns_alone_as_among_others(tmp_path: Path) -> None:
    execute(recipe(), tmp_path / "both")
    execute(recipe(seeds=(1,)), tmp_path / "alone")
    (_, both, of_both, _), (_, one, of_one, _) = (
        stored(tmp_path / "both"),
        stored(tmp_path / "alone"),
    )
    assert_allclose(both[1], one[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(of_both[1], of_one[0])


def test_a_column_that_a_method_doesn_t_have_can_t_be_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Accepting, "on_episode_end", lambda self, finished, returns, lengths: {"acepted": returns}
    )
    with pytest.raises(
        ValueError, match="column 'acepted' at an episode's end: did you mean 'accepted'"
    ):
        execute(recipe(), tmp_path)

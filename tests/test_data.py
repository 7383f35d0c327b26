"""Logged experience: returns, held-out episodes, its fingerprint, its checks, and the spaces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from builders import make_episodes
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as random_arrays
from numpy.testing import assert_allclose

from baq_cli.data.episodes import Episodes, monte_carlo_returns, returns_to_go
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, EnvironmentMismatch

# -- Monte-Carlo returns


def test_a_terminated_episode_is_summed_to_its_end() -> None:
    # γ .5: 4; 2 + 2; 1 + 2
    assert_allclose(returns_to_go(np.array([1.0, 2.0, 4.0]), True, 0.5), [3, 4, 4])


def test_a_truncated_episode_goes_on_with_the_mean_reward_of_its_last_steps() -> None:
    # γ .5 looks two steps back: a mean of 3 for ever is worth 6; then 4 + 3; 2 + 3.5; 1 + 2.75
    assert_allclose(returns_to_go(np.array([1.0, 2.0, 4.0]), False, 0.5), [3.75, 5.5, 7])


def test_a_truncated_episode_shorter_than_the_horizon_uses_all_its_steps() -> None:
    # γ .9 would look ten steps back: a mean of 2 for ever is worth 20; then 3 + 18; 1 + 18.9
    assert_allclose(returns_to_go(np.array([1.0, 3.0]), False, 0.9), [19.9, 21])


@given(
    st.floats(-10, 10), st.integers(1, 30), st.sampled_from([0.5, 0.9, 0.99]), st.integers(1, 30)
)
def test_a_constant_reward_is_worth_the_same_at_every_step_of_a_truncated_episode(
    reward: float, length: int, discount: float, other: int
) -> None:
    episodes = make_episodes([length, other], [False, False], [reward] * (length + other))
    found = monte_carlo_returns(episodes, episodes.reward, discount)
    assert_allclose(found, reward / (1 - discount), rtol=1e-5, atol=1e-5)


def test_returns_do_not_run_over_the_border_between_episodes() -> None:
    episodes = make_episodes([2, 3, 1], [True, False, True], [1, 2, 1, 2, 4, 8])
    found = monte_carlo_returns(episodes, episodes.reward, 0.5)
    assert_allclose(found, [2, 2, 3.75, 5.5, 7, 8])


def test_episode_returns_and_lengths_are_counted_apiece() -> None:
    episodes = make_episodes([2, 3, 1], [True, False, True], [1, 2, 1, 2, 4, 8])
    assert episodes.returns.tolist() == [3, 7, 8]
    assert episodes.lengths.tolist() == [2, 3, 1]
    assert episodes.starts.tolist() == [0, 2, 5]


# -- held-out episodes


@given(st.lists(st.integers(1, 6), min_size=2, max_size=90))
def test_about_a_twentieth_of_the_episodes_is_held_out_whole(lengths: list[int]) -> None:
    episodes = make_episodes(lengths, [True] * len(lengths))
    mark = episodes.held_out()
    by_episode = [set(mark[episodes.episode == k].tolist()) for k in range(len(lengths))]
    assert all(len(values) == 1 for values in by_episode)
    held_out = sum(True in values for values in by_episode)
    assert held_out == max(1, round(0.05 * len(lengths)))


def test_the_same_episodes_are_held_out_each_time_whatever_they_contain() -> None:
    one = make_episodes([4] * 60, [True] * 60)
    other = replace(one, reward=one.reward + 1, obs=-one.obs)
    assert one.held_out().tolist() == one.held_out().tolist() == other.held_out().tolist()


def test_a_dataset_of_one_episode_holds_none_out() -> None:
    assert not make_episodes([5], [True]).held_out().any()


# -- the fingerprint


@given(
    st.sampled_from(["obs", "action", "reward", "next_obs", "terminated", "truncated", "episode"]),
    st.integers(0, 10_000),
)
def test_the_content_hash_changes_when_one_number_changes(name: str, at: int) -> None:
    episodes = make_episodes([4, 3], [True, False])
    values = getattr(episodes, name).copy()
    place = at % values.size
    old = values.flat[place]
    values.flat[place] = not old if values.dtype == bool else np.nextafter(old, 9, dtype=float) + 1
    assume(values.flat[place] != old)
    assert replace(episodes, **{name: values}).content_hash != episodes.content_hash


def test_the_content_hash_is_of_the_content_alone() -> None:
    episodes = make_episodes([4, 3], [True, False])
    copied = replace(episodes, dataset_id="another/name-v0", obs=np.asfortranarray(episodes.obs))
    assert copied.content_hash == make_episodes([4, 3], [True, False]).content_hash


# -- checks


def spoilt(name: str, value: float) -> Episodes:
    episodes = make_episodes([4, 3], [True, False])
    values = getattr(episodes, name).copy()
    values[5] = value
    return replace(episodes, **{name: values})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["obs", "action", "reward", "next_obs"])
def test_numbers_that_are_not_finite_are_refused_with_their_place(name: str, value: float) -> None:
    with pytest.raises(DataError, match=rf"{name} is NaN or infinite in 1 of 7 .*transition 5"):
        spoilt(name, value).check()


def test_actions_outside_the_recorded_space_are_refused_beyond_rounding() -> None:
    with pytest.raises(DataError, match="1 of 7 actions lie outside"):
        spoilt("action", 1.01).check()
    spoilt("action", 1.00005).check()


def test_a_dataset_without_transitions_is_refused() -> None:
    episodes = make_episodes([1], [True])
    fields = ("obs", "action", "reward", "next_obs", "terminated", "truncated", "episode")
    with pytest.raises(DataError, match="holds no transitions"):
        replace(episodes, **{name: getattr(episodes, name)[:0] for name in fields}).check()


# -- spaces

bounds = st.lists(
    st.tuples(st.floats(-100, 99, width=32), st.floats(0.125, 100, width=32)),
    min_size=1,
    max_size=4,
)


@given(st.one_of(st.just([(-2.0, 4.0)]), bounds), st.data())
def test_actions_survive_the_way_to_the_environment_and_back(
    low_and_width: list[tuple[float, float]], data: st.DataObject
) -> None:
    low = tuple(float(np.float32(a)) for a, _ in low_and_width)
    high = tuple(float(np.float32(a + w)) for a, w in low_and_width)
    spaces = Spaces(1, low, high)
    shape = (3, len(low))
    action = data.draw(random_arrays(np.float64, shape, elements=st.floats(-1, 1)))
    there = spaces.to_env(action)
    assert (there >= np.float32(low)).all()
    assert (there <= np.float32(high)).all()
    # float32 bounds of size 100 leave steps of 1e-5 in an action of width 1/8
    assert_allclose(spaces.from_env(there.astype(np.float64)), action, atol=5e-4)


def test_pendulums_torques_are_scaled_by_two() -> None:
    spaces = Spaces(3, (-2.0,), (2.0,))
    assert spaces.to_env(np.array([[-1.0], [0.0], [0.5], [1.0]])).tolist() == [[-2], [0], [1], [2]]
    assert spaces.from_env(np.array([[-2.0], [0.0], [1.0], [2.0]])).tolist() == [
        [-1],
        [0],
        [0.5],
        [1],
    ]


def test_each_action_dimension_has_its_own_bounds() -> None:
    spaces = Spaces(1, (-1.0, 0.0), (3.0, 10.0))
    assert spaces.to_env(np.array([0.0, 0.0])).tolist() == [1.0, 5.0]
    assert spaces.from_env(np.array([3.0, 2.5])).tolist() == [1.0, -0.5]


def test_actions_beyond_the_bounds_are_clipped_on_their_way_out() -> None:
    assert Spaces(1, (-2.0,), (2.0,)).to_env(np.array([[7.0], [-7.0]])).tolist() == [[2], [-2]]


def box(low: Any, high: Any, shape: tuple[int, ...], dtype: Any = np.float32) -> gym.spaces.Box:
    return gym.spaces.Box(low, high, shape, dtype)


FLAT = box(-1, 1, (3,))


def test_flat_boxes_are_read_whole() -> None:
    spaces = Spaces.of(box(-np.inf, np.inf, (3,)), box(-2, 2, (1,)))
    assert (spaces.obs_dim, spaces.action_dim) == (3, 1)
    assert (spaces.action_low, spaces.action_high) == ((-2.0,), (2.0,))


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (FLAT, gym.spaces.Discrete(4), ["Discrete(4)", "actions", "continuous"]),
        (FLAT, gym.spaces.MultiDiscrete([2, 3]), ["MultiDiscrete([2 3])", "actions"]),
        (FLAT, box(-1, 1, (2, 2)), ["Box(-1.0, 1.0, (2, 2)", "flat"]),
        (FLAT, box(-np.inf, np.inf, (2,)), ["Box(-inf, inf, (2,)", "infinite bounds"]),
        (FLAT, box(0, np.inf, (2,)), ["Box(0.0, inf, (2,)", "infinite bounds"]),
        (gym.spaces.Discrete(4), FLAT, ["Discrete(4)", "observations"]),
        (box(0, 255, (8, 8, 3), np.uint8), FLAT, ["Box(0, 255, (8, 8, 3)", "images"]),
        (gym.spaces.Dict({"a": FLAT}), FLAT, ["Dict('a': Box(", "FlattenObservation"]),
    ],
)
def test_spaces_without_a_method_are_refused_by_name(
    observation: gym.Space[Any], action: gym.Space[Any], words: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        Spaces.of(observation, action)
    for word in words:
        assert word in str(caught.value)


def test_an_action_bound_without_width_is_refused() -> None:
    """Scaling to [−1, 1] would divide by zero."""
    fixed = gym.spaces.Box(np.array([-1.0, 0.5]), np.array([1.0, 0.5]), dtype=np.float64)
    with pytest.raises(DataError, match="Box"):
        Spaces.of(FLAT, fixed)


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (Spaces(4, (-1.0,), (1.0,)), "obs_dim"),
        (Spaces(3, (-2.0,), (1.0,)), "action_low"),
        (Spaces(3, (-1.0, -1.0), (1.0, 1.0)), "action_low"),
        (Spaces(3, (-1.0,), (2.0,)), "action_high"),
    ],
)
def test_different_spaces_are_told_apart_by_what_differs(other: Spaces, word: str) -> None:
    mine = Spaces(3, (-1.0,), (1.0,))
    with pytest.raises(EnvironmentMismatch, match=f"the environment has {word} .*the dataset has"):
        mine.check_same(other, "the dataset", "the environment")
    mine.check_same(Spaces(3, (-1.0,), (1.0,)), "a", "b")

"""Logged experience: its rows, returns, held-out episodes, fingerprint, and the spaces."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as random_arrays
from numpy.testing import assert_allclose, assert_array_equal

from baq_cli.data.episodes import (
    ARRAYS,
    DataOrigin,
    Finding,
    monte_carlo_returns,
    returns_to_go,
    where_somebody_acted,
)
from baq_cli.data.minari.read import load_episodes
from baq_cli.data.minari.write import write_minari
from baq_cli.envs.spaces import Spaces, flatten_parts, observation_parts, split_parts
from baq_cli.errors import DataError, EnvironmentMismatch
from support.builders import make_episodes
from support.recordings import own_folders, plain_recording

# -- rows


def test_each_step_lies_between_the_observations_before_and_after_it() -> None:
    # three episodes of 2, 3 and 1 steps: 3, 4 and 2 observations
    episodes = replace(
        make_episodes([2, 3, 1], [True, False, True]), observations=np.arange(9.0)[:, None]
    )
    assert episodes.obs[:, 0].tolist() == [0, 1, 3, 4, 5, 7]
    assert episodes.next_obs[:, 0].tolist() == [1, 2, 4, 5, 6, 8]
    assert episodes.episode.tolist() == [0, 0, 1, 1, 1, 2]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=20))
def test_a_step_never_crosses_the_border_between_episodes(lengths: list[int]) -> None:
    observed = [[(k, t) for t in range(length + 1)] for k, length in enumerate(lengths)]
    episodes = replace(
        make_episodes(lengths, [True] * len(lengths)), observations=np.concatenate(observed)
    )
    assert (episodes.obs[:, 0] == episodes.episode).all()
    assert_array_equal(episodes.next_obs - episodes.obs, [(0, 1)] * sum(lengths))
    again = [
        [*episodes.obs[episodes.episode == k], episodes.next_obs[episodes.episode == k][-1]]
        for k in range(len(lengths))
    ]
    assert_array_equal(np.concatenate(again), episodes.observations)


def test_writing_to_the_observations_of_steps_leaves_the_stored_ones_alone() -> None:
    episodes = make_episodes([2, 3], [True, False])
    before = episodes.observations.copy()
    episodes.obs[:], episodes.next_obs[:] = 9, 9
    assert_array_equal(episodes.observations, before)


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
    other = replace(one, reward=one.reward + 1, observations=-one.observations)
    assert one.held_out().tolist() == one.held_out().tolist() == other.held_out().tolist()


def test_a_dataset_of_one_episode_holds_none_out() -> None:
    assert not make_episodes([5], [True]).held_out().any()


# -- the fingerprint


@given(st.sampled_from(ARRAYS), st.integers(0, 10_000))
def test_the_content_hash_changes_when_one_number_changes(name: str, at: int) -> None:
    episodes = make_episodes([4, 3], [True, False])
    values = getattr(episodes, name).copy()
    place = at % values.size
    old = values.flat[place]
    values.flat[place] = not old if values.dtype == bool else np.nextafter(old, 9, dtype=float) + 1
    assume(values.flat[place] != old)
    assert replace(episodes, **{name: values}).content_hash != episodes.content_hash


def test_every_array_that_is_stored_counts_for_the_content_hash() -> None:
    stored = vars(make_episodes([4, 3], [True, False]))
    assert {name for name, value in stored.items() if isinstance(value, np.ndarray)} == set(ARRAYS)


def test_the_content_hash_tells_the_borders_between_episodes_apart() -> None:
    episodes = make_episodes([4, 3], [True, False])
    moved = replace(episodes, lengths=np.asarray([3, 4]))
    assert moved.content_hash != episodes.content_hash


def test_the_content_hash_is_of_the_content_alone() -> None:
    episodes = make_episodes([4, 3], [True, False])
    copied = replace(
        episodes,
        dataset_id="another/name-v0",
        observations=np.asfortranarray(episodes.observations),
        origin=DataOrigin("Pendulum-v1", 200, seeds=(1, 2)),
        findings=(Finding("warning", "rewards", "every reward is 0."),),
    )
    assert copied.content_hash == make_episodes([4, 3], [True, False]).content_hash


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
IMAGE = box(0, 255, (8, 8, 3), np.uint8)
ROBOT = gym.spaces.Dict(
    {"arm": gym.spaces.Dict({"joints": box(-1, 1, (2, 2)), "grip": box(0, 1, ())}), "goal": FLAT}
)


def test_flat_boxes_are_read_whole() -> None:
    spaces = Spaces.of(box(-np.inf, np.inf, (3,)), box(-2, 2, (1,)))
    assert (spaces.obs_dim, spaces.action_dim) == (3, 1)
    assert (spaces.action_low, spaces.action_high) == ((-2.0,), (2.0,))
    assert spaces.obs_layout == ()


def test_dicts_of_boxes_are_read_with_their_parts_in_order() -> None:
    spaces = Spaces.of(ROBOT, FLAT)  # Gymnasium sorts the keys
    assert spaces.obs_layout == (("arm/grip", 1), ("arm/joints", 4), ("goal", 3))
    assert spaces.obs_dim == 8


def test_the_parts_of_observations_are_laid_side_by_side_and_taken_apart_again() -> None:
    grip, joints = np.array([1, 9]), np.array([[[2, 3], [4, 5]], [[10, 11], [12, 13]]])
    parts = {"arm/grip": grip, "arm/joints": joints, "goal": np.array([[6, 7, 8], [14, 15, 16]])}
    flat = np.arange(1, 17).reshape(2, 8)
    assert_array_equal(flatten_parts(parts), flat)
    back = split_parts(flat, ROBOT)
    assert list(back) == list(parts)
    for name, part in parts.items():
        assert_array_equal(back[name], part, strict=True)


boxes = st.builds(
    box,
    st.integers(-9, 0),
    st.integers(1, 9),
    st.lists(st.integers(1, 3), max_size=2).map(tuple),
    st.sampled_from([np.float32, np.float64, np.int64]),
)


def dicts_of(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[gym.spaces.Dict]:
    """Draw Dict spaces; half of them have their keys in an order of their own."""
    named = st.dictionaries(st.text("abC_1", min_size=1, max_size=3), parts, min_size=1, max_size=3)
    return st.one_of(
        named.map(gym.spaces.Dict), named.map(lambda d: gym.spaces.Dict(list(d.items())))
    )


dict_spaces = dicts_of(st.recursive(boxes, dicts_of, max_leaves=5))


def part_of(observation: Any, path: str) -> Any:
    for key in path.split("/"):
        observation = observation[key]
    return observation


@given(dict_spaces, st.integers(0, 1000), st.integers(1, 4))
def test_whole_arrays_are_flattened_as_gymnasium_flattens_each_observation(
    space: gym.spaces.Dict, seed: int, count: int
) -> None:
    space.seed(seed)
    sample = [space.sample() for _ in range(count)]
    parts = {
        path: np.stack([part_of(observation, path) for observation in sample])
        for path in observation_parts(space)
    }
    flat = flatten_parts(parts)
    assert_array_equal(flat, np.stack([gym.spaces.flatten(space, o) for o in sample]))
    back = split_parts(flat, space)
    assert list(back) == list(parts)
    for path, part in parts.items():
        assert back[path].shape == part.shape
        assert_array_equal(back[path], part)


@given(dict_spaces)
def test_the_layout_counts_every_number_of_an_observation(space: gym.spaces.Dict) -> None:
    spaces = Spaces.of(space, FLAT)
    assert spaces.obs_dim == gym.spaces.flatdim(space)
    assert sum(size for _, size in spaces.obs_layout) == spaces.obs_dim


@given(st.one_of(dict_spaces, st.just(FLAT)), bounds)
def test_spaces_survive_the_way_through_json(
    space: gym.Space[Any], low_and_width: list[tuple[float, float]]
) -> None:
    low = np.array([a for a, _ in low_and_width], dtype=np.float32)
    width = np.array([w for _, w in low_and_width], dtype=np.float32)
    spaces = Spaces.of(space, gym.spaces.Box(low, low + width))
    assert Spaces.from_fields(json.loads(json.dumps(asdict(spaces)))) == spaces


def test_spaces_written_without_a_layout_are_flat() -> None:
    fields = {"obs_dim": 3, "action_low": [-2.0], "action_high": [2.0]}
    assert Spaces.from_fields(fields) == Spaces(3, (-2.0,), (2.0,))


def test_parts_of_a_dict_that_share_a_path_are_refused() -> None:
    """One would take the other's place: 'a/b' is a key here and a path there."""
    space = gym.spaces.Dict({"a": gym.spaces.Dict({"b": box(0, 1, (3,))}), "a/b": box(0, 1, (2,))})
    with pytest.raises(DataError, match="a/b"):
        Spaces.of(space, FLAT)


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (FLAT, gym.spaces.Discrete(4), ["Discrete(4)", "actions", "continuous"]),
        (FLAT, gym.spaces.MultiDiscrete([2, 3]), ["MultiDiscrete([2 3])", "actions"]),
        (FLAT, box(-1, 1, (2, 2)), ["Box(-1.0, 1.0, (2, 2)", "flat"]),
        (FLAT, box(-np.inf, np.inf, (2,)), ["Box(-inf, inf, (2,)", "infinite bounds"]),
        (FLAT, box(0, np.inf, (2,)), ["Box(0.0, inf, (2,)", "infinite bounds"]),
        (gym.spaces.Discrete(4), FLAT, ["Discrete(4)", "observations"]),
        (IMAGE, FLAT, ["Box(0, 255, (8, 8, 3)", "images"]),
        (box(-1, 1, (2, 2)), FLAT, ["Box(-1.0, 1.0, (2, 2)", "FlattenObservation"]),
        (gym.spaces.Dict({}), FLAT, ["Dict()", "observations"]),
        (gym.spaces.Dict({"a": FLAT, "camera": IMAGE}), FLAT, ["Box(0, 255, (8, 8, 3)", "images"]),
        (gym.spaces.Dict({"a": gym.spaces.Dict({"b": IMAGE})}), FLAT, ["(8, 8, 3)", "images"]),
        (gym.spaces.Dict({"a": FLAT, "goal": gym.spaces.Discrete(4)}), FLAT, ["Discrete(4)"]),
        (gym.spaces.Dict({"a": gym.spaces.Tuple([FLAT])}), FLAT, ["Tuple(Box("]),
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


@pytest.mark.parametrize(
    "layout",
    [(), (("a", 2), ("b", 1)), (("b", 2), ("a", 1)), (("a", 1), ("c", 2))],
    ids=["flat", "other sizes", "other order", "other name"],
)
def test_spaces_of_one_size_are_told_apart_by_their_layout(
    layout: tuple[tuple[str, int], ...],
) -> None:
    mine = Spaces(3, (-1.0,), (1.0,), (("a", 1), ("b", 2)))
    with pytest.raises(EnvironmentMismatch, match=r"there has obs_layout .*here has \[\('a', 1\)"):
        mine.check_same(replace(mine, obs_layout=layout), "here", "there")
    mine.check_same(replace(mine), "here", "there")


def test_bounds_that_differ_by_a_rounding_to_float32_are_the_same() -> None:
    """Humanoid's are ±0.4 in float32; a log's own are the nearest double."""
    rounded = float(np.float32(0.4))
    Spaces(3, (-0.4,), (0.4,)).check_same(Spaces(3, (-rounded,), (rounded,)), "a", "b")


def test_observations_without_a_number_are_refused() -> None:
    with pytest.raises(DataError, match="no numbers"):
        Spaces.of(box(-1, 1, (0,)), FLAT)


# -- who acted


def test_who_acted_is_told_of_steps_also_where_resets_have_infos_of_their_own() -> None:
    """Minari's collector writes what the reset said before what the steps did; NaN says nothing."""
    lengths = np.array([2, 1, 3])
    a_step = np.array([0, 1, 1, 0, np.nan, 2])
    acted = [False, True, True, False, False, True]
    with_resets = np.insert(a_step, [0, 2, 3], [1, 0, np.nan])
    for said in (a_step, with_resets):
        found = where_somebody_acted(said, lengths)
        assert found is not None
        assert found.tolist() == acted
    resets_alone = np.insert(np.zeros(6), [0, 2, 3], 1)
    for nothing in (np.zeros(6), resets_alone, a_step[:5], np.ones((6, 1))):
        assert where_somebody_acted(nothing, lengths) is None


def test_a_dataset_says_who_acted_as_its_recording_does() -> None:
    said = {"intervention": np.array([0, 0, 1, 0, 1, 0, 1])}
    with own_folders():
        recording = plain_recording((4, 1), infos=said)
        write_minari("me/taken-v0", recording)
        found = load_episodes("me/taken-v0").intervention
    assert found is not None
    assert found.tolist() == [False, True, False, True, True]
    assert recording.episodes("me/taken-v0").arrays["intervention"].tolist() == found.tolist()

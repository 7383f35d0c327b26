"""Every action sent is one that its space contains; the bounds themselves are among them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from baq_cli.envs.scaling import ActionScale, inner_bounds
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError
from support.strict_envs import TYPES

Array = np.ndarray[Any, Any]
FLAT = gym.spaces.Box(-1, 1, (3,))
ENDS = [-1.0, 1.0, -7.0, 7.0, float(np.nextafter(np.float32(1), np.float32(0))), 0.0]
UNITS = st.one_of(st.sampled_from(ENDS), st.floats(-1, 1, width=32, allow_subnormal=False))


def normal(dtype: str) -> st.SearchStrategy[float]:
    """Return numbers of a type, up to its largest; none so small that runs flush them to zero."""
    width: Any = {"float16": 16, "float32": 32, "float64": 64}[dtype]
    found = st.floats(allow_nan=False, allow_infinity=False, width=width, allow_subnormal=False)
    return st.one_of(
        st.sampled_from([-0.3, 0.1, 0.7]).map(lambda x: float(np.array(x, dtype))), found
    )


@st.composite
def boxes(draw: st.DrawFn) -> gym.spaces.Box:
    dtype = draw(st.sampled_from(TYPES))
    shape = draw(st.integers(1, 4))
    ends = np.array([draw(st.tuples(normal(dtype), normal(dtype))) for _ in range(shape)], dtype)
    low, high = ends.min(axis=1), ends.max(axis=1)
    assume((low < high).all())
    return gym.spaces.Box(low, high, dtype=np.dtype(dtype).type)


def sent(box: gym.spaces.Box, action: Any) -> Array:
    return Spaces.of(FLAT, box).to_env(np.asarray(action))


@given(boxes(), st.data())
@pytest.mark.filterwarnings("error")
def test_a_box_contains_what_is_sent_whatever_a_policy_says(
    box: gym.spaces.Box, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from([np.float32, np.float64]))
    actions = data.draw(arrays(kind, (3, *box.shape), elements=UNITS))
    before = actions.copy()
    found = sent(box, actions)
    assert found.dtype == box.dtype
    assert all(box.contains(row) for row in found)
    for row, alone in zip(found, actions, strict=True):
        assert_array_equal(sent(box, alone), row)
    found[:] = 0
    assert_array_equal(actions, before)


@given(boxes())
def test_the_ends_are_reached_and_no_less(box: gym.spaces.Box) -> None:
    assert_array_equal(sent(box, np.full(box.shape, -1, np.float32)), box.low)
    assert_array_equal(sent(box, np.full(box.shape, 1, np.float32)), box.high)


@given(boxes(), st.lists(UNITS, min_size=2, max_size=9))
def test_more_of_an_action_is_never_less_of_it(box: gym.spaces.Box, units: list[float]) -> None:
    actions = np.repeat(np.sort(np.float32(units))[:, None], *box.shape, axis=1)
    found = sent(box, actions)
    assert (found[1:] >= found[:-1]).all()


@given(boxes(), st.data())
def test_there_and_back_is_off_by_a_rounding(box: gym.spaces.Box, data: st.DataObject) -> None:
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    half = high / 2 - low / 2
    with np.errstate(over="ignore"):
        coarse = np.spacing(np.maximum(np.abs(box.low), np.abs(box.high))).astype(np.float64) / half
    assume((coarse < 0.25).all())
    actions = data.draw(arrays(np.float32, box.shape, elements=UNITS))
    spaces = Spaces.of(FLAT, box)
    there = spaces.to_env(actions)
    back = spaces.from_env(there)
    assert (np.abs(back - np.clip(actions, -1, 1)) <= coarse + 4 * np.finfo(np.float32).eps).all()
    again = spaces.to_env(back).astype(np.float64) - there.astype(np.float64)
    assert (np.abs(again / half) <= 2 * coarse + 4 * np.finfo(np.float32).eps).all()


thousandths = st.integers(-100_000, 100_000).filter(bool).map(lambda n: float(np.float32(n / 1000)))


@given(st.sets(thousandths, min_size=2, max_size=2), st.booleans(), st.data())
def test_boxes_of_float32_are_scaled_by_the_formula_that_runs_were_made_with(
    ends: set[float], symmetric: bool, data: st.DataObject
) -> None:
    """So a run that was made before goes on with the same bits."""
    low, high = sorted(ends)
    if symmetric:
        low, high = -abs(high), abs(high)
    unit = data.draw(arrays(np.float32, (5, 1), elements=UNITS))
    scaled = low + (np.clip(unit, -1.0, 1.0) + 1.0) * 0.5 * np.array([high - low])
    assert_array_equal(Spaces(3, (low,), (high,)).to_env(unit), scaled.astype(np.float32))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(TYPES))
def test_bounds_that_are_no_numbers_of_a_type_are_rounded_to_the_inside(
    one: float, other: float, dtype: str
) -> None:
    low, high = sorted([one, other])
    assume(low < high)
    with np.errstate(over="ignore"):
        around = np.array([low, high]).astype(dtype)
        below, above = (
            np.nextafter(around, around.dtype.type(-np.inf)),
            np.nextafter(around, around.dtype.type(np.inf)),
        )
    numbers = np.unique(np.concatenate([below, around, above])).astype(np.float64)
    inside = numbers[(low <= numbers) & (numbers <= high)]
    if inside.size:
        (first,), (last,) = inner_bounds([low], [high], dtype)
        assert (first, last) == (inside[0], inside[-1])
    else:
        with pytest.raises(DataError, match=f"no {dtype} number between them"):
            inner_bounds([low], [high], dtype)


def test_known_bounds_by_hand() -> None:
    """float32's 0.1 is 0.100000001490…, its next below 0.0999999940…; −0.3 is −0.300000011920…."""
    (first,), (last,) = inner_bounds([-0.3], [0.1], "float32")
    assert (f"{first:.12f}", f"{last:.12f}") == ("-0.299999982119", "0.099999994040")
    wide = ActionScale((-0.3,), (0.1,), "float64")
    assert wide.to_env(np.float32([[-1], [0], [1]])).ravel().tolist() == [-0.3, -0.3 + 0.2, 0.1]
    huge = ActionScale((-1.7e308,), (1.7e308,), "float64")
    assert huge.to_env(np.float32([[-1], [0], [0.5], [1]])).ravel().tolist() == pytest.approx(
        [-1.7e308, 0, 0.85e308, 1.7e308]
    )
    assert huge.from_env(np.array([[-1.7e308], [0.0], [1.7e308]])).ravel().tolist() == [-1, 0, 1]

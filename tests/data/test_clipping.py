"""Actions beyond their bounds: refused with the option, or clipped, counted and told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.data.exchange import SUFFIXES, export_file, import_file, save_arrays
from baq_cli.data.logs.clipping import clipped_in, within_bounds
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.folder import local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes
from baq_cli.errors import DataError
from support.advice import follows
from support.logs import BOUNDS, NEW
from support.recordings import plain_recording

Command = Callable[..., tuple[int, str, str]]
ACTIONS = np.array([[0.5, 0.0], [1.5, 0.0], [-9.0, 2.0], [1.0, -1.0]])
"""Two of four lie beyond [−1, 1]: both in dimension 0, one in dimension 1."""


def log(path: Path, actions: Any = ACTIONS) -> Path:
    rows = len(actions)
    np.savez(
        path,
        observations=np.arange(float(rows)),
        next_observations=np.arange(rows) + 1.0,
        actions=actions,
        rewards=np.arange(float(rows)),
        terminated=np.zeros(rows, bool),
        truncated=np.arange(rows) == rows - 1,
    )
    return path


@follows("{} of the actions lie outside the action space, by up to {} of its half width. --clip-")
def test_what_lies_beyond_is_refused_with_its_share_and_the_option(
    folder: Path, baq_here: Command
) -> None:
    path = log(folder / "log.npz")
    words = ("data", "import", path, "--id", NEW, *BOUNDS)
    status, _, said = baq_here(*words)
    assert status == 3
    assert "2 of 4 (50.0%; by dimension 0: 50.0%, 1: 25.0%) of the actions lie outside" in said
    assert "--clip-actions" in said
    assert local_datasets() == []
    status, _, said = baq_here(*words, "--clip-actions")
    assert status == 0, said
    assert "2 of 4 (50.0%; by dimension 0: 50.0%, 1: 25.0%)" in said
    assert load_episodes(NEW).action.tolist() == [[0.5, 0], [1, 0], [-1, 1], [1, -1]]
    status, out, _ = baq_here("data", "show", NEW, "--json")
    expected = {"env_steps": 2, "of": 4, "share_by_dimension": [0.5, 0.25], "share": 0.5}
    assert json.loads(out)["clipped_actions"] == expected
    assert "clipped_actions" in baq_here("data", "show", NEW)[1]
    assert baq_here("data", "check", NEW)[0] == 0
    right = ("--id", "me/right-v0", "--action-low=-9", "--action-high=2")
    assert baq_here("data", "import", path, *right)[0] == 0


def test_the_share_stays_with_a_dataset_on_its_way_through_files(folder: Path) -> None:
    setting = Setting(None, [-1], [1], clip_actions=True)
    import_file(log(folder / "log.npz"), NEW, setting, None)
    for form, suffix in SUFFIXES.items():
        path = folder / f"out{suffix}"
        export_file(NEW, form, path)
        import_file(path, f"me/{form}-v0", Setting(), None)
        clipped = clipped_in(open_minari(f"me/{form}-v0").metadata)
        assert clipped is not None
        assert (clipped.env_steps, clipped.of) == (2, 4)


@pytest.mark.usefixtures("folder")
def test_arrays_from_python_are_clipped_where_that_is_said(short_env: str) -> None:
    given = {
        "observations": np.zeros((3, 3)),
        "actions": np.array([[5.0], [1.0], [-2.0]]),
        "rewards": np.arange(3.0),
        "terminated": np.array([0, 0, 1]),
        "env": short_env,
    }
    with pytest.raises(DataError, match="clip_actions=True"):
        save_arrays(NEW, **given)
    done = save_arrays(NEW, **given, clip_actions=True)
    assert done.episodes.action.ravel().tolist() == [1, 0.5, -1]  # of [−2, 2]
    assert done.clipped is not None
    assert done.clipped.env_steps == 1


def test_what_is_not_finite_is_not_hidden_by_clipping(folder: Path) -> None:
    for value in (np.inf, -np.inf, np.nan):
        path = log(folder / "log.npz", np.array([[0.0, value], [0.0, 0.0]]))
        with pytest.raises(DataError, match="actions are NaN, infinite"):
            import_file(path, NEW, Setting(None, [-1], [1], clip_actions=True), None)


def test_nothing_is_said_where_nothing_was_asked(folder: Path) -> None:
    path = log(folder / "log.npz", np.clip(ACTIONS, -1, 1))
    import_file(path, NEW, Setting(None, [-1], [1]), None)
    assert clipped_in(open_minari(NEW).metadata) is None
    assert "import_notes" not in open_minari(NEW).metadata


@pytest.mark.parametrize(
    "odd", [5, "x", [], {}, {"env_steps": "a", "of": 1, "share_by_dimension": []}]
)
def test_what_strangers_write_in_its_place_is_passed_over(odd: Any) -> None:
    assert clipped_in({"clipped_actions": odd}) is None


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8),
    low=st.floats(-100, 99),
    width=st.floats(0.01, 100),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.int32]),
)
def test_clipped_actions_lie_within_bounds_of_any_type_and_others_stay_as_they_were(
    values: list[float], low: float, width: float, dtype: Any
) -> None:
    """Bounds of float64 that float32 can't hold are not passed by rounding."""
    with np.errstate(over="ignore"):
        actions = np.clip(values, -6e4, 6e4).astype(dtype)[:, None]
    high = low + width
    space = gym.spaces.Box(np.array([low]), np.array([high]), dtype=np.float64)
    plain = plain_recording(lengths=(len(actions),))
    made = replace(plain, actions=actions, action_space=space)
    recording, clipped = within_bounds(made, clip=True)
    found = recording.actions.astype(np.float64)
    given_numbers = actions.astype(np.float64)
    inside = (given_numbers >= low) & (given_numbers <= high)
    room = np.finfo(recording.actions.dtype).eps * max(abs(low), abs(high)) * 2
    if width > room:  # otherwise no number of that type lies between them
        assert ((found >= low) & (found <= high)).all()
    assert np.array_equal(found[inside], actions[inside])
    assert clipped is not None
    assert clipped.of == len(actions)
    assert clipped.env_steps <= (~inside).sum()
    if actions.dtype.kind == "f":
        assert recording.actions.dtype == actions.dtype

"""Logs that don't say where episodes end: limits, missing rows and episode numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baq_cli.data.exchange import import_file
from baq_cli.data.logs.cutting import CutRules
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.folder import local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes
from baq_cli.errors import DataError, ExitStatus
from support.logs import (
    NEW,
    Columns,
    bounded,
    d4rl_arrays,
    ends,
    import_d4rl,
    short_arrays,
    write_d4rl,
)


@pytest.mark.parametrize(
    ("rules", "lengths"),
    [
        (CutRules(), [3, 1, 3, 1]),
        (CutRules(max_episode_steps=2), [2, 2, 2, 2]),
        (CutRules(only_terminations=True), [4, 4]),
    ],
    ids=["the environment's limit", "a limit given", "only terminations"],
)
def test_without_timeouts_the_environments_limit_decides_unless_another_rule_is_given(
    rules: CutRules, lengths: list[int], short_env: str, folder: Path
) -> None:
    path = write_d4rl(folder / "a.hdf5", short_arrays())
    done = import_file(path, NEW, Setting(short_env, rules=rules), None)
    assert done.episodes.lengths.tolist() == lengths
    assert np.flatnonzero(done.episodes.terminated).tolist() == [3]
    spec = open_minari(NEW).env_spec
    assert spec is not None
    assert (spec.id, spec.max_episode_steps) == (short_env, 3)


def test_without_timeouts_limit_or_environment_a_file_is_refused_with_the_flags_that_decide(
    baq_here: Callable[..., tuple[int, str, str]], folder: Path
) -> None:
    path = write_d4rl(folder / "a.hdf5", short_arrays())
    words = ("data", "import", path, "--id", NEW, "--action-low", "-2", "--action-high", "2")
    status, _, said = baq_here(*words)
    assert status == ExitStatus.DATA
    assert "--max-episode-steps" in said
    assert "--only-terminations" in said
    assert local_datasets() == []
    assert baq_here(*words, "--only-terminations")[0] == 0
    assert load_episodes(NEW).lengths.tolist() == [4, 4]


def test_a_jump_of_the_observations_is_no_end(folder: Path) -> None:
    arrays = short_arrays(recorded=False)
    arrays["observations"][6] = 1e6
    path = write_d4rl(folder / "a.hdf5", arrays)
    done = import_file(path, NEW, bounded(CutRules(only_terminations=True), 2), None)
    assert ends(done.episodes) == [(4, True, False), (3, False, True)]


def gappy(**more: Any) -> Columns:
    """Return six rows of which those after rows 1 and 3 are missing."""
    return {
        "observations": np.array([[0.0], [1], [3], [4], [7], [8]]),
        "next_observations": np.array([[1.0], [2], [4], [5], [8], [9]]),
        "actions": np.linspace(-1, 1, 6)[:, None],
        "rewards": np.arange(6.0),
        "terminals": np.zeros(6, dtype=bool),
        "timeouts": np.arange(6) == 5,
        **more,
    }


NUMBERED = gappy(episode_ids=np.array([0, 0, 0, 0, 1, 1]))


def test_missing_rows_are_refused_with_their_count_and_place(folder: Path) -> None:
    with pytest.raises(DataError, match=r"in 2 of 6 rows, first in row 1, .*--split-gaps"):
        import_d4rl(folder, gappy())
    assert local_datasets() == []


def test_missing_rows_inside_a_numbered_episode_are_refused_too(folder: Path) -> None:
    """Otherwise row 1 would lead to row 2's observation, and not to the one recorded."""
    with pytest.raises(DataError, match="in 1 of 6 rows, first in row 1"):
        import_d4rl(folder, NUMBERED)


def test_split_gaps_begins_an_episode_at_each(folder: Path) -> None:
    done = import_d4rl(folder, gappy(), CutRules(split_gaps=True))
    assert ends(done.episodes) == [(2, False, True)] * 3
    assert done.episodes.next_obs.ravel().tolist() == [1, 2, 4, 5, 8, 9]
    assert done.lost == 0


def test_split_gaps_splits_numbered_episodes_too(folder: Path) -> None:
    done = import_d4rl(folder, NUMBERED, CutRules(split_gaps=True))
    assert done.episodes.next_obs.ravel().tolist() == [1, 2, 4, 5, 8, 9]
    assert done.episodes.lengths.tolist() == [2, 2, 2]


def test_an_episode_whose_number_comes_back_is_refused(folder: Path) -> None:
    arrays = d4rl_arrays([0] * 6, None, 6, False)
    with pytest.raises(DataError, match=r"number comes back .*Sort the rows"):
        import_d4rl(folder, {**arrays, "episode_ids": np.array([4, 4, 7, 7, 4, 4])})


def test_episode_numbers_need_only_differ(folder: Path) -> None:
    arrays = d4rl_arrays([0, 0, 1, 0, 0, 0], None, 6, False)
    done = import_d4rl(folder, {**arrays, "episode_ids": np.array([9, 9, 9, 2, 2, 2])})
    assert ends(done.episodes) == [(3, True, False), (2, False, True)]

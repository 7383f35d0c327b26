"""D4RL's files: the transitions that `qlearning_dataset` makes of them, and what lies beside."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from baq_cli.data.checks import content_findings
from baq_cli.data.episodes import Episodes
from baq_cli.data.exchange import export_file
from baq_cli.data.logs.cutting import CutRules
from baq_cli.data.logs.d4rl import read_d4rl
from baq_cli.data.logs.logfile import to_recording
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.errors import DataError
from support.logs import NEW, Columns, bounded, d4rl_arrays, end_rows, ends, import_d4rl, write_d4rl

PARITY = CutRules(drop_last_truncated=True)
Transition = tuple[Any, ...]


def qlearning_dataset(arrays: Columns, limit: int | None) -> list[Transition]:
    """D4RL's function of this name with terminate_on_end=False, written anew: (s, a, r, s', d).

    One thing is not D4RL's: there, steps after a termination are counted from 1 (see below).
    """
    out, episode_step = [], 0
    for i in range(len(arrays["rewards"]) - 1):
        if "next_observations" in arrays:
            new_obs = arrays["next_observations"][i]
        else:
            new_obs = arrays["observations"][i + 1]
        done = bool(arrays["terminals"][i])
        final = arrays["timeouts"][i] if "timeouts" in arrays else episode_step == limit - 1
        episode_step += 1
        if final or done:
            episode_step = 0
        if not final:
            out.append(transition(arrays, i, new_obs, done))
    return out


def every_known_transition(arrays: Columns, limit: int | None) -> list[Transition]:
    """All rows, truncated ends only where their next observation is recorded."""
    out, last = [], end_rows(arrays, limit)
    for i, done in enumerate(arrays["terminals"].tolist()):
        if "next_observations" in arrays:
            out.append(transition(arrays, i, arrays["next_observations"][i], done))
        elif done or i not in last:
            out.append(transition(arrays, i, None if done else arrays["observations"][i + 1], done))
    return out


def transition(arrays: Columns, row: int, new_obs: Any, done: bool) -> Transition:
    """Return one transition; the next observation after a termination is compared if recorded."""
    if done and "next_observations" not in arrays:
        new_obs = None
    state = arrays["observations"][row].tolist(), arrays["actions"][row].tolist()
    return (*state, float(arrays["rewards"][row]), None if new_obs is None else [*new_obs], done)


def transitions(episodes: Episodes, arrays: Columns) -> list[Transition]:
    """Return the imported transitions in the same form."""
    hidden = episodes.terminated & ("next_observations" not in arrays)
    fields = (episodes.obs, episodes.action, episodes.reward, episodes.next_obs)
    flags = (episodes.terminated, hidden)
    return [
        (obs, action, reward, None if hide else next_obs, done)
        for obs, action, reward, next_obs, done, hide in zip(
            *(array.tolist() for array in (*fields, *flags)), strict=True
        )
    ]


# a termination, a timeout, both at once, a timeout after one step, and an episode cut off
TERMINALS = [0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
TIMEOUTS_ = [0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0]
timed_or_not = pytest.mark.parametrize("timed", [True, False], ids=["timeouts", "limit"])
recorded_or_not = pytest.mark.parametrize("recorded", [True, False], ids=["next", "no next"])


@timed_or_not
@recorded_or_not
def test_a_d4rl_file_without_its_last_truncated_transitions_is_what_d4rl_makes_of_it(
    timed: bool, recorded: bool, folder: Path
) -> None:
    limit = None if timed else 3
    arrays = d4rl_arrays(TERMINALS, TIMEOUTS_ if timed else None, limit, recorded)
    done = import_d4rl(folder, arrays, CutRules(limit, drop_last_truncated=True))
    expected = qlearning_dataset(arrays, limit)
    assert transitions(done.episodes, arrays) == expected
    # timeouts: rows 5, 7, 8 and 12; the limit: rows 2, 5, 10 and 12
    assert done.lost == len(TERMINALS) - len(expected) == 4
    assert transitions(load_episodes(NEW), arrays) == expected


@timed_or_not
@recorded_or_not
def test_a_d4rl_file_keeps_a_last_truncated_transition_if_its_next_observation_is_recorded(
    timed: bool, recorded: bool, folder: Path
) -> None:
    limit = None if timed else 3
    arrays = d4rl_arrays(TERMINALS, TIMEOUTS_ if timed else None, limit, recorded)
    done = import_d4rl(folder, arrays, CutRules(limit))
    assert transitions(done.episodes, arrays) == every_known_transition(arrays, limit)
    # not recorded: timeouts lose rows 5, 8 and 12, the limit rows 5, 10 and 12
    assert done.lost == (0 if recorded else 3)


def test_the_ends_of_a_d4rl_file_are_those_of_its_flags(folder: Path) -> None:
    arrays = d4rl_arrays(TERMINALS, TIMEOUTS_, None, True)
    assert ends(import_d4rl(folder, arrays).episodes) == [
        (3, True, False),
        (3, False, True),
        (2, True, True),
        (1, False, True),
        (4, False, True),
    ]
    parity = import_d4rl(folder, arrays, PARITY, "me/parity-v0").episodes
    assert ends(parity) == [(3, True, False), (2, False, True), (1, False, True), (3, False, True)]


def test_d4rl_leaves_out_the_last_row_even_where_it_terminated(folder: Path) -> None:
    arrays = d4rl_arrays([0, 1, 0, 1], [0, 0, 0, 0], None, True)
    assert ends(import_d4rl(folder, arrays).episodes) == [(2, True, False)] * 2
    parity = import_d4rl(folder, arrays, PARITY, "me/parity-v0")
    assert ends(parity.episodes) == [(2, True, False), (1, False, True)]
    assert parity.lost == 1


def test_the_next_observation_after_a_termination_is_never_one_of_the_next_episode(
    folder: Path,
) -> None:
    done = import_d4rl(folder, d4rl_arrays([0, 1, 0, 0], [0, 0, 0, 1], None, False))
    assert done.episodes.next_obs.tolist() == [[1, -0.5], [1, -0.5], [3, -2.5]]


flags = st.lists(
    st.sampled_from([(0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (1, 1)]), min_size=2, max_size=16
)


@given(flags, st.booleans(), st.booleans(), st.integers(1, 5), st.booleans())
def test_whatever_the_flags_no_transition_differs_from_d4rls(
    pairs: list[tuple[int, int]], timed: bool, recorded: bool, steps: int, drop: bool
) -> None:
    limit = None if timed else steps
    terminals, timeouts = (list(column) for column in zip(*pairs, strict=True))
    arrays = d4rl_arrays(terminals, timeouts if timed else None, limit, recorded)
    expected = (qlearning_dataset if drop else every_known_transition)(arrays, limit)
    with tempfile.TemporaryDirectory() as place:
        log = read_d4rl(write_d4rl(Path(place) / "a.hdf5", arrays))
    setting = bounded(CutRules(limit, drop_last_truncated=drop))
    if not expected:
        with pytest.raises(DataError, match="no transition of the log can be kept"):
            to_recording(log, setting)
        return
    recording, lost = to_recording(log, setting)
    episodes = recording.episodes(NEW)
    assert transitions(episodes, arrays) == expected
    assert lost == len(terminals) - len(expected)
    assert all(terminated or truncated for _, terminated, truncated in ends(episodes))
    assert not [f for f in content_findings(episodes) if f.level == "error"]


@pytest.mark.parametrize("terminal", [0, 1], ids=["cut off", "terminated"])
@recorded_or_not
def test_a_file_of_one_row_is_one_transition_if_anything_follows_or_it_terminated(
    recorded: bool, terminal: int, folder: Path
) -> None:
    arrays = d4rl_arrays([terminal], [0], None, recorded)
    if not recorded and not terminal:
        with pytest.raises(DataError, match="no transition of the log can be kept"):
            import_d4rl(folder, arrays)
        return
    done = import_d4rl(folder, arrays)
    assert transitions(done.episodes, arrays) == every_known_transition(arrays, None)
    assert ends(done.episodes) == [(1, bool(terminal), not terminal)]


def test_after_a_termination_the_limit_counts_from_the_next_episodes_first_step(
    folder: Path,
) -> None:
    """D4RL counts from its second there, and leaves out row 3 instead of row 4, the true last.

    What it keeps as row 4's next observation is the first of another episode.
    """
    arrays = d4rl_arrays([0, 1, 0, 0, 0, 0, 0], None, 3, False)
    done = import_d4rl(folder, arrays, CutRules(3, drop_last_truncated=True))
    assert (done.episodes.reward - 100).tolist() == [0, 1, 2, 3, 5]
    assert done.episodes.lengths.tolist() == [2, 2, 1]


# -- what lies beside the rows


def rich_arrays() -> Columns:
    """Return a D4RL file as D4RL's are: infos, notes and a policy's weights."""
    rows = len(TERMINALS)
    return {
        **d4rl_arrays(TERMINALS, TIMEOUTS_, None, True),
        "infos/qpos": np.arange(3.0 * rows).reshape(rows, 3),
        "infos/contact/left": np.arange(rows, dtype=np.int32),
        "infos/names": np.array([b"x"] * rows),
        "infos/goal": np.ones(2),
        "metadata/algorithm": b"SAC",
        "metadata/iteration": 7,
        "metadata/entropy": 0.25,
        "metadata/policy/nonlinearity": "relu",
        "metadata/policy/fc0/weight": np.ones((4, 4)),
        "metadata/policy/fc0/bias": np.ones(4),
    }


NOTES = {"algorithm": "SAC", "iteration": 7, "entropy": 0.25, "policy/nonlinearity": "relu"}


def test_infos_and_notes_are_imported(folder: Path) -> None:
    """That they survive an export in any format is a law of the round trips."""
    arrays = rich_arrays()
    import_d4rl(folder, arrays)
    recording = read_recording(open_minari(NEW))
    assert set(recording.infos) == {"qpos", "contact/left"}
    for name, info in recording.infos.items():
        assert info.dtype == arrays[f"infos/{name}"].dtype
        assert_array_equal(info, arrays[f"infos/{name}"])
    assert recording.about["d4rl_metadata"] == NOTES
    assert recording.about["description"] == "Imported from a.hdf5."


def test_an_exported_d4rl_file_has_infos_and_notes_in_their_places(folder: Path) -> None:
    arrays = rich_arrays()
    import_d4rl(folder, arrays)
    export_file(NEW, "d4rl", folder / "out.hdf5")
    with h5py.File(folder / "out.hdf5") as file:
        for name in ("observations", "next_observations", "actions", "rewards", "infos/qpos"):
            assert_array_equal(file[name][()], arrays[name])
            assert file[name].dtype == np.asarray(arrays[name]).dtype
        assert_array_equal(file["terminals"][()], arrays["terminals"])
        assert set(file["metadata"]) == {"algorithm", "iteration", "entropy", "policy", "baq"}
        assert set(file["metadata/policy"]) == {"nonlinearity"}
        assert file["metadata/algorithm"][()] == b"SAC"
        assert file["metadata/iteration"][()] == 7


@pytest.mark.parametrize("note", [0, 0.0, False])
def test_a_note_of_zero_is_a_note(note: Any, tmp_path: Path) -> None:
    arrays = {**d4rl_arrays(TERMINALS, TIMEOUTS_, None, True), "metadata/iteration": note}
    log = read_d4rl(write_d4rl(tmp_path / "a.hdf5", arrays))
    assert log.about == {"d4rl_metadata": {"iteration": note}}


def test_infos_are_cut_with_their_steps(folder: Path) -> None:
    arrays = d4rl_arrays([0, 1, 0, 0], [0, 0, 0, 1], None, False)
    import_d4rl(folder, {**arrays, "infos/qpos": np.array([5, 6, 7, 8])})
    assert read_recording(open_minari(NEW)).infos["qpos"].tolist() == [5, 6, 7]

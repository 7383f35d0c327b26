"""Logs without rewards, and OGBench's: rows that hold an observation and an idle action."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.data.exchange import import_file
from baq_cli.data.logs.cutting import FlatLog
from baq_cli.data.logs.layouts import said, with_last_observations
from baq_cli.data.logs.mapping import parse_mapping
from baq_cli.data.minari.folder import local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes
from baq_cli.errors import BaqError, DataError, UsageError
from baq_cli.units import amount
from support.advice import follows
from support.logs import BOUNDS, FORMS, NEW, bounded, ends, import_table, write_table
from support.recordings import few, own_folders

Command = Callable[..., tuple[int, str, str]]
ZERO = {"constant": 0}


def ogbench(lengths: tuple[int, ...] = (4, 3)) -> dict[str, Any]:
    """Return OGBench's arrays, each number another; a trajectory of T rows has T − 1 steps."""
    rows = sum(lengths)
    index = np.arange(float(rows))
    return {
        "observations": np.stack([index, 100 + index], axis=1),
        "actions": (index[:, None] - rows) / rows,
        "terminals": np.isin(np.arange(rows), np.cumsum(lengths) - 1).astype("f4"),
        "qpos": np.zeros((rows, 5)),
        "qvel": np.zeros((rows, 5)),
    }


@few
@given(lengths=st.lists(st.integers(2, 6), min_size=1, max_size=4).map(tuple))
def test_t_rows_are_t_minus_one_transitions_as_ogbenchs_reader_has_them(
    lengths: tuple[int, ...],
) -> None:
    """Its `load_dataset` written anew: the last row's observation is the next one, no more."""
    arrays = ogbench(lengths)
    with own_folders() as folder:
        np.savez(folder / "log.npz", **arrays)
        done = import_file(folder / "log.npz", NEW, bounded(), said(None, "ogbench", reward=ZERO))
        loaded = load_episodes(NEW)
    steps = arrays["terminals"] == 0
    following = np.append(False, steps[:-1])
    assert loaded.obs.tolist() == arrays["observations"][steps].tolist()
    assert loaded.next_obs.tolist() == arrays["observations"][following].tolist()
    assert np.allclose(loaded.action, arrays["actions"][steps])
    assert loaded.reward.tolist() == [0] * (sum(lengths) - len(lengths))
    assert ends(loaded) == [(length - 1, False, True) for length in lengths]
    assert done.lost == 0
    of = amount(len(lengths), "episode")
    assert f"each episode's last row is its final observation: {of}" in done.notes


@follows("the log is laid out as OGBench's are (qpos and qvel beside the observations, no rewards)")
@pytest.mark.parametrize("form", ["npz", "hdf5"])
def test_ogbenchs_layout_is_recognised_and_asked_about(
    form: str, folder: Path, baq_here: Command
) -> None:
    path = folder / f"log.{form}"
    if form == "npz":
        np.savez(path, **ogbench())
    else:
        with h5py.File(path, "w") as file:
            file.update(ogbench())
    words = ("data", "import", path, "--id", NEW, *BOUNDS)
    for more in ((), ("--reward", "constant:0")):  # a reward alone doesn't make rows steps
        status, _, text = baq_here(*words, *more)
        assert status == 2
        assert "--layout ogbench" in text
        assert "--reward constant:0" in text
    assert local_datasets() == []
    status, out, text = baq_here(*words, "--layout", "ogbench", "--reward", "constant:0")
    assert status == 0, text
    assert "2 episodes, 5 steps" in out
    words = (*words[:4], "me/steps-v0", *words[5:], "--layout", "steps", "--only-terminations")
    status, out, text = baq_here(*words, "--reward", "constant:0")
    assert status == 0, text
    assert "2 episodes, 7 steps" in out
    assert open_minari(NEW).metadata["import_notes"][0] == "every reward is 0, as you said"


def test_a_log_that_has_rewards_is_not_taken_for_ogbenchs(folder: Path) -> None:
    np.savez(folder / "log.npz", **ogbench(), rewards=np.arange(7.0), timeouts=np.zeros(7))
    assert import_file(folder / "log.npz", NEW, bounded(), None).episodes.lengths.tolist() == [4, 3]


@pytest.mark.parametrize("installed", [None, "1.1.5"])
@pytest.mark.parametrize("form", ["npz", "hdf5"])
def test_rewards_that_ogbenchs_relabelling_made_are_read_and_said(
    form: str, installed: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row's reward is that of the state it begins in; the last row's is of no step."""

    def version(name: str) -> str:
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr("baq_cli.data.logs.layouts.version", version)
    arrays = {**ogbench(), "rewards": -np.arange(7.0), "masks": np.ones(7)}
    if form == "npz":
        np.savez(folder / "log.npz", **arrays)
    else:
        with h5py.File(folder / "log.hdf5", "w") as file:
            file.update(arrays)
    done = import_file(folder / f"log.{form}", NEW, bounded(), said(None, "ogbench"))
    assert done.episodes.reward.tolist() == [0, -1, -2, -4, -5]
    told = next(note for note in done.notes if note.startswith("OGBench: "))
    assert "the rewards are the file's own" in told
    assert "r(s), and so do its singletask environments since 1.2.0" in told
    assert told.endswith("; ogbench 1.1.5 is installed here") == (installed is not None)
    kept = open_minari(NEW).metadata.get("ogbench")
    assert kept == (None if installed is None else {"installed": installed})


def test_ogbenchs_own_files_hold_no_rewards_and_that_is_said(folder: Path) -> None:
    np.savez(folder / "log.npz", **ogbench())
    done = import_file(folder / "log.npz", NEW, bounded(), said(None, "ogbench", reward=ZERO))
    assert any(note.startswith("OGBench: no rewards are read; ") for note in done.notes)
    assert "every reward is 0, as you said" in done.notes


@pytest.mark.parametrize("flag", ["terminated", "truncated", "episode"])
@pytest.mark.parametrize("form", FORMS)
def test_a_mapping_says_that_last_rows_are_observations(flag: str, form: str, folder: Path) -> None:
    columns = {"o": [1.0, 2, 3, 4, 5], "a": [0.1, 0.2, 0.9, 0.4, 0.9], "r": [1.0, 2, 9, 4, 9]}
    columns["t"] = [0, 0, 1, 0, 1] if flag != "episode" else [3, 3, 3, 7, 7]
    asked = {"observation": "o", "action": "a", "reward": "r", flag: "t"}
    done = import_table(write_table(form, folder, columns), {**asked, "last_row": "observation"})
    assert done.episodes.reward.tolist() == [1, 2, 4]
    assert done.episodes.next_obs.ravel().tolist() == [2, 3, 5]
    over = flag == "terminated"
    assert ends(done.episodes) == [(2, over, not over), (1, over, not over)]


def test_an_action_of_a_last_row_is_read_by_nobody(folder: Path) -> None:
    """It may be NaN, or beyond every bound."""
    columns = {"o": [1.0, 2, 3, 4], "a": [0.1, None, 0.4, 99], "t": [0, 1, 0, 1]}
    asked = {"observation": "o", "action": "a", "reward": ZERO, "truncated": "t"}
    path = write_table("csv", folder, columns)
    done = import_table(path, {**asked, "last_row": "observation"})
    assert done.episodes.obs.ravel().tolist() == [1, 3]


def test_an_episode_of_one_row_is_refused_with_its_place() -> None:
    log = FlatLog(
        {"": np.zeros((4, 1))}, np.zeros((4, 1)), np.zeros(4), np.array([0, 1, 1, 1], bool)
    )
    with pytest.raises(DataError, match=r"row 2 \(from 0\) is an episode of its own"):
        with_last_observations(log)


def test_last_rows_are_steps_where_next_observations_are_recorded(folder: Path) -> None:
    columns = {"o": [1.0, 2], "n": [2.0, 3], "a": [0.1, 0.2], "r": [1.0, 2], "t": [0, 1]}
    asked = {"observation": "o", "next_observation": "n", "action": "a", "reward": "r"}
    asked |= {"truncated": "t", "last_row": "observation"}
    with pytest.raises(UsageError, match="a step like any other"):
        import_table(write_table("csv", folder, columns), asked)


# -- rewards


@pytest.mark.parametrize("form", [*FORMS, "hdf5"])
def test_a_log_without_rewards_names_the_option_and_takes_it(
    form: str, folder: Path, baq_here: Command
) -> None:
    columns = {"observations": [1.0, 2, 3], "actions": [0.5, 0, 0.5], "terminals": [0, 0, 1]}
    columns["timeouts"] = [0, 0, 0]
    path = folder / f"log.{form}"
    if form == "hdf5":
        with h5py.File(path, "w") as file:
            file.update({name: np.array(column) for name, column in columns.items()})
    else:
        write_table(form, folder, columns)
    words = ("data", "import", path, "--id", NEW, *BOUNDS)
    status, _, text = baq_here(*words)
    assert status == 3
    assert "--reward constant:0" in text
    status, _, text = baq_here(*words, "--reward=constant:-0.5")
    assert status == 0, text
    assert load_episodes(NEW).reward.tolist() == [-0.5] * 3


@pytest.mark.parametrize("reward", [None, "gone", ZERO, {"constant": 2.5}])
def test_a_mapping_names_a_reward_or_says_it(reward: Any, folder: Path) -> None:
    path = write_table("csv", folder, {"o": [1.0, 2], "a": [0, 0.5], "t": [0, 1]})
    asked = {"observation": "o", "action": "a", "terminated": "t", "truncated": "t"}
    if not isinstance(reward, dict):
        with pytest.raises(UsageError, match="--reward constant:0"):
            import_table(path, {**asked, "reward": reward})
    else:
        done = import_table(path, {**asked, "reward": reward})
        assert done.episodes.reward.tolist() == [reward["constant"]] * 2


def test_rows_without_an_action_have_no_constant_reward(folder: Path) -> None:
    """They are final observations, as in a log with rewards."""
    columns = {"o": [1.0, 2, 3], "a": [0.5, 0.25, None], "t": [0, 1, None]}
    asked = {"observation": "o", "action": "a", "truncated": "t", "reward": ZERO}
    done = import_table(write_table("csv", folder, columns), asked)
    assert done.episodes.next_obs.ravel().tolist() == [2, 3]
    assert done.lost == 0


def test_a_mapping_may_leave_the_names_to_custom(folder: Path) -> None:
    path = write_table("csv", folder, {"obs": [1.0, 2], "action": [0, 0.5], "truncated": [0, 1]})
    assert import_table(path, {"reward": ZERO}).episodes.obs.tolist() == [[1]]
    with pytest.raises(UsageError, match="none of the observation and the action"):
        parse_mapping({"terminated": "t"}, "m")


@pytest.mark.parametrize(
    ("layout", "mapping"),
    [("d4rl", None), ("ogbench", {"observation": "o", "action": "a", "reward": "r"})],
)
def test_a_layout_that_is_none_or_said_twice_is_refused(layout: str, mapping: Any) -> None:
    with pytest.raises(BaqError, match="--layout"):
        said(None if mapping is None else parse_mapping(mapping, "m"), layout)

"""Logs without rewards that mark success: rewards made of the marks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.data.card import card
from baq_cli.data.logs.success import marks_column
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.errors import DataError, UsageError
from support.advice import Terminal, follows
from support.logs import BOUNDS, FORMS, NEW, Columns, import_table, write_table
from support.recordings import few, own_folders

Command = Callable[..., tuple[int, str, str]]
ASKED = {"observation": "o", "action": "a", "truncated": "t", "reward": {"success": "success"}}


def log(marks: list[Any], ends: list[int], **more: Any) -> Columns:
    """Return a log by usual names, without rewards; `ends` are the rows that are truncated."""
    count = len(marks)
    base = {"obs": [float(k) for k in range(count)], "action": [0.25, 0.5] * (count // 2)}
    truncated = [int(k in ends) for k in range(count)]
    following = [k + 1.0 for k in range(count)]
    return {**base, "truncated": truncated, "next_obs": following, "success": marks, **more}


@pytest.mark.parametrize("form", [*FORMS, "hdf5"])
def test_marked_steps_are_rewards_in_every_format(
    form: str, folder: Path, baq_here: Command
) -> None:
    columns = log([0, 1, 0, 0, 1, 0], [1, 5])
    if form == "hdf5":
        path = folder / "log.hdf5"
        with h5py.File(path, "w") as file:
            file.update({name: np.asarray(column) for name, column in columns.items()})
    else:
        path = write_table(form, folder, columns)
    words = ("data", "import", path, "--id", NEW, *BOUNDS)
    status, _, text = baq_here(*words, "--reward-from", "success")
    assert status == 0, text
    said = "the reward is 1 at 2 steps in 2 of 2 episodes that 'success' marks, 0 elsewhere"
    assert said in text
    assert "not used" not in text
    loaded = load_episodes(NEW)
    assert loaded.reward.tolist() == [0, 1, 0, 0, 1, 0]
    assert loaded.lengths.tolist() == [2, 4]
    stored = open_minari(NEW)
    assert any(said in note for note in card(loaded, stored.metadata)["import_notes"])
    assert read_recording(stored).infos["success"].tolist() == [0, 1, 0, 0, 1, 0]


def test_a_mark_of_a_whole_episode_is_a_reward_at_its_last_step(folder: Path) -> None:
    """The column says the same in every row of an episode: it was written once it was over."""
    columns = log([1, 1, 1, -1, -1, 1], [2, 4, 5])
    done = import_table(write_table("csv", folder, columns), {"reward": {"success": "success"}})
    assert done.episodes.reward.tolist() == [0, 0, 1, 0, 0, 1]
    assert done.notes[-1] == (
        "'success' marks whole episodes: the reward is 1 at the last step of 2 of 3 episodes, "
        "0 elsewhere"
    )


def test_a_mark_that_stays_on_counts_at_every_step(folder: Path) -> None:
    columns = log([0, 1, 1, 0, 0, 0], [2, 5])
    done = import_table(write_table("csv", folder, columns), {"reward": {"success": "success"}})
    assert done.episodes.reward.tolist() == [0, 1, 1, 0, 0, 0]


@few
@given(
    lengths=st.lists(st.integers(2, 5), min_size=1, max_size=4),
    bare=st.booleans(),
    data=st.data(),
)
def test_a_mark_of_a_row_that_is_no_step_is_its_episodes_last(
    lengths: list[int], bare: bool, data: st.DataObject
) -> None:
    """Without next observations an episode's last row is lost, or an observation alone."""
    rows = sum(lengths)
    last = np.cumsum(lengths) - 1
    marks = np.array(data.draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))
    action: list[float | None] = [0.25, 0.5] * rows
    if bare:
        action = [None if k in last else action[k] for k in range(rows)]
    columns = {
        "o": [float(k) for k in range(rows)],
        "a": action[:rows],
        "t": [int(k in last) for k in range(rows)],
        "success": marks.tolist(),
    }
    with own_folders() as folder:
        done = import_table(write_table("csv", folder, columns), ASKED)
    expected: list[int] = []
    each = [marks[stop + 1 - n : stop + 1] for stop, n in zip(last, lengths, strict=True)]
    moved = [np.append(m[:-2], m[-2] or m[-1]) for m in each]
    whole = all(len(set(m.tolist())) == 1 for m in moved) and max(lengths) > 2
    for m in moved:
        expected += [*([0] * (len(m) - 1)), m[-1]] if whole else m.tolist()
    assert done.episodes.reward.tolist() == expected


def test_marks_go_with_rows_that_are_put_in_order(folder: Path) -> None:
    """Two robots that write in turn: rows are reordered, and their marks with them."""
    columns = log([0, 0, 0, 1, 1, 0], [])
    columns |= {"episode": [0, 1, 0, 1, 0, 1], "step": [0, 0, 1, 1, 2, 2]}
    columns |= {"obs": [0.0, 10, 1, 11, 2, 12], "next_obs": [1.0, 11, 2, 12, 3, 13]}
    del columns["truncated"]
    done = import_table(write_table("npz", folder, columns), {"reward": {"success": "success"}})
    assert done.episodes.obs.ravel().tolist() == [0, 1, 2, 10, 11, 12]
    assert done.episodes.reward.tolist() == [0, 0, 1, 0, 1, 0]


def test_files_of_one_log_are_judged_together(folder: Path, baq_here: Command) -> None:
    """One file marks its only episode whole; the other shows that marks are of steps."""
    for name, marks in (("a", [1, 1]), ("b", [0, 1])):
        write_table("csv", folder, log(marks, [1])).rename(folder / f"{name}.csv")
    files = [folder / "a.csv", folder / "b.csv"]
    words = ("data", "import", *files, "--id", NEW, *BOUNDS, "--reward-from", "success")
    status, _, text = baq_here(*words)
    assert status == 0, text
    assert load_episodes(NEW).reward.tolist() == [1, 1, 0, 1]
    assert text.count("the reward is 1") == 1


def test_a_column_is_found_by_what_it_means() -> None:
    assert marks_column("success", ["next.success", "obs"]) == "next.success"
    assert marks_column("success", ["infos/is_success", "obs"]) == "infos/is_success"
    assert marks_column("success", ["success", "next.success"]) == "success"


@follows(
    "a log without rewards takes --reward constant:0, or another number; where a column marks "
    "success, --reward-from {} makes a reward of each mark",
    "--reward-from {}: it could be {}. Give one of these names whole",
    "--reward and --reward-from both say what the reward is: give one of them",
    ". {} of these steps end a truncated episode, whose value goes on after it: where success ends "
    "the task, say --ends terminated={}",
)
def test_a_log_without_rewards_names_its_marks_and_takes_them(
    terminal: Terminal, folder: Path
) -> None:
    columns = log([0, 0, 0, 1], [3])
    columns["next.success"] = columns.pop("success")
    path = write_table("csv", folder, columns)

    def words(name: str, *more: str) -> tuple[str | Path, ...]:
        return ("data", "import", path, "--id", f"me/{name}-v0", *BOUNDS, *more)

    said = terminal.told(*words("none"), status=3)
    (way,) = re.findall(r"--reward-from \S+", said)
    done = terminal.done(*words("first", *way.split()))
    (end,) = re.findall(r"--ends \S+", done)
    terminal.done(*words("second", *way.split(), *end.split()))
    assert load_episodes("me/second-v0").terminated.tolist() == [False] * 3 + [True]
    terminal.told(*words("both", "--reward", "constant:0", *way.split()))
    terminal.done(*words("constant", "--reward", "constant:0"))
    write_table("csv", folder, {**columns, "is_success": [0, 0, 1, 0]})
    said = terminal.told(*words("two", "--reward-from", "success"))
    terminal.done(*words("two", "--reward-from", re.findall(r"'?([a-z._]*success)'?", said)[-1]))


def test_what_marks_nothing_is_refused(folder: Path) -> None:
    path = write_table("csv", folder, {**log([0, 0.5, 1, 0], [3])})
    with pytest.raises(DataError, match=r"'success' holds 0.5 in row 1 .*reward: COLUMN"):
        import_table(path, {"reward": {"success": "success"}})
    with pytest.raises(UsageError, match="the log has no column 'gone'"):
        import_table(path, {"reward": {"success": "gone"}})
    asked = {"observation": "obs", "action": "action", "truncated": "truncated"}
    done = import_table(path, {**asked, "next_observation": "next_obs", "reward": "success"})
    assert done.episodes.reward.tolist() == [0, 0.5, 1, 0]
    path = write_table("csv", folder, {**log(["yes", "no", "no", "no"], [3])})
    with pytest.raises(DataError, match="'success' holds no numbers"):
        import_table(path, {"reward": {"success": "success"}}, dataset_id="me/other-v0")

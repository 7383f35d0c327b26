"""Ends under other names: used where they mean one thing, asked about otherwise, never passed over.

Every option that a refusal names is tried, and leads to a dataset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from baq_cli.data.exchange import Imported, export_file, import_file, import_files, save_arrays
from baq_cli.data.logs.cutting import CutRules
from baq_cli.data.logs.ends.names import Kind, looks
from baq_cli.data.logs.ends.roles import parse_ends
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.logs.mapping import parse_mapping, with_ends
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import load_episodes
from baq_cli.errors import DataError, UsageError
from support.advice import follows
from support.logs import (
    BOUNDS,
    FORMS,
    NEW,
    Columns,
    bounded,
    ends,
    import_table,
    write_d4rl,
    write_table,
)

Run = Callable[..., tuple[int, str, str]]
ENDS = [0, 0, 1, 0, 0, 0, 1, 1]  # three, one and four steps, from the flags: 3, 4 and 1
NO = [0] * 8


def rows(**more: Any) -> Columns:
    """Return eight rows, each told by its observation."""
    index = np.arange(8)
    base = {"observations": index * 1.0, "actions": (index - 4) / 8, "rewards": index * 2.0}
    return {**base, **more}


def npz(folder: Path, **more: Any) -> Path:
    path = folder / "log.npz"
    np.savez(path, **rows(**more))
    return path


def read(path: Path, *words: str, dataset_id: str = NEW) -> Imported:
    return import_file(path, dataset_id, bounded(), with_ends(None, parse_ends(words)))


def refusal(path: Path, *words: str) -> str:
    with pytest.raises(DataError) as error:
        read(path, *words)
    return str(error.value)


# -- used: what else is known leaves one meaning


@pytest.mark.parametrize(
    "name",
    [
        *("dones", "done", "Done", "next.done", "env/done", "is_last", "isLast", "IS_LAST"),
        *("last", "final", "end", "ends", "episode_end", "episode_ends", "traj_ends"),
        *("truncated", "timeout", "TimeLimit.truncated", "infos/TimeLimit.truncated"),
    ],
)
@pytest.mark.parametrize("form", ["npz", "hdf5"])
def test_ends_beside_terminals_are_truncations(name: str, form: str, folder: Path) -> None:
    """`terminals` says that none of them is a termination; 'limit' would make one episode."""
    columns = rows(terminals=NO, **{name: ENDS})
    path = folder / f"log.{form}"
    if form == "npz":
        np.savez(path, **columns)
    else:
        write_d4rl(path, columns)
    done = read(path)
    # each truncated episode's last row is its final observation; the last has no other
    assert done.episodes.lengths.tolist() == [2, 3]
    assert done.episodes.obs.ravel().tolist() == [0, 1, 3, 4, 5]
    assert done.episodes.next_obs.ravel().tolist() == [1, 2, 4, 5, 6]
    assert not done.episodes.terminated.any()
    assert done.account["ends_from"]["truncated"] == name


@pytest.mark.parametrize("name", ["is_first", "episode_start", "First", "episode_starts"])
def test_firsts_begin_episodes(name: str, folder: Path) -> None:
    firsts = [1, 0, 0, 1, 0, 0, 0, 1]
    done = read(npz(folder, terminals=[0, 0, 1, 0, 0, 0, 0, 1], **{name: firsts}))
    assert ends(done.episodes) == [(3, True, False), (3, False, True), (1, True, False)]


@pytest.mark.parametrize(
    "values", [ENDS, [bool(v) for v in ENDS], np.float16(ENDS), [str(bool(v)) for v in ENDS]]
)
def test_flags_may_be_numbers_of_any_type_or_words(values: Any, folder: Path) -> None:
    done = read(npz(folder, terminals=NO, dones=values))
    assert done.episodes.lengths.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("meta/episode_ends", [3, 7, 8]),
        ("episode_ends", [2, 6, 7]),
        ("episode_starts", [0, 3, 7]),
        ("episode_lengths", [3, 4, 1]),
        ("traj_lens", [3, 4, 1]),
        ("Episode_Index", [5, 5, 5, 6, 6, 6, 6, 7]),
        ("traj_id", ["a", "a", "a", "b", "b", "b", "b", "c"]),
    ],
)
def test_lists_and_numbers_of_episodes_cut_a_log(name: str, values: Any, folder: Path) -> None:
    """Diffusion Policy's `meta/episode_ends` is behind the last rows; others list these."""
    done = read(npz(folder, **{name: values}))
    assert done.episodes.lengths.tolist() == [2, 3]
    assert done.account["ends_from"] == {"episode": name}
    assert "every end counts as truncated" in " ".join(done.notes)


def test_done_beside_truncated_leaves_the_terminations(folder: Path) -> None:
    done = read(npz(folder, truncated=[0, 0, 0, 0, 0, 0, 1, 0], done=ENDS))
    assert ends(done.episodes) == [(3, True, False), (3, False, True), (1, True, False)]


def test_a_counter_of_steps_that_begins_again_is_an_end(folder: Path) -> None:
    done = read(npz(folder, terminals=NO, t=[0, 1, 2, 0, 1, 2, 3, 0]))
    assert done.episodes.lengths.tolist() == [2, 3]
    assert done.account["ends_from"]["truncated"] == "t"


def test_a_d4rl_file_may_have_its_terminals_under_another_name(folder: Path) -> None:
    path = write_d4rl(folder / "a.hdf5", rows(Terminated=[0, 0, 1, 0, 0, 0, 1, 0], timeouts=NO))
    assert ends(read(path).episodes) == [(3, True, False), (4, True, False)]


# -- asked


OPEN: dict[str, Columns] = {
    "done alone": {"done": ENDS},
    "last alone": {"is_last": ENDS},
    "first alone": {"is_first": [1, 0, 0, 1, 0, 0, 0, 1]},
    "reset": {"reset": [1, 0, 0, 1, 0, 0, 0, 1]},
    "a counter alone": {"t": [0, 1, 2, 0, 1, 2, 3, 0]},
    "masks": {"masks": [1, 1, 0, 1, 1, 1, 0, 0]},
    "RLDS": {"is_terminal": ENDS, "truncated": NO},
    "done beside numbers": {"episode": [1, 1, 1, 2, 2, 2, 2, 3], "dones": ENDS},
    "done against both": {"terminals": NO, "timeouts": [0] * 7 + [1], "dones": ENDS},
    "done and last differ": {"terminals": NO, "done": ENDS, "is_last": [0, 1, 0, 0, 0, 0, 0, 1]},
    "numbers against flags": {
        "terminals": [0] * 7 + [1],
        "timeouts": NO,
        "episode_index": [1, 1, 1, 2, 2, 2, 2, 2],
    },
    "a run against flags": {"terminals": NO, "timeouts": NO, "run": [1, 1, 1, 2, 2, 2, 2, 2]},
    "a counter against flags": {
        "terminals": NO,
        "timeouts": [0] * 7 + [1],
        "frame": [0, 1, 2, 0, 1, 2, 3, 4],
    },
    "task_done against flags": {"terminals": NO, "timeouts": [0] * 7 + [1], "task_done": ENDS},
}


@pytest.mark.parametrize("log", OPEN.values(), ids=OPEN)
def test_what_isnt_certain_is_asked_and_every_way_out_leads_out(
    log: Columns, folder: Path, baq_here: Run
) -> None:
    path = npz(folder, **log)
    number = 0

    def run(*more: str) -> tuple[int, str]:
        nonlocal number
        number += 1
        words = ("data", "import", path, "--id", f"me/n{number}-v0", *BOUNDS, *more)
        status, _, said = baq_here(*words)
        return status, said

    def lead_out(said: str, before: tuple[str, ...]) -> int:
        """Follow every way to its end; return how many led to a dataset."""
        ways = re.findall(r"--ends (\S+?=[\w/.]+)", said)
        more = [("--ends", way) for way in ways if way not in before]
        if "--only-terminations" in said and "--only-terminations" not in before and before:
            more.append(("--only-terminations",))
        assert more or "no column says where an episode ends" in said, said
        led = 0
        for way in more:
            status, again = run(*before, *way)
            assert status in (0, 2, 3)
            assert again != said
            led += 1 if status == 0 else 0
            if status == 3 and len(before) < 4:
                led += lead_out(again, (*before, *way))
        return led

    status, said = run()
    assert status == 3
    assert lead_out(said, ()) >= 1


def test_each_role_means_what_it_says(folder: Path) -> None:
    path = npz(folder, done=ENDS)
    asked = refusal(path, "terminated=done")
    assert "--only-terminations" in asked
    assert ends(read(path, "truncated=done").episodes) == [(2, False, True), (3, False, True)]
    assert ends(read(path, "last=done", dataset_id="me/b-v0").episodes) == [
        (2, False, True),
        (3, False, True),
    ]


def test_last_leaves_the_other_flag(folder: Path) -> None:
    fell = [0, 0, 1, 0, 0, 0, 0, 0]
    path = npz(folder, fell=fell, over=ENDS)
    done = read(path, "terminated=fell", "last=over")
    assert ends(done.episodes) == [(3, True, False), (3, False, True)]
    other = read(path, "truncated=fell", "last=over", dataset_id="me/b-v0")
    assert ends(other.episodes) == [(2, False, True), (4, True, False), (1, True, False)]


def test_a_mapping_gives_roles_too_and_flags_win(folder: Path) -> None:
    path = npz(folder, over=ENDS, fell=[0, 0, 1, 0, 0, 0, 0, 0])
    mapping = {"observation": "observations", "action": "actions", "reward": "rewards"}
    done = import_table(path, {**mapping, "terminated": "fell", "ends": {"last": "over"}})
    assert ends(done.episodes) == [(3, True, False), (3, False, True)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["done"], "expected ROLE=COLUMN"),
        (["finished=done"], "no role 'finished'"),
        (["terminated=done", "terminated=x"], "one column"),
        (["terminated=done", "truncated=done"], "two roles"),
        (["episode=a", "runs=b"], "the same"),
        (["terminated=doen"], "no column 'doen'; did you mean 'done'"),
    ],
)
def test_a_wrong_role_is_refused(words: list[str], said: str, folder: Path) -> None:
    path = npz(folder, done=ENDS)
    with pytest.raises(UsageError, match=said):
        read(path, *words)


# -- what the file says of itself


@pytest.mark.parametrize(
    ("name", "value", "numbers"),
    [
        ("total_episodes", 4, ("4", "3")),
        ("num_trajectories", 2, ("2", "3")),
        ("n_episodes", 9, ("9", "3")),
        ("total_steps", 10, ("10", "8")),
        ("episode_length", 2, ("2", "4")),
        ("episode_lengths", [3, 3, 2], ("3 episodes of 2 to 3", "3 of 1 to 4")),
        ("meta/episode_ends", [4, 8], ("2 episodes of 4 to 4", "3 of 1 to 4")),
        ("ep_lens", [3, 4], ("2 episodes of 7", "3 of 8")),
    ],
)
def test_counts_that_the_cut_doesnt_make_are_refused_with_both(
    name: str, value: Any, numbers: tuple[str, str], folder: Path
) -> None:
    flags = {"terminals": [0, 0, 1, 0, 0, 0, 1, 1], "timeouts": NO}
    path = npz(folder, **flags, **{name: value})
    said = refusal(path)
    assert all(number in said for number in numbers)
    assert f"--ends unused={name}" in said
    assert read(path, f"unused={name}").episodes.lengths.tolist() == [3, 4, 1]


def test_counts_that_are_right_pass(folder: Path) -> None:
    told = {"total_episodes": 3, "total_steps": 8, "episode_lengths": [3, 4, 1], "horizon": 4}
    done = read(npz(folder, terminals=ENDS, timeouts=NO, **told))
    assert done.episodes.lengths.tolist() == [3, 4, 1]


def test_attributes_of_hdf5_and_metadata_of_parquet_are_read(folder: Path) -> None:
    path = write_d4rl(folder / "a.hdf5", rows(terminals=ENDS, timeouts=NO))
    with h5py.File(path, "a") as file:
        file.attrs["total_episodes"] = 5
    assert "5 episodes ('total_episodes'), the cut makes 3" in refusal(path)
    columns = {n: np.asarray(v).tolist() for n, v in rows(terminals=ENDS, timeouts=NO).items()}
    table = pyarrow.table(columns).replace_schema_metadata({"num_episodes": "6"})
    parquet.write_table(table, folder / "a.parquet")
    assert "6 episodes ('num_episodes'), the cut makes 3" in refusal(folder / "a.parquet")
    assert len(read(folder / "a.parquet", "unused=num_episodes").episodes.lengths) == 3


def test_the_environments_limit_doesnt_win_over_the_files(short_env: str, folder: Path) -> None:
    """Its limit is 3; the file says that episodes have four steps."""
    path = folder / "a.npz"
    index = np.arange(8.0)
    np.savez(
        path,
        observations=np.stack([index, index, index], axis=1),
        actions=np.linspace(-2, 2, 8)[:, None],
        rewards=index,
        terminals=np.zeros(8),
        max_episode_steps=4,
    )
    with pytest.raises(DataError, match=r"up to 4 steps .* cut after 3.*--max-episode-steps 4"):
        import_file(path, NEW, Setting(short_env), None)
    done = import_file(path, NEW, Setting(short_env, rules=CutRules(4)), None)
    assert done.episodes.lengths.tolist() == [3, 3]


# -- numbers that come back


DAYS = [0, 0, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "more",
    [{"timeouts": [0, 1] * 4}, {"step": [0, 1] * 4}, {"time": [0.0, 0.5] * 4}],
    ids=["flags", "a counter", "a time"],
)
def test_a_second_days_numbers_are_other_episodes(more: Columns, folder: Path) -> None:
    done = read(npz(folder, episode=DAYS, terminals=NO, **more))
    assert done.episodes.lengths.tolist() == [1, 1, 1, 1]
    assert done.episodes.obs.ravel().tolist() == [0, 2, 4, 6]
    assert "another episode each time" in " ".join(done.notes)


@pytest.mark.parametrize("form", FORMS)
def test_rows_written_in_turn_are_put_together_by_their_counter(form: str, folder: Path) -> None:
    columns = {"obs": [0.0, 10, 1, 11, 2, 12, 13], "action": [0.0] * 7, "reward": [1.0] * 7}
    columns |= {"episode": [*"ababab", "b"], "step": [0, 0, 1, 1, 2, 2, 3]}
    if form == "npz":
        np.savez(folder / "log.npz", **columns)
        path = folder / "log.npz"
    else:
        path = write_table(form if form != "d4rl" else "csv", folder, columns)
    done = read(path)
    assert done.episodes.lengths.tolist() == [2, 3]
    assert done.episodes.obs.ravel().tolist() == [0, 1, 10, 11, 12]
    assert done.episodes.next_obs.ravel().tolist() == [1, 2, 11, 12, 13]


def test_rows_written_in_turn_are_put_together_by_recorded_next_observations(folder: Path) -> None:
    columns = {"obs": [0.0, 10, 1, 11], "next_obs": [1.0, 11, 2, 12], "episode": [7, 3, 7, 3]}
    path = folder / "log.npz"
    np.savez(path, action=[0.0] * 4, reward=[1.0] * 4, **columns)
    done = read(path)
    assert sorted(done.episodes.next_obs.ravel().tolist()) == [1, 2, 11, 12]
    assert done.episodes.lengths.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [(DAYS, "a second log begins at 0 again"), ([0, 1] * 4, "several robots write in turn")],
)
def test_a_number_that_comes_back_unexplained_is_refused_with_both_ways(
    numbers: list[int], said: str, folder: Path
) -> None:
    path = npz(folder, episode=numbers)
    refused = refusal(path)
    assert said in refused
    assert "Sort the rows by 'episode'" in refused
    assert "--ends runs=episode" in refused
    if numbers == DAYS:
        assert read(path, "runs=episode").episodes.obs.ravel().tolist() == [0, 2, 4, 6]
    order = np.argsort(numbers, kind="stable")
    np.savez(path, **{n: np.asarray(v)[order] for n, v in rows(episode=numbers).items()})
    assert read(path, dataset_id="me/b-v0").episodes.lengths.tolist() == [3, 3]


@follows("number each run of rows anew")
def test_arrays_from_python_are_told_to_number_anew(folder: Path) -> None:
    arrays = {n: np.asarray(v) for n, v in rows(episode=DAYS, terminated=NO).items()}
    arrays["observations"] = arrays["observations"][:, None]
    arrays["actions"] = arrays["actions"][:, None]
    with pytest.raises(DataError, match="number each run of rows anew"):
        save_arrays(NEW, **arrays, action_low=-1, action_high=1)
    arrays["episode"] = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    done = save_arrays(NEW, **arrays, action_low=-1, action_high=1)
    assert done.episodes.obs.ravel().tolist() == [0, 2, 4, 6]


# -- named


def test_what_looks_like_it_and_isnt_used_is_named_everywhere(folder: Path, baq_here: Run) -> None:
    more = {"reward_sparse": NO, "cost": NO, "next.success": NO, "time": np.arange(8.0), "x": NO}
    flags = {"terminals": ENDS, "timeouts": NO, "dones": ENDS}
    path = npz(folder, **flags, **more, note=["a"] * 8, frame_id=["w"] * 8)
    status, _, said = baq_here("data", "import", path, "--id", NEW, *BOUNDS)
    assert status == 0
    named = {"reward_sparse", "cost", "next.success", "time", "dones", "frame_id"}
    assert {name for name in [*more, *flags, "note", "frame_id"] if f"'{name}'" in said} == named
    assert set(open_minari(NEW).metadata["imported"]["columns_not_used"]) == named
    shown = json.loads(baq_here("data", "show", NEW, "--json")[1])
    assert set(shown["columns_not_used"]) == named
    assert shown["ends_from"] == {"terminated": "terminals", "truncated": "timeouts"}
    assert "reward_sparse" in baq_here("data", "show", NEW)[1]
    words = ("data", "import", path, "--id", "me/b-v0", *BOUNDS, "--json")
    assert set(json.loads(baq_here(*words)[1])["columns_not_used"]) == named


def test_a_time_out_of_order_is_named(folder: Path) -> None:
    """Rows 3 and 4 are exchanged, and 6 is there twice; the fall at row 5 is a new episode's."""
    t = [0, 1, 2, 4, 3, 0, 1, 1]
    flags = {"terminals": [0, 0, 0, 0, 1, 0, 0, 1], "timeouts": NO}
    done = read(npz(folder, **flags, clock=t))
    notes = " ".join(done.notes)
    assert "'clock' falls in 1 row, first in row 4 and repeats in 1 row, first in row 7" in notes


def test_columns_that_say_nothing_of_it_are_left_alone(folder: Path) -> None:
    more = {"end_effector": np.zeros((8, 3)), "bend": NO, "timid": NO, "calendar": NO}
    done = read(npz(folder, terminals=ENDS, timeouts=NO, **more))
    assert "columns_not_used" not in done.account


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("TERMINALS", Kind.TERMINATED),
        ("next.terminated", Kind.TERMINATED),
        ("infos/TimeLimit.truncated", Kind.TRUNCATED),
        ("isDone", Kind.DONE),
        ("agent0/dones", Kind.DONE),
        ("left_arm_done", Kind.RESET),
        ("episodeID", Kind.EPISODE),
        ("meta/episode_ends", Kind.LAST),
        ("reward_sparse", Kind.REWARD),
        ("time_penalty", Kind.REWARD),
        ("sim_time", Kind.STEP),
        ("num_demos", Kind.COUNT),
    ],
)
def test_names_are_known_with_capitals_and_prefixes(name: str, kind: Kind) -> None:
    look = looks(name)
    assert look is not None
    assert look.kind is kind


def test_an_export_is_imported_as_it_was_whatever_its_infos_are_called(folder: Path) -> None:
    columns = rows(terminals=ENDS, timeouts=NO)
    path = write_d4rl(folder / "a.hdf5", {**columns, "infos/success": NO, "infos/time": ENDS})
    first = read(path)
    export_file(NEW, "npz", folder / "out.npz")
    again = import_file(folder / "out.npz", "me/again-v0", Setting(), None)
    assert ends(again.episodes) == ends(first.episodes)
    assert load_episodes("me/again-v0").content_hash == first.episodes.content_hash
    kept = open_minari("me/again-v0").metadata["imported"]
    assert kept == open_minari(NEW).metadata["imported"]


# -- several files, and last rows that are observations


def test_files_whose_ends_are_told_otherwise_are_refused(folder: Path) -> None:
    """In the second file nothing is marked: alone it would be cut by a limit."""
    paths = [folder / "1.npz", folder / "2.npz"]
    for path, marked in zip(paths, (ENDS, NO), strict=True):
        np.savez(path, **rows(terminals=NO, dones=marked))
    limit = bounded(CutRules())
    with pytest.raises(DataError, match=r"2\.npz.*--max-episode-steps"):
        import_files(paths, NEW, limit, None)
    said = with_ends(None, parse_ends(["last=dones"]))
    done = import_files(paths, NEW, limit, said)
    assert done.episodes.lengths.tolist() == [2, 3, 7]


def test_files_cut_by_different_columns_are_refused(short_env: str, folder: Path) -> None:
    paths = [folder / "1.npz", folder / "2.npz"]
    for path, marked in zip(paths, (ENDS, NO), strict=True):
        wide = {"observations": np.zeros((8, 3)), "actions": np.zeros((8, 1))}
        np.savez(path, **{**rows(terminals=NO, dones=marked), **wide})
    with pytest.raises(DataError, match=r"'dones'.*--ends ROLE=COLUMN"):
        import_files(paths, NEW, Setting(short_env), None)


def test_last_rows_may_be_observations_where_ends_have_another_name(folder: Path) -> None:
    """Row 2 terminated, and is where the episode led: its action leads nowhere."""
    path = npz(folder, fell=[0, 0, 1, 0, 0, 0, 0, 0], over=[0, 0, 1, 0, 0, 0, 0, 1])
    told = with_ends(
        parse_mapping({"last_row": "observation"}, "m"),
        parse_ends(["terminated=fell", "last=over"]),
    )
    done = import_file(path, NEW, bounded(), told)
    assert ends(done.episodes) == [(2, True, False), (4, False, True)]
    assert done.episodes.next_obs.ravel().tolist() == [1, 2, 4, 5, 6, 7]


def test_rlds_is_read_with_its_last_rows_as_observations(folder: Path) -> None:
    path = npz(
        folder,
        is_first=[1, 0, 0, 1, 0, 0, 0, 0],
        is_last=[0, 0, 1, 0, 0, 0, 0, 1],
        is_terminal=[0, 0, 1, 0, 0, 0, 0, 0],
    )
    assert "last_row: observation" in refusal(path)
    told = with_ends(
        parse_mapping({"last_row": "observation"}, "m"),
        parse_ends(["terminated=is_terminal", "last=is_last"]),
    )
    done = import_file(path, NEW, bounded(), told)
    assert ends(done.episodes) == [(2, True, False), (4, False, True)]

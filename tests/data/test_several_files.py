"""Several files, or a folder, as one log: their order, their episodes, what they must share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.data.exchange import export_file, import_files
from baq_cli.data.logs.files import log_files
from baq_cli.data.logs.formats import FORMATS
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.logs.mapping import parse_mapping
from baq_cli.data.minari.folder import local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.minari.write import write_minari
from baq_cli.errors import BaqError, DataError, UsageError
from support.advice import follows
from support.logs import BOUNDS, NEW, bounded, ends, import_table, written
from support.recordings import few, own_folders, plain_recording

Command = Callable[..., tuple[int, str, str]]
ASKED = {"observation": "o", "action": "a", "reward": "r", "truncated": "end"}


def part(path: Path, first: int, rows: int, names: str = "o,a,r,end", **columns: Any) -> Path:
    """Write so many rows, numbered on from `first`; each ends in a row marked as an end."""
    lines = []
    for k in range(rows):
        cells = {"o": first + k, "a": 0.5, "r": first + k, "end": int(k == rows - 1)}
        cells |= {name: values[k] for name, values in columns.items()}
        lines.append(",".join(str(cells.get(name, 0)) for name in names.split(",")))
    path.parent.mkdir(exist_ok=True)
    return written(path, "\n".join([names, *lines]) + "\n")


def imported(paths: list[Path], join: bool | None = None, **asked: Any) -> Any:
    said = {name: column for name, column in {**ASKED, **asked}.items() if column is not None}
    return import_files(paths, NEW, bounded(), parse_mapping(said, "m"), join)


def test_a_folder_is_its_files_in_the_order_of_their_numbers(folder: Path) -> None:
    place = folder / "log"
    for number, first in ((10, 200), (2, 100), (1, 0)):
        part(place / f"episode_{number}.csv", first, 3)
    written(place / "notes.txt", "not a log")
    written(place / "map.yaml", "nor this")
    written(place / "._episode_3.csv", "nor what macOS writes")
    done = imported([place])
    assert done.episodes.obs.ravel().tolist() == [0, 1, 100, 101, 200, 201]
    assert ends(done.episodes) == [(2, False, True)] * 3
    assert done.lost == 3
    assert done.notes[0].startswith("3 files, episode_1.csv to episode_10.csv")
    assert open_minari(NEW).metadata["import_notes"] == list(done.notes)


def test_named_files_keep_the_order_in_which_they_are_named(folder: Path) -> None:
    later, sooner = part(folder / "b.csv", 10, 2), part(folder / "a.csv", 0, 2)
    assert imported([later, sooner]).episodes.obs.ravel().tolist() == [10, 0]


def test_a_file_is_the_end_of_an_episode_whatever_its_flags_say(folder: Path) -> None:
    """The second day doesn't follow from the first one's last row, though nothing marks it."""
    for day, first in ((1, 0), (2, 100)):
        part(folder / "days" / f"{day}.csv", first, 4, end=[0, 1, 0, 0])
    done = imported([folder / "days"])
    assert done.episodes.obs.ravel().tolist() == [0, 2, 100, 102]
    assert done.episodes.next_obs.ravel().tolist() == [1, 3, 101, 103]


@pytest.mark.parametrize("flags", [True, False], ids=["marked", "numbered"])
def test_episode_numbers_that_begin_again_in_each_file_are_other_episodes(
    flags: bool, folder: Path
) -> None:
    names = "o,a,r,end,run"
    for day, first in ((1, 0), (2, 100)):
        part(folder / "days" / f"{day}.csv", first, 4, names, run=[0, 0, 1, 1], end=[0, 1, 0, 1])
    done = imported([folder / "days"], episode="run", truncated="end" if flags else None)
    assert done.episodes.next_obs.ravel().tolist() == [1, 3, 101, 103]


@pytest.mark.parametrize("join", [None, True])
def test_an_episode_whose_number_goes_on_in_the_next_file_is_one(
    join: bool | None, folder: Path
) -> None:
    """A day's log in parts: 7 ends the first, and begins the second, as `7.0`."""
    names = "o,a,r,end,run"
    one = part(folder / "1.csv", 0, 4, names, run=[6, 6, 7, 7], end=[0] * 4)
    other = part(folder / "2.csv", 4, 4, names, run=["7.0", "7.0", 8, 8], end=[0] * 4)
    done = imported([one, other], join, episode="run", truncated=None)
    assert done.episodes.lengths.tolist() == [1, 3, 1]
    assert done.episodes.next_obs.ravel().tolist() == [1, 3, 4, 5, 7]
    assert "once an episode goes on in the next one" in done.notes[0]
    whole = written(folder / "whole.csv", one.read_text() + other.read_text().partition("\n")[2])
    asked = {**ASKED, "episode": "run"}
    del asked["truncated"]
    same = import_table(whole, asked, dataset_id="me/whole-v0")
    assert same.episodes.content_hash == done.episodes.content_hash


def test_numbers_that_float64_takes_for_one_are_other_episodes(folder: Path) -> None:
    """Numbers of 64 bits, as identifiers and nanoseconds are."""
    paths = [
        part(folder / f"{k}.csv", 3 * k, 3, "o,a,r,end,run", run=[2**53 + k] * 3, end=[0] * 3)
        for k in range(2)
    ]
    done = imported(paths, episode="run", truncated=None)
    assert done.episodes.lengths.tolist() == [2, 2]


def test_a_mark_at_a_files_end_ends_its_episode_whatever_its_number(folder: Path) -> None:
    """LeRobot's files of an episode each may all be called episode 0."""
    names = "o,a,r,end,run"
    paths = [part(folder / f"{k}.csv", 10 * k, 3, names, run=[0] * 3) for k in range(3)]
    assert imported(paths, episode="run").episodes.lengths.tolist() == [2, 2, 2]


def test_one_number_in_two_files_is_asked_about_where_nothing_tells(folder: Path) -> None:
    names = "o,a,r,end,run"
    paths = [part(folder / f"{k}.csv", 3 * k, 3, names, run=[0] * 3) for k in range(2)]
    asked = {"episode": "run", "truncated": None}
    with pytest.raises(UsageError, match=r"--join-files .* --split-files"):
        imported(paths, **asked)
    assert imported(paths, False, **asked).episodes.lengths.tolist() == [2, 2]
    with pytest.raises(DataError, match=r"'end' marks 2 of 6 rows, .*--ends unused=end"):
        import_files(paths, "me/b-v0", bounded(), parse_mapping({**ASKED, **asked}, "m"), True)
    only = {"truncated": None, "episode": "run", "ends": {"unused": "end"}}
    said = parse_mapping({**ASKED, **only}, "m")
    joined = import_files(paths, "me/joined-v0", bounded(), said, True).episodes
    assert joined.next_obs.ravel().tolist() == [1, 2, 3, 4, 5]


def test_rows_run_on_without_numbers_only_where_that_is_said(folder: Path) -> None:
    paths = [part(folder / f"{k}.csv", 3 * k, 3, end=[0, 0, k]) for k in range(2)]
    assert imported(paths, True).episodes.next_obs.ravel().tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("names", "asked", "said"),
    [
        ("o,a,r", {}, "no column 'end'"),
        ("o,p,a,r,end", {"observation": ["o", "p*"]}, "no column 'p"),
        ("o,o2,a,r,end", {"observation": "o*"}, "has the columns o2"),
    ],
)
def test_a_file_that_differs_is_named(
    names: str, asked: dict[str, Any], said: str, folder: Path
) -> None:
    paths = [part(folder / "a.csv", 0, 3), part(folder / "b.csv", 3, 3, names)]
    if "no column 'p" in said:
        paths = paths[::-1]
    with pytest.raises(BaqError, match=said) as caught:
        imported(paths, **asked)
    assert str(paths[1]) in str(caught.value)
    assert local_datasets() == []


@follows("{} in this order: name each by itself in the mapping")
def test_columns_in_another_order_are_never_mixed_up(folder: Path) -> None:
    one = part(folder / "a.csv", 0, 3, "o1,o2,a,r,end", o1=[1, 2, 3], o2=[-1, -2, -3])
    other = part(folder / "b.csv", 3, 3, "o2,o1,a,r,end", o1=[4, 5, 6], o2=[-4, -5, -6])
    with pytest.raises(DataError, match="in this order: name each by itself"):
        imported([one, other], observation="o*")
    done = imported([one, other], observation=["o1", "o2"])
    assert done.episodes.obs.tolist() == [[1, -1], [2, -2], [4, -4], [5, -5]]


def test_widths_that_differ_are_named(folder: Path) -> None:
    for k, width in enumerate((2, 3)):
        np.savez(
            folder / f"{k}.npz",
            observations=np.zeros((4, width)),
            actions=np.zeros((4, 1)),
            rewards=np.arange(4.0),
            terminals=np.arange(4) == 3,
            timeouts=np.zeros(4, bool),
        )
    paths = [folder / "0.npz", folder / "1.npz"]
    with pytest.raises(DataError, match=r"1\.npz isn't made as 0\.npz is: .*\[3\].*\[2\]"):
        import_files(paths, NEW, bounded(), None)


def test_types_of_files_are_joined_without_loss(folder: Path) -> None:
    values = np.array([1 / 3, 2 / 3, 1.0, 4 / 3])
    for k, dtype in enumerate(("f4", "f8")):
        np.savez(
            folder / f"{k}.npz",
            observations=values.astype(dtype),
            actions=np.zeros(4, dtype),
            rewards=values.astype(dtype),
            terminals=np.arange(4) == 3,
            timeouts=np.zeros(4, bool),
        )
    import_files([folder / "0.npz", folder / "1.npz"], NEW, bounded(), None)
    found = read_recording(open_minari(NEW))
    assert found.observations[""].dtype == np.float64
    assert found.observations[""].ravel()[5:9].tolist() == values.tolist()
    assert found.rewards.tolist() == [*values.astype("f4").tolist(), *values.tolist()]


@few
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 4))
def test_a_log_in_parts_is_the_log(lengths: list[int], files: int) -> None:
    """Cut between episodes, it is the same dataset, in any number of files."""
    with own_folders() as folder:
        numbers = np.repeat(np.arange(len(lengths)), [n + 1 for n in lengths])
        rows = len(numbers)
        last = np.append(numbers[1:] != numbers[:-1], True).astype(int)
        paths = []
        for k, chosen in enumerate(np.array_split(np.arange(len(lengths)), files)):
            mask = np.isin(numbers, chosen)
            if mask.any():
                first = int(np.flatnonzero(mask)[0])
                paths.append(part(folder / f"{k}.csv", first, int(mask.sum()), end=last[mask]))
        whole = part(folder / "whole.csv", 0, rows, end=last)
        done = imported(paths)
        same = import_table(whole, ASKED, dataset_id="me/whole-v0")
        assert done.episodes.content_hash == same.episodes.content_hash
        assert done.lost == same.lost


def test_exports_are_joined_with_their_seeds_and_spaces(folder: Path) -> None:
    made = [plain_recording(lengths=(3, 2)), plain_recording(lengths=(1, 4, 2))]
    for k, recording in enumerate(made):
        seeds = tuple(range(k, k + len(recording.lengths)))
        write_minari(f"me/part{k}-v0", replace(recording, seeds=seeds))
        export_file(f"me/part{k}-v0", "npz", folder / f"{k}.npz")
    import_files([folder / "0.npz", folder / "1.npz"], NEW, Setting(), None)
    found = read_recording(open_minari(NEW))
    assert found.lengths.tolist() == [3, 2, 1, 4, 2]
    assert found.seeds == (0, 1, 1, 2, 3)
    assert found.action_space == made[0].action_space
    assert np.array_equal(found.rewards, np.concatenate([r.rewards for r in made]))


# -- folders


def test_a_folder_of_several_formats_is_refused_with_what_to_name(folder: Path) -> None:
    place = part(folder / "log" / "a.csv", 0, 3).parent
    np.savez(place / "b.npz", x=np.zeros(1))
    with pytest.raises(UsageError, match=r"holds \.csv and \.npz files: .*log/\*\.csv"):
        imported([place])
    assert imported(sorted(place.glob("*.csv"))).episodes.lengths.tolist() == [2]


def test_a_folder_of_folders_says_which_to_name(folder: Path) -> None:
    part(folder / "data" / "chunk-000.csv", 0, 3).rename(folder / "a.csv")
    chunk = folder / "data" / "chunk-000"
    chunk.mkdir()
    (folder / "a.csv").rename(chunk / "a.csv")
    with pytest.raises(DataError, match="chunk-000"):
        imported([folder / "data"])
    assert imported([chunk]).episodes.lengths.tolist() == [2]
    with pytest.raises(DataError, match="a folder without a log"):
        log_files([folder / "minari"], list(FORMATS))


def test_a_file_that_comes_twice_is_refused(folder: Path) -> None:
    path = part(folder / "log" / "a.csv", 0, 3)
    with pytest.raises(UsageError, match="comes twice"):
        imported([path, path.parent])
    (folder / "b.csv").symlink_to(path)
    with pytest.raises(UsageError, match="comes twice"):
        imported([path, folder / "b.csv"])


def test_the_command_takes_several_files(folder: Path, baq_here: Command) -> None:
    columns = "obs,action,reward,truncated"
    for k in range(2):
        rows = "".join(f"{10 * k + row},0.5,1,{int(row == 2)}\n" for row in range(3))
        written(folder / f"{k}.csv", f"{columns}\n{rows}")
    words = ("data", "import", folder / "0.csv", folder / "1.csv", "--id", NEW, *BOUNDS)
    status, out, said = baq_here(*words)
    assert status == 0, said
    assert "2 files, 0.csv to 1.csv: no episode goes on in the next one" in said
    assert "2 episodes, 4 steps" in out
    assert load_episodes(NEW).obs.ravel().tolist() == [0, 1, 10, 11]

"""LeRobot datasets, of versions 2 and 3: every number comes across, and what doesn't is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from baq_cli.data.exchange import import_file
from baq_cli.data.logs.layouts import said
from baq_cli.data.logs.robots.lerobot import read_lerobot
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.errors import DataError, UsageError
from support.advice import Terminal, follows
from support.logs import BOUNDS, NEW, bounded, ends, written
from support.robot_logs import (
    EPISODES,
    FPS,
    LENGTHS,
    damaged,
    last_rows,
    lerobot_columns,
    put,
    put_table,
    write_lerobot,
)

Command = Callable[..., tuple[int, str, str]]
VERSIONS = ("2.0", "2.1", "3.0")
ROWS = np.flatnonzero(~last_rows())
"""Those that have a next one in their episode."""


def with_ends(done: list[int], success: list[int] | None = None) -> dict[str, Any]:
    marks = {"next.done": np.array(done, bool)}
    marks |= {} if success is None else {"next.success": np.array(success, bool)}
    return {**lerobot_columns(), **marks}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_number_of_every_version_comes_across(version: str, folder: Path) -> None:
    path = write_lerobot(folder / "arm", version)
    done = import_file(path, NEW, bounded(), None)
    columns, recording = lerobot_columns(), read_recording(open_minari(NEW))
    state = [columns["observation.state"], columns["observation.environment_state"]]
    observed = np.concatenate(state, axis=1)
    assert recording.observations[""].tolist() == observed.tolist()  # the last rows' as well
    assert recording.observations[""].dtype == np.float32
    assert recording.actions.tolist() == columns["action"][ROWS].tolist()
    assert recording.rewards.tolist() == columns["next.reward"][ROWS].tolist()
    for name in ("timestamp", "task_index"):
        assert recording.infos[name].tolist() == columns[name][ROWS].tolist()
    assert ends(done.episodes) == [(length - 1, False, True) for length in LENGTHS]
    assert done.lost == len(LENGTHS)
    assert done.account["ends_from"] == {"episode": "episode_index"}


def test_all_versions_are_the_same_dataset(folder: Path) -> None:
    found = set()
    for k, version in enumerate(VERSIONS):
        path = write_lerobot(folder / version, version)
        found.add(import_file(path, f"me/n{k}-v0", bounded(), None).episodes.content_hash)
    assert len(found) == 1


def test_rate_names_and_what_is_left_out_are_kept_with_the_dataset(
    folder: Path, baq_here: Command
) -> None:
    path = write_lerobot(folder / "arm", "3.0")
    status, _, told = baq_here("data", "import", path, "--id", NEW, *BOUNDS)
    assert status == 0, told
    assert "left out: observation.images.top (video)" in told
    metadata = open_minari(NEW).metadata
    assert metadata["lerobot"] == {"version": "3.0", "robot_type": "so100"}
    assert metadata["columns"]["observations"][""][:3] == [
        "observation.state.elbow",
        "observation.state.wrist",
        "observation.environment_state[0]",
    ]
    status, out, _ = baq_here("data", "show", NEW, "--json")
    card = json.loads(out)
    assert card["control_hz"] == FPS
    assert card["import_notes"][0] == (
        "the observation is observation.state (2), observation.environment_state (3), in this "
        "order (--obs-keys chooses others)"
    )


@follows("the observation is {}, in this order (--obs-keys chooses others)")
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("observation.environment_state", [[100.0] * 3]),
        ("observation.environment_state,observation.state", [[100, 100, 100, 0, 0.5]]),
        ("*.state", [[0, 0.5]]),
    ],
)
def test_observations_are_chosen_in_any_order(asked: str, found: Any, folder: Path) -> None:
    path = write_lerobot(folder / "arm", "2.1")
    mapping = said(None, None, obs_keys=tuple(asked.split(",")))
    import_file(path, NEW, bounded(), mapping)
    assert load_episodes(NEW).observations[:1].tolist() == found


def test_a_rate_that_times_contradict_is_said(folder: Path) -> None:
    path = write_lerobot(folder / "arm", "3.0", info={"fps": 30})
    notes = import_file(path, NEW, bounded(), None).notes
    assert "'timestamp' says 20 rows a second, meta/info.json 30" in notes


def test_whether_somebody_took_over_and_which_task_it_was_is_kept(folder: Path) -> None:
    """LeRobot's recorder of interventions writes complementary_info.is_intervention."""
    acted = np.array([0, 1, 1, 0, 0, 1, 0], bool)
    columns = {**lerobot_columns(), "complementary_info.is_intervention": acted}
    notes = import_file(write_lerobot(folder / "arm", "3.0", columns), NEW, bounded(), None).notes
    infos = read_recording(open_minari(NEW)).infos
    assert infos["intervention"].tolist() == acted[ROWS].tolist()
    assert infos["task_index"].tolist() == [0, 0, 0, 1, 1]
    assert "it holds 2 tasks, and the observation doesn't say which: task_index" in notes


# -- ends and rewards


@pytest.mark.parametrize("version", ["2.1", "3.0"])
def test_a_success_in_the_last_row_is_a_termination(version: str, folder: Path) -> None:
    """Its action leads to the end: that step isn't lost, and neither is its reward."""
    columns = with_ends([0, 0, 0, 1, 0, 0, 1], [0, 1, 0, 1, 0, 0, 0])
    done = import_file(write_lerobot(folder / "arm", version, columns), NEW, bounded(), None)
    assert ends(done.episodes) == [(4, True, False), (2, False, True)]
    assert done.episodes.reward.tolist() == [1000, 1001, 1002, 1003, 1004, 1005]
    assert done.account["ends_from"] == {"episode": "episode_index", "terminated": "next.success"}


def test_ends_that_are_marked_without_a_reason_are_asked_about(
    folder: Path, terminal: Terminal
) -> None:
    path = write_lerobot(folder / "arm", "2.1", with_ends([0, 0, 0, 1, 0, 0, 1]))
    words = ("data", "import", path, "--id", NEW, *BOUNDS)
    told = terminal.told(*words, status=3)
    assert "the log doesn't say which ends are terminations" in told
    assert str(path) in told
    for k, (way, steps) in enumerate({"terminated": 7, "truncated": 5, "unused": 5}.items()):
        assert f"--ends {way}=next.done" in told
        given = (*words[:4], f"me/n{k}-v0", *BOUNDS, "--ends", f"{way}=next.done")
        assert f"2 episodes, {steps} steps" in terminal.done(*given)


def test_demonstrations_without_rewards_are_told_how_to_get_some(
    folder: Path, terminal: Terminal
) -> None:
    columns = with_ends([0, 0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0, 0])
    del columns["next.reward"]
    path = write_lerobot(folder / "arm", "3.0", columns)
    words = ("data", "import", path, "--id", NEW, *BOUNDS)
    told = terminal.told(*words, status=3)
    assert "--reward constant:0" in told
    assert "--reward-from next.success" in told
    terminal.done(*words, "--reward-from", "next.success")
    assert load_episodes(NEW).reward.tolist() == [0, 0, 0, 1, 0, 0]
    terminal.done(*words[:4], "me/other-v0", *BOUNDS, "--reward", "constant:0.5")
    assert set(load_episodes("me/other-v0").reward.tolist()) == {0.5}


# -- what it takes


@follows("the log doesn't say what its actions' bounds are: name the environment it was made in ")
def test_bounds_that_are_missing_come_with_the_range_of_the_actions(
    folder: Path, terminal: Terminal
) -> None:
    path = write_lerobot(folder / "arm", "3.0")
    words = ("data", "import", path, "--id", NEW)
    told = terminal.told(*words, status=3)
    low, high = told.partition("Its actions go from ")[2].split(" to ")
    assert (low, high) == ("-0.375,-0.1875", "0.375,0.1875")
    terminal.done(*words, f"--action-low={low}", f"--action-high={high}")


def test_the_cache_of_the_hub_is_a_folder_of_links(folder: Path) -> None:
    hub = folder / "hub/datasets--me--arm"
    path = write_lerobot(hub / "snapshots/1f0a", "2.1")
    (hub / "blobs").mkdir()
    for k, file in enumerate([p for p in path.rglob("*") if p.is_file()]):
        file.rename(hub / f"blobs/{k}")
        file.symlink_to(hub / f"blobs/{k}")
    assert import_file(path, NEW, bounded(), None).episodes.lengths.tolist() == [3, 2]


MAPPING = """
observation: observation.state
action: action
reward: next.reward
episode: episode_index
"""


@follows(
    "LeRobot's version {}; versions {} are read. Name its tables and what their columns mean",
    "{} of the {} episodes of meta/ are in no table below data/ (episode {}): fetch the missing",
    "{}: no LeRobot dataset, for it has no {}: name the folder that holds meta/ and data/",
    "the mapping names the observations' columns: leave --obs-keys out",
    "meta/info.json has no feature '{}' of numbers; found {}. Name the columns with --mapping",
    "--mask is of robomimic's files, and this is a LeRobot dataset: leave it out",
    "{} is a LeRobot dataset, and other paths stand beside it: import it by itself",
)
def test_a_mapping_reads_what_is_no_dataset_of_a_known_version(
    folder: Path, terminal: Terminal
) -> None:
    path = write_lerobot(folder / "arm", "3.0")
    mapping = written(folder / "m.yaml", MAPPING)
    numbers = iter(range(99))

    def words(*more: str | Path) -> list[str | Path]:
        return ["data", "import", *more, "--id", f"me/n{next(numbers)}-v0", *BOUNDS]

    assert "leave --obs-keys out" in terminal.told(
        *words(path, "--mapping", mapping, "--obs-keys", "x")
    )
    terminal.done(*words(path, "--mapping", mapping))
    assert "leave it out" in terminal.told(*words(path, "--mask", "train"))
    assert "import it by itself" in terminal.told(*words(path, path))
    told = terminal.told(*words(path / "data", "--format", "lerobot"), status=3)
    assert "name the folder that holds meta/ and data/" in told
    put_table(path / EPISODES, {"episode_index": np.arange(3), "length": np.array([4, 3, 9])})
    assert "1 of the 3 episodes of meta/" in terminal.told(*words(path), status=3)
    terminal.done(*words(path / "data/chunk-000", "--mapping", mapping))
    columns = {**lerobot_columns(), "act": lerobot_columns()["action"]}
    del columns["action"]
    other = write_lerobot(folder / "other", "2.1", columns)
    assert "no feature 'action' of numbers" in terminal.told(*words(other), status=3)
    written(mapping, MAPPING.replace("action: action", "action: act"))
    terminal.done(*words(other, "--mapping", mapping))
    old = write_lerobot(folder / "old", "2.1", info={"codebase_version": "v1.6"})
    assert "LeRobot's version 1.6" in terminal.told(*words(old), status=3)
    terminal.done(*words(old / "data/chunk-000", "--mapping", written(mapping, MAPPING)))


# -- what is damaged, and what is hostile


def refused(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        import_file(path, NEW, bounded(), None)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert len(str(caught.value)) < 1_500


@pytest.mark.parametrize(
    ("info", "word"),
    [
        ({"fps": 0}, "fps"),
        ({"fps": "often"}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"features": []}, "features"),
        ({"features": {"action": {"dtype": "float32", "shape": [1] * 50}}}, "shape"),
        ({"features": {"action": {"dtype": "float32", "shape": [2]}}}, "pictures are not read"),
        ({"codebase_version": 3}, "codebase_version"),
    ],
)
def test_an_odd_info_is_refused_with_the_place(info: Any, word: str, folder: Path) -> None:
    refused(write_lerobot(folder / "arm", "3.0", info=info), word)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 200_000, '{"fps": ' + "9" * 5_000 + "}"])
def test_an_info_that_is_none_is_refused(text: str, folder: Path) -> None:
    path = write_lerobot(folder / "arm", "2.1")
    put(path / "meta/info.json", text)
    refused(path, "meta/info.json")


@pytest.mark.parametrize(
    "line", ["{}", "7", '{"episode_index": 0, "length": "4"}', '{"episode_index": true}', "x"]
)
def test_an_odd_line_of_episodes_is_refused_by_its_number(line: str, folder: Path) -> None:
    path = write_lerobot(folder / "arm", "2.1")
    put(path / "meta/episodes.jsonl", '{"episode_index": 1, "length": 3}\n' + line)
    refused(path, "meta/episodes.jsonl, line 2")


@pytest.mark.parametrize("version", ["2.1", "3.0"])
@pytest.mark.parametrize(
    ("numbers", "lengths", "word"),
    [
        ([0], [4], "meta/ doesn't have: 1"),
        ([0, 1], [4, 4], "episode 1 has 3 rows in the tables, and 4 by meta/"),
        ([0, 1, 2**60], [4, 3, 2**60], "1 of the 3 episodes"),
    ],
)
def test_episodes_that_are_not_those_of_the_tables_are_refused(
    version: str, numbers: list[int], lengths: list[int], word: str, folder: Path
) -> None:
    path = write_lerobot(folder / "arm", version)
    entries = zip(numbers, lengths, strict=True)
    lines = [json.dumps({"episode_index": n, "length": k}) for n, k in entries]
    put(path / "meta/episodes.jsonl", "\n".join(lines))
    if version == "3.0":
        both = {"episode_index": np.array(numbers), "length": np.array(lengths)}
        put_table(path / EPISODES, both)
    refused(path, word)


@pytest.mark.parametrize("part", ["data", "meta/episodes"])
def test_a_dataset_that_was_fetched_in_part_is_told_what_to_fetch(part: str, folder: Path) -> None:
    path = write_lerobot(folder / "arm", "3.0")
    (path / part).rename(folder / "elsewhere")
    refused(path, "fetch")
    (folder / "elsewhere").rename(path / part)
    import_file(path, NEW, bounded(), None)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("action", np.zeros((3, 3), "f4")),
        ("observation.state", np.zeros(3, "f4")),
        ("next.reward", np.zeros((3, 2), "f4")),
        ("episode_index", np.ones((3, 4), int)),
    ],
)
def test_columns_of_other_widths_than_info_says_are_refused(
    name: str, array: Any, folder: Path
) -> None:
    path = write_lerobot(folder / "arm", "2.1")
    rows = {column: values[4:] for column, values in lerobot_columns().items()}
    put_table(path / "data/chunk-000/episode_000001.parquet", {**rows, name: array})
    refused(path, "episode_000001.parquet", f"column '{name}'", "meta/info.json says")


@pytest.mark.parametrize("damage", ["gone", "words", "no table", "lists of other lengths", "nulls"])
def test_a_damaged_column_is_refused_with_its_table(damage: str, folder: Path) -> None:
    path = write_lerobot(folder / "arm", "2.1")
    table = path / "data/chunk-000/episode_000001.parquet"
    rows = {n: pyarrow.array(v[4:].tolist()) for n, v in lerobot_columns().items()}
    odd = {"words": ["a"] * 3, "lists of other lengths": [[1.0, 2], [1.0], [1.0, 2]]}
    odd["nulls"] = [[1.0, 2], None, [1.0, 2]]
    if damage == "gone":
        del rows["action"]
    rows |= {"action": pyarrow.array(odd[damage])} if damage in odd else {}
    parquet.write_table(pyarrow.table(rows), table)
    if damage == "no table":
        table.write_bytes(b"PAR1" + b"\0" * 99 + b"PAR1")
    refused(path, str(table))


def test_many_tables_that_claim_much_together_are_refused_before_they_are_read(
    folder: Path,
) -> None:
    """Each alone would be believed; the last of them isn't there to be read any more."""
    rows, width, tables = 50_000, 80, 12
    columns = {"observation.state": np.ones((1, width)), "action": np.ones((1, 1))}
    columns |= {"episode_index": np.zeros(1, int), "next.reward": np.ones(1)}
    path = write_lerobot(folder / "arm", "2.1", columns)
    numbers = {name: np.repeat(array, rows, axis=0) for name, array in columns.items()}
    narrow = {**numbers, **dict.fromkeys(["observation.state", "action"], np.ones(rows))}
    first = put_table(path / "data/chunk-000/episode_000000.parquet", narrow)
    noise = np.random.default_rng(0).normal(size=8_000)  # so that each alone is believed
    flat = pyarrow.array(np.concatenate([noise, np.ones(rows * width - len(noise))]))
    wide = pyarrow.FixedSizeListArray.from_arrays(flat, width)
    table = parquet.read_table(first).set_column(0, "observation.state", wide)
    parquet.write_table(table, first, compression="zstd")
    for k in range(1, tables):
        shutil.copy(first, first.with_name(f"episode_{k:06d}.parquet"))
    assert 50 * tables * first.stat().st_size < tables * rows * width * 8
    assert 2_000 * first.stat().st_size > rows * width * 8
    refused(path, "claims")


@pytest.mark.parametrize("name", ["meta/info.json", "meta/episodes.jsonl", "data/chunk-000"])
def test_links_that_lead_out_of_the_folder_are_refused(name: str, folder: Path) -> None:
    path = write_lerobot(folder / "arm", "2.1")
    (path / name).rename(folder / "outside")
    (path / name).symlink_to(folder / "outside")
    refused(path, "leads out of the folder")


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    path = write_lerobot(folder / "arm", "2.1")
    (path / "meta/episodes.jsonl").unlink()
    os.mkfifo(path / "meta/episodes.jsonl")
    refused(path, "meta/episodes.jsonl can't be read")


def test_a_template_of_paths_is_not_followed(folder: Path) -> None:
    """A format string could ask for gigabytes of digits, or for another folder."""
    info = {"data_path": "../{episode_index:0999999999d}.parquet", "chunks_size": 10**30}
    path = write_lerobot(folder / "arm", "2.1", info=info)
    assert import_file(path, NEW, bounded(), None).episodes.lengths.tolist() == [3, 2]


@follows("{} is no log that a robot's tool wrote, which is what {} is for: leave it out")
@pytest.mark.parametrize("flag", ["--format", "--obs-keys", "--mask"])
def test_options_of_robots_logs_are_of_nothing_else(
    flag: str, folder: Path, terminal: Terminal
) -> None:
    log = written(folder / "log.csv", "obs,action,reward,terminated,truncated\n1,0,1,1,0\n")
    words = ("data", "import", log, "--id", NEW, *BOUNDS)
    assert f"what {flag} is for" in terminal.told(*words, flag, "robomimic")
    terminal.done(*words)


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="expected one of lerobot, robomimic"):
        said(None, None, format="rlds")


@pytest.mark.torture
@pytest.mark.parametrize("name", ["info.json", "episodes.jsonl"])
def test_a_damaged_text_of_meta_is_refused_in_words_or_read(name: str, folder: Path) -> None:
    path, refusals = write_lerobot(folder / "arm", "2.1"), 0
    for _ in damaged(path / "meta" / name, 5_000 if os.environ.get("BAQ_TORTURE") else 100):
        try:
            read_lerobot(path, None)
        except DataError:
            refusals += 1
    assert refusals

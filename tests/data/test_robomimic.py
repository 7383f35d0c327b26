"""robomimic's HDF5 files: demonstrations, their ends, their filter keys, and hostile ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from baq_cli.data.exchange import import_file
from baq_cli.data.logs.formats import read_file
from baq_cli.data.logs.layouts import said
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.errors import DataError, UsageError
from support.advice import Terminal, follows
from support.logs import NEW, Claim, ends, put, written
from support.robot_logs import DEMOS, ENV_ARGS, damaged, ended, write_robomimic

Command = Callable[..., tuple[int, str, str]]
PLACES = 5_000 if os.environ.get("BAQ_TORTURE") else 60
BOTH = (*DEMOS, (2, 0))
"""With one demonstration more in which the task was never done."""


def imported(path: Path, **asked: Any) -> Any:
    return import_file(path, NEW, Setting(), said(None, None, **asked))


def test_every_number_comes_across_up_to_where_the_task_was_done(folder: Path) -> None:
    """Rows 3 and 8 are steps from a state in which it had been done."""
    done = imported(write_robomimic(folder / "log.hdf5"))
    recording = read_recording(open_minari(NEW))
    rows = np.array([0, 1, 2, 3, 4, 5, 6, 7])
    assert recording.actions[:, 0].tolist() == (rows / 16).tolist()
    observed = recording.observations[""]
    assert observed.tolist() == [[-k, k, 100 + k] for k in [0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8]]
    assert recording.rewards.tolist() == [0, 0, 1, 0, 0, 0, 0, 1]
    assert ends(done.episodes) == [(3, True, False), (1, False, True), (4, True, False)]
    assert done.lost == 0
    assert "left out: 1 row, where the task had been done before ('dones')" in done.notes
    assert done.account["ends_from"] == {"episode": "demonstration", "terminated": "dones"}
    assert (recording.action_space.low == -1).all()
    assert (recording.action_space.high == 1).all()


def test_a_trailing_row_that_goes_on_at_the_goal_is_no_transition_of_the_next_one(
    folder: Path,
) -> None:
    loaded = imported(write_robomimic(folder / "log.hdf5")).episodes
    assert (loaded.next_obs - loaded.obs).tolist() == [[-1, 1, 1]] * 8


def test_without_next_observations_a_truncated_end_loses_its_last_step(folder: Path) -> None:
    path = write_robomimic(folder / "log.hdf5")
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            del demo["next_obs"]
    done = imported(path)
    assert done.lost == 1
    assert ends(done.episodes) == [(3, True, False), (4, True, False)]


def test_what_a_file_says_of_itself_is_kept_as_text_and_runs_nothing(
    folder: Path, baq_here: Command
) -> None:
    args = {"env_name": "os.system('x')", "env_kwargs": {"control_freq": 20, "y": "__import__"}}
    path = write_robomimic(folder / "log.hdf5")
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps(args)
    status, _, told = baq_here("data", "import", path, "--id", NEW)
    assert status == 0, told
    for line in (
        "the observation is eef (1), object (2), in this order (--obs-keys chooses others)",
        "actions are bounded by -1 and 1, as the file's format has it",
        "left out: obs/cam_image, states",
        "filter keys, kept as infos and taken by --mask: train, valid",
        "recorded in os.system('x') (env_args, as text)",
    ):
        assert line in told
    metadata = open_minari(NEW).metadata
    assert json.loads(metadata["robomimic"]["env_args"]) == args
    assert metadata["columns"]["observations"][""] == [
        "eef",
        "object[0]",
        "object[1]",
    ]
    assert json.loads(baq_here("data", "show", NEW, "--json")[1])["control_hz"] == 20


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"env_kwargs": {"control_freq": "fast"}}', "x" * 60_000]
)
def test_odd_words_of_an_environment_do_no_harm(text: str, folder: Path) -> None:
    path = write_robomimic(folder / "log.hdf5")
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = text
    imported(path)
    assert open_minari(NEW).metadata["robomimic"]["env_args"] == text[:10_000]
    assert "control_hz" not in open_minari(NEW).metadata


# -- choices


@follows("filter keys, kept as infos and taken by --mask: {}")
def test_a_filter_key_takes_its_demonstrations(folder: Path, baq_here: Command) -> None:
    path = write_robomimic(folder / "log.hdf5")
    words = ("data", "import", path, "--id", NEW)
    status, out, told = baq_here(*words, "--mask", "train")
    assert status == 0, told
    assert "2 episodes, 7 steps" in out
    assert "2 of 3 demonstrations: those of mask/train" in told
    status, _, told = baq_here(*words[:3], "--id", "me/x-v0", "--mask", "trian")
    assert (status, "did you mean 'train'" in told) == (2, True)
    import_file(path, "me/all-v0", Setting(), None)
    infos = read_recording(open_minari("me/all-v0")).infos
    assert infos["mask/train"].tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
    assert infos["mask/valid"].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


def test_demonstrations_go_by_their_numbers(folder: Path) -> None:
    """HDF5 has demo_10 before demo_2."""
    lengths = [1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 2]
    demos = tuple((length, 0) for length in lengths)
    path = write_robomimic(folder / "log.hdf5", demos, **{"mask/train": None, "mask/valid": None})
    assert imported(path).episodes.lengths.tolist() == lengths


@pytest.mark.parametrize(
    ("asked", "first"),
    [("object,eef", [0, 100, 0]), ("object", [0, 100]), ("states", [0] * 5), ("*e*", [0, 0, 100])],
)
def test_observations_are_chosen_in_any_order(asked: str, first: Any, folder: Path) -> None:
    path = write_robomimic(folder / "log.hdf5")
    done = imported(path, obs_keys=tuple(asked.split(",")) if asked != "*e*" else ("eef", "o*"))
    assert done.episodes.observations[0].tolist() == first


def test_a_picture_is_taken_where_it_is_asked_for(folder: Path) -> None:
    done = imported(write_robomimic(folder / "log.hdf5"), obs_keys=("cam_image",))
    assert done.episodes.observations.shape[1] == 48


# -- what dones says


@follows(
    "'{}' marks an end in each of {} demonstrations, and the rewards don't show that the task was",
)
def test_dones_that_may_mark_where_recordings_stop_are_asked_about(
    folder: Path, terminal: Terminal
) -> None:
    path = ended(BOTH, write_robomimic(folder / "log.hdf5", BOTH))
    words = ("data", "import", path, "--id", NEW)
    told = terminal.told(*words, status=3)
    assert "'dones' marks an end in each of 4 demonstrations" in told
    found = {}
    for k, way in enumerate(("terminated=dones", "unused=dones", "terminated=rewards")):
        assert f"--ends {way}" in told
        terminal.done(*words[:4], f"me/n{k}-v0", "--ends", way)
        found[way] = ends(load_episodes(f"me/n{k}-v0"))
    assert found == {
        "terminated=dones": [
            (3, True, False),
            (1, True, False),
            (4, True, False),
            (2, True, False),
        ],
        "unused=dones": [(3, False, True), (1, False, True), (5, False, True), (2, False, True)],
        "terminated=rewards": [
            *((3, True, False), (1, False, True), (4, True, False), (2, False, True))
        ],
    }


@pytest.mark.parametrize("dense", [False, True])
def test_dones_at_every_end_are_believed_where_sparse_rewards_agree(
    dense: bool, folder: Path
) -> None:
    demos = ((2, 1), (3, 2))
    path = write_robomimic(folder / "log.hdf5", demos, **{"mask/train": None, "mask/valid": None})
    if dense:
        with h5py.File(path, "r+") as file:
            file["data/demo_0/rewards"][0] = 0.25
        with pytest.raises(DataError, match="Say which"):
            imported(path)
    else:
        assert ends(imported(path).episodes) == [(3, True, False), (4, True, False)]


def test_without_dones_every_end_is_truncated(folder: Path) -> None:
    gone = {f"data/demo_{k}/dones": None for k in range(3)}
    done = imported(write_robomimic(folder / "log.hdf5", **gone))
    assert ends(done.episodes) == [(3, False, True), (1, False, True), (5, False, True)]
    assert any("every end counts as truncated" in note for note in done.notes)


def test_demonstrations_without_rewards_are_told_how_to_get_some(
    folder: Path, terminal: Terminal
) -> None:
    gone = {f"data/demo_{k}/rewards": None for k in range(3)}
    path = write_robomimic(folder / "log.hdf5", **gone)
    words = ("data", "import", path, "--id", NEW)
    assert "--reward constant:0" in terminal.told(*words, status=3)
    terminal.done(*words, "--reward", "constant:0")
    terminal.done(*words[:4], "me/marks-v0", "--reward-from", "dones")
    assert load_episodes("me/marks-v0").reward.tolist() == [0, 0, 1, 0, 0, 0, 0, 1]


# -- what it is known by


@follows("--format robomimic names the columns, and so does the mapping: leave one of them out")
def test_a_mapping_reads_a_demonstration_as_arrays(folder: Path, terminal: Terminal) -> None:
    path = write_robomimic(folder / "log.hdf5")
    names = {"observation": "obs/object", "action": "actions", "reward": "rewards"}
    names |= {"terminated": "dones", "next_observation": "next_obs/object"}
    lines = [f"{role}: data/demo_0/{name}" for role, name in names.items()]
    mapping = written(folder / "m.yaml", "\n".join(lines))
    words = ("data", "import", path, "--id", NEW, "--mapping", mapping, "--action-low=-1")
    words = (*words, "--action-high=1", "--only-terminations")
    assert "leave one of them out" in terminal.told(*words, "--format", "robomimic")
    terminal.done(*words)
    assert load_episodes(NEW).obs.tolist() == [[0, 100], [1, 101], [2, 102]]
    terminal.done("data", "import", path, "--id", "me/whole-v0", "--format", "robomimic")


@follows("it has no observations, only the simulator's states: extract observations with ")
def test_a_raw_recording_offers_its_states(folder: Path, terminal: Terminal) -> None:
    gone = {f"data/demo_{k}/obs": None for k in range(3)}
    path = write_robomimic(folder / "log.hdf5", **gone)
    words = ("data", "import", path, "--id", NEW)
    assert "--obs-keys states" in terminal.told(*words, status=3)
    terminal.done(*words, "--obs-keys", "states")
    assert load_episodes(NEW).observations.shape[1] == 5


def test_a_file_without_demonstrations_is_none_of_robomimics(folder: Path) -> None:
    with h5py.File(folder / "log.hdf5", "w") as file:
        file["data/x/y"] = np.zeros(3)
    with pytest.raises(DataError, match="D4RL"):
        imported(folder / "log.hdf5")
    with pytest.raises(DataError, match="no demonstrations"):
        imported(folder / "log.hdf5", format="robomimic")


# -- what is damaged, and what is hostile


@pytest.mark.parametrize(
    ("name", "array", "word"),
    [
        ("data/demo_1/actions", np.zeros((2, 2)), "'num_samples' says 1|beside 2 actions"),
        ("data/demo_2/actions", np.zeros((5, 3)), "others of"),
        ("data/demo_2/actions", np.zeros((0, 2)), "0 actions"),
        ("data/demo_2/obs/eef", np.zeros((4, 1)), "has 4 rows beside 5 actions"),
        ("data/demo_2/obs/object", np.zeros((5, 9)), "rows of the shape"),
        ("data/demo_2/rewards", np.zeros((5, 2)), "rewards"),
        ("data/demo_2/rewards", np.array([b"x"] * 5), "of type"),
        ("data/demo_2/obs/eef", None, "there is no 'eef'"),
        ("data/demo_0/dones", np.zeros(2), "has 2 rows beside 3 actions"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_named(
    name: str, array: Any, word: str, folder: Path
) -> None:
    path = write_robomimic(folder / "log.hdf5", **{name: array})
    with pytest.raises(DataError, match=word) as caught:
        imported(path)
    assert str(path) in str(caught.value)


def test_a_total_that_is_another_is_refused(folder: Path) -> None:
    path = write_robomimic(folder / "log.hdf5")
    with h5py.File(path, "r+") as file:
        file["data"].attrs["total"] = 10**15
    with pytest.raises(DataError, match="'total' says 1,000,000,000,000,000"):
        imported(path)


@pytest.mark.parametrize("name", ["obs/eef", "actions", "rewards", "next_obs/object", "dones"])
def test_an_array_that_claims_more_than_the_file_is_refused(name: str, folder: Path) -> None:
    path = write_robomimic(folder / "log.hdf5")
    with h5py.File(path, "r+") as file:
        put(file, f"data/demo_0/{name}", Claim(2**40, 2))
    with pytest.raises(DataError, match="claims"):
        imported(path)


def external(file: h5py.File, name: str, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(800))
    file.create_dataset(name, (3, 1), "f8", external=[(str(folder / "secret"), 0, 24)])


@pytest.mark.parametrize("way", ["soft", "external", "stored elsewhere"])
@pytest.mark.parametrize(
    "name", ["data/demo_0/obs/eef", "data/demo_2/obs/eef", "data/demo_0", "data/demo_0/actions"]
)
def test_nothing_behind_a_link_or_in_another_file_is_read(
    way: str, name: str, folder: Path
) -> None:
    path, other = write_robomimic(folder / "log.hdf5"), write_robomimic(folder / "other.hdf5")
    with h5py.File(path, "r+") as file:
        del file[name]
        if way == "stored elsewhere" and name != "data/demo_0":
            external(file, name, folder)
        else:
            soft = h5py.SoftLink(f"/{name.replace('demo_0', 'demo_1')}")
            file[name] = soft if way == "soft" else h5py.ExternalLink(str(other), name)
    with pytest.raises(DataError, match=r"only what lies in the file|only this one"):
        imported(path, format="robomimic")


def test_what_nothing_asks_for_may_hold_anything(folder: Path) -> None:
    path = write_robomimic(folder / "log.hdf5")
    with h5py.File(path, "r+") as file:
        for number in range(3):
            put(file, f"data/demo_{number}/obs/cam_image", Claim(2**40, 9, 9))
            put(file, f"data/demo_{number}/states", np.array([b"words"] * 2))
        file["data/demo_0/far"] = h5py.ExternalLink("/nowhere.hdf5", "x")
        file["data/demo_0/note"] = h5py.SoftLink("/nowhere")
        file["data/plan"] = np.arange(3)
        put(file, "mask/train", Claim(2**40))
        put(file, "mask/valid", np.array([b"demo_7"]))
    done = imported(path)
    assert len(done.episodes.lengths) == 3
    assert "filter keys that can't be read: train, valid" in done.notes


def test_a_filter_key_that_repeats_a_long_word_is_refused_at_the_first(folder: Path) -> None:
    """As an array it would be a word of megabytes for each demonstration."""
    path = write_robomimic(folder / "log.hdf5")
    with h5py.File(path, "r+") as file:
        put(file, "mask/train", np.array(["x" * 2**20] * 3, dtype=h5py.string_dtype()))
    with pytest.raises(DataError, match="no list of demonstrations"):
        imported(path, mask="train")


def test_a_filter_key_of_nobody_is_refused(folder: Path) -> None:
    path = write_robomimic(folder / "log.hdf5")
    with h5py.File(path, "r+") as file:
        put(file, "mask/train", np.array([b"demo_0", b"demo_9"]))
    with pytest.raises(DataError, match="names 'demo_9'"):
        imported(path, mask="train")
    with h5py.File(path, "r+") as file:
        del file["mask"]
    with pytest.raises(UsageError, match="it has no filter keys"):
        imported(path, mask="train")


def test_the_file_that_says_nothing_more_than_it_must_is_enough(folder: Path) -> None:
    path = write_robomimic(folder / "log.hdf5", **{"mask/train": None, "mask/valid": None})
    with h5py.File(path, "r+") as file:
        assert file["data"].attrs["env_args"] == ENV_ARGS
        for name in ("env_args", "total"):
            del file["data"].attrs[name]
        for demo in file["data"].values():
            del demo.attrs["num_samples"], demo["states"]
    assert imported(path).episodes.lengths.tolist() == [3, 1, 4]


@pytest.mark.torture
def test_a_damaged_file_is_refused_in_words_or_read(folder: Path) -> None:
    path, refused = write_robomimic(folder / "log.hdf5"), 0
    for _ in damaged(path, PLACES):
        for mapping in (None, said(None, None, format="robomimic", mask="train")):
            try:
                read_file(path, mapping)
            except (DataError, UsageError):
                refused += 1
    assert refused > PLACES / 10

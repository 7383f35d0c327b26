"""What files mean: which transitions a log of each format holds, and what it needs to be told."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import numpy.typing as npt
import pyarrow
import pytest
import yaml
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pyarrow import parquet

from baq_cli.cli.main import main
from baq_cli.data.checks import content_findings
from baq_cli.data.cutting import CutRules
from baq_cli.data.d4rl import read_d4rl
from baq_cli.data.episodes import Episodes
from baq_cli.data.exchange import Imported, export_file, import_file, save_arrays
from baq_cli.data.logfile import Setting, to_recording
from baq_cli.data.mapping import read_mapping
from baq_cli.data.minari_folder import dataset_path, local_datasets, open_minari
from baq_cli.data.minari_read import load_episodes, read_recording
from baq_cli.data.minari_write import write_minari
from baq_cli.data.recording import Recording
from baq_cli.errors import BaqError, DataError, ExitStatus, UsageError

Array = npt.NDArray[Any]
Columns = dict[str, Any]
NEW = "me/new-v0"
PARITY = CutRules(drop_last_truncated=True)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "home" / "minari"))
    monkeypatch.setenv("BAQ_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def short_env() -> Iterator[str]:
    """An environment of three observations and a torque in [−2, 2]; it stops after three steps."""
    gym.register("Short-v0", "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=3)
    yield "Short-v0"
    gym.registry.pop("Short-v0")


Said = tuple[int, str]


@pytest.fixture
def baq_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Run `baq` in this process; return its status and what it wrote to stderr."""

    def run(*words: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["baq", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    return run


def bounded(rules: CutRules | None = None, width: float = 1.0) -> Setting:
    return Setting(None, [-width], [width], rules or CutRules())


def ends(episodes: Episodes) -> list[tuple[int, bool, bool]]:
    """Return each episode's length and the flags of its last step."""
    last = episodes.starts + episodes.lengths - 1
    flags = (episodes.terminated[last].tolist(), episodes.truncated[last].tolist())
    return list(zip(episodes.lengths.tolist(), *flags, strict=True))


# -- D4RL: the same transitions as qlearning_dataset


def d4rl_arrays(
    terminals: list[int], timeouts: list[int] | None, limit: int | None, recorded: bool
) -> Columns:
    """Return a D4RL file's arrays, every number in them another one.

    `limit` decides the ends of a file without timeouts; `recorded`: with next observations.
    """
    rows = len(terminals)
    index = np.arange(rows)
    observations = np.stack([index, 0.5 - index], axis=1)
    arrays: Columns = {
        "observations": observations,
        "actions": (index[:, None] - 8) / 16,
        "rewards": 100.0 + index,
        "terminals": np.asarray(terminals, dtype=bool),
    }
    if timeouts is not None:
        arrays["timeouts"] = np.asarray(timeouts, dtype=bool)
    if recorded:
        following = np.roll(observations, -1, axis=0)
        for row in end_rows(arrays, limit):
            following[row] = [1000 + row, -row]
        arrays["next_observations"] = following
    return arrays


def end_rows(arrays: Columns, limit: int | None) -> list[int]:
    """Return the rows at which an episode ends: a flag, the limit, or the last row."""
    found, step = [], 0
    for i, done in enumerate(arrays["terminals"]):
        final = arrays["timeouts"][i] if "timeouts" in arrays else step == limit - 1
        step += 1
        if done or final or i == len(arrays["terminals"]) - 1:
            found.append(i)
            step = 0
    return found


def qlearning_dataset(arrays: Columns, limit: int | None) -> list[tuple[Any, ...]]:
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


def every_known_transition(arrays: Columns, limit: int | None) -> list[tuple[Any, ...]]:
    """All rows, truncated ends only where their next observation is recorded."""
    out, last = [], end_rows(arrays, limit)
    for i, done in enumerate(arrays["terminals"].tolist()):
        if "next_observations" in arrays:
            out.append(transition(arrays, i, arrays["next_observations"][i], done))
        elif done or i not in last:
            out.append(transition(arrays, i, None if done else arrays["observations"][i + 1], done))
    return out


def transition(arrays: Columns, row: int, new_obs: Any, done: bool) -> tuple[Any, ...]:
    """Return one transition; the next observation after a termination is compared if recorded."""
    if done and "next_observations" not in arrays:
        new_obs = None
    state = arrays["observations"][row].tolist(), arrays["actions"][row].tolist()
    return (*state, float(arrays["rewards"][row]), None if new_obs is None else [*new_obs], done)


def transitions(episodes: Episodes, arrays: Columns) -> list[tuple[Any, ...]]:
    """Return the imported transitions in the same form."""
    masked = episodes.terminated & ("next_observations" not in arrays)
    return [
        (obs.tolist(), action.tolist(), float(reward), None if hide else next_obs.tolist(), done)
        for obs, action, reward, next_obs, done, hide in zip(
            episodes.obs,
            episodes.action,
            episodes.reward,
            episodes.next_obs,
            episodes.terminated.tolist(),
            masked,
            strict=True,
        )
    ]


def write_d4rl_file(path: Path, arrays: Columns) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


# a termination, a timeout, both at once, a timeout after one step, and an episode cut off
TERMINALS = [0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
TIMEOUTS_ = [0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("recorded", [True, False], ids=["next observations", "none"])
@pytest.mark.parametrize("timed", [True, False], ids=["timeouts", "limit"])
def test_a_d4rl_file_without_its_last_truncated_transitions_is_what_d4rl_makes_of_it(
    timed: bool, recorded: bool, tmp_path: Path
) -> None:
    limit = None if timed else 3
    arrays = d4rl_arrays(TERMINALS, TIMEOUTS_ if timed else None, limit, recorded)
    path = write_d4rl_file(tmp_path / "a.hdf5", arrays)
    done = import_file(path, NEW, bounded(CutRules(limit, drop_last_truncated=True)), None)
    expected = qlearning_dataset(arrays, limit)
    assert transitions(done.episodes, arrays) == expected
    # timeouts: rows 5, 7, 8 and 12; the limit: rows 2, 5, 10 and 12
    assert done.lost == len(TERMINALS) - len(expected) == 4
    assert transitions(load_episodes(NEW), arrays) == expected


@pytest.mark.parametrize("recorded", [True, False], ids=["next observations", "none"])
@pytest.mark.parametrize("timed", [True, False], ids=["timeouts", "limit"])
def test_a_d4rl_file_keeps_a_last_truncated_transition_if_its_next_observation_is_recorded(
    timed: bool, recorded: bool, tmp_path: Path
) -> None:
    limit = None if timed else 3
    arrays = d4rl_arrays(TERMINALS, TIMEOUTS_ if timed else None, limit, recorded)
    path = write_d4rl_file(tmp_path / "a.hdf5", arrays)
    done = import_file(path, NEW, bounded(CutRules(limit)), None)
    assert transitions(done.episodes, arrays) == every_known_transition(arrays, limit)
    # not recorded: timeouts lose rows 5, 8 and 12, the limit rows 5, 10 and 12
    assert done.lost == (0 if recorded else 3)


def test_the_ends_of_a_d4rl_file_are_those_of_its_flags(tmp_path: Path) -> None:
    path = write_d4rl_file(tmp_path / "a.hdf5", d4rl_arrays(TERMINALS, TIMEOUTS_, None, True))
    assert ends(import_file(path, NEW, bounded(), None).episodes) == [
        (3, True, False),
        (3, False, True),
        (2, True, True),
        (1, False, True),
        (4, False, True),
    ]
    parity = import_file(path, "me/parity-v0", bounded(PARITY), None).episodes
    assert ends(parity) == [(3, True, False), (2, False, True), (1, False, True), (3, False, True)]


def test_d4rl_leaves_out_the_last_row_even_where_it_terminated(tmp_path: Path) -> None:
    arrays = d4rl_arrays([0, 1, 0, 1], [0, 0, 0, 0], None, True)
    path = write_d4rl_file(tmp_path / "a.hdf5", arrays)
    assert ends(import_file(path, NEW, bounded(), None).episodes) == [(2, True, False)] * 2
    parity = import_file(path, "me/parity-v0", bounded(PARITY), None)
    assert ends(parity.episodes) == [(2, True, False), (1, False, True)]
    assert parity.lost == 1


def test_the_next_observation_after_a_termination_is_never_one_of_the_next_episode(
    tmp_path: Path,
) -> None:
    arrays = d4rl_arrays([0, 1, 0, 0], [0, 0, 0, 1], None, False)
    done = import_file(write_d4rl_file(tmp_path / "a.hdf5", arrays), NEW, bounded(), None)
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
    with tempfile.TemporaryDirectory() as folder:
        log = read_d4rl(write_d4rl_file(Path(folder) / "a.hdf5", arrays))
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
@pytest.mark.parametrize("recorded", [True, False], ids=["next observation", "none"])
def test_a_file_of_one_row_is_one_transition_if_anything_follows_or_it_terminated(
    recorded: bool, terminal: int, tmp_path: Path
) -> None:
    arrays = d4rl_arrays([terminal], [0], None, recorded)
    path = write_d4rl_file(tmp_path / "a.hdf5", arrays)
    if not recorded and not terminal:
        with pytest.raises(DataError, match="no transition of the log can be kept"):
            import_file(path, NEW, bounded(), None)
        return
    done = import_file(path, NEW, bounded(), None)
    assert transitions(done.episodes, arrays) == every_known_transition(arrays, None)
    assert ends(done.episodes) == [(1, bool(terminal), not terminal)]


def test_after_a_termination_the_limit_counts_from_the_next_episodes_first_step(
    tmp_path: Path,
) -> None:
    """D4RL counts from its second there, and leaves out row 3 instead of row 4, the true last.

    What it keeps as row 4's next observation is the first of another episode.
    """
    arrays = d4rl_arrays([0, 1, 0, 0, 0, 0, 0], None, 3, False)
    path = write_d4rl_file(tmp_path / "a.hdf5", arrays)
    done = import_file(path, NEW, bounded(CutRules(3, drop_last_truncated=True)), None)
    assert (done.episodes.reward - 100).tolist() == [0, 1, 2, 3, 5]
    assert done.episodes.lengths.tolist() == [2, 2, 1]


# -- files that don't say where episodes end


def short_arrays(recorded: bool = True) -> Columns:
    """Return eight rows for the short environment, with one termination and no timeouts."""
    index = np.arange(8.0)
    arrays = {
        "observations": np.stack([index, index + 0.5, -index], axis=1),
        "actions": np.linspace(-2, 2, 8)[:, None],
        "rewards": index,
        "terminals": np.arange(8) == 3,
    }
    if recorded:
        arrays["next_observations"] = np.roll(arrays["observations"], -1, axis=0)
    return arrays


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
    rules: CutRules, lengths: list[int], short_env: str, tmp_path: Path
) -> None:
    path = write_d4rl_file(tmp_path / "a.hdf5", short_arrays())
    done = import_file(path, NEW, Setting(short_env, rules=rules), None)
    assert done.episodes.lengths.tolist() == lengths
    assert np.flatnonzero(done.episodes.terminated).tolist() == [3]
    spec = open_minari(NEW).env_spec
    assert spec is not None
    assert (spec.id, spec.max_episode_steps) == (short_env, 3)


def test_without_timeouts_limit_or_environment_a_file_is_refused_with_the_flags_that_decide(
    baq_here: Callable[..., Said], tmp_path: Path
) -> None:
    path = write_d4rl_file(tmp_path / "a.hdf5", short_arrays())
    words = ("data", "import", path, "--id", NEW, "--action-low", "-2", "--action-high", "2")
    status, said = baq_here(*words)
    assert status == ExitStatus.DATA
    assert "--max-episode-steps" in said
    assert "--only-terminations" in said
    assert local_datasets() == []
    assert baq_here(*words, "--only-terminations")[0] == 0
    assert load_episodes(NEW).lengths.tolist() == [4, 4]


def test_a_jump_of_the_observations_is_no_end(tmp_path: Path) -> None:
    arrays = short_arrays(recorded=False)
    arrays["observations"][6] = 1e6
    path = write_d4rl_file(tmp_path / "a.hdf5", arrays)
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


def test_missing_rows_are_refused_with_their_count_and_place(tmp_path: Path) -> None:
    path = write_d4rl_file(tmp_path / "a.hdf5", gappy())
    with pytest.raises(DataError, match=r"in 2 of 6 rows, first in row 1, .*--split-gaps"):
        import_file(path, NEW, bounded(), None)
    assert local_datasets() == []


def test_split_gaps_begins_an_episode_at_each(tmp_path: Path) -> None:
    path = write_d4rl_file(tmp_path / "a.hdf5", gappy())
    done = import_file(path, NEW, bounded(CutRules(split_gaps=True)), None)
    assert ends(done.episodes) == [(2, False, True)] * 3
    assert done.episodes.next_obs.ravel().tolist() == [1, 2, 4, 5, 8, 9]
    assert done.lost == 0


def test_missing_rows_inside_a_numbered_episode_are_refused_too(tmp_path: Path) -> None:
    """Otherwise row 1 would lead to row 2's observation, and not to the one recorded."""
    path = write_d4rl_file(tmp_path / "a.hdf5", gappy(episode_ids=np.array([0, 0, 0, 0, 1, 1])))
    with pytest.raises(DataError, match="in 1 of 6 rows, first in row 1"):
        import_file(path, NEW, bounded(), None)


def test_split_gaps_splits_numbered_episodes_too(tmp_path: Path) -> None:
    path = write_d4rl_file(tmp_path / "a.hdf5", gappy(episode_ids=np.array([0, 0, 0, 0, 1, 1])))
    done = import_file(path, NEW, bounded(CutRules(split_gaps=True)), None)
    assert done.episodes.next_obs.ravel().tolist() == [1, 2, 4, 5, 8, 9]
    assert done.episodes.lengths.tolist() == [2, 2, 2]


def test_an_episode_whose_number_comes_back_is_refused(tmp_path: Path) -> None:
    arrays = d4rl_arrays([0] * 6, None, 6, False)
    arrays["episode_ids"] = np.array([4, 4, 7, 7, 4, 4])
    path = write_d4rl_file(tmp_path / "a.hdf5", arrays)
    with pytest.raises(DataError, match=r"number comes back .*Sort the rows"):
        import_file(path, NEW, bounded(), None)


def test_episode_numbers_need_only_differ(tmp_path: Path) -> None:
    arrays = d4rl_arrays([0, 0, 1, 0, 0, 0], None, 6, False)
    arrays["episode_ids"] = np.array([9, 9, 9, 2, 2, 2])
    path = write_d4rl_file(tmp_path / "a.hdf5", arrays)
    done = import_file(path, NEW, bounded(), None)
    assert ends(done.episodes) == [(3, True, False), (2, False, True)]


# -- tables and mappings

FORMS = ("csv", "npz", "parquet")


def write_table(form: str, folder: Path, columns: Columns, name: str = "log") -> Path:
    """Write columns of equal length; in a .csv None is an empty cell."""
    path = folder / f"{name}.{form}"
    if form == "csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    elif form == "npz":
        floats = {n: [np.nan if v is None else v for v in c] for n, c in columns.items()}
        np.savez(path, **{n: np.asarray(column) for n, column in floats.items()})
    else:
        parquet.write_table(pyarrow.table(columns), path)
    return path


def import_table(
    path: Path,
    mapping: dict[str, Any] | None,
    setting: Setting | None = None,
    dataset_id: str = NEW,
) -> Imported:
    """Import a table by a mapping that is written beside it."""
    read = None
    if mapping is not None:
        beside = path.with_suffix(".yaml")
        beside.write_text(yaml.safe_dump(mapping))
        read = read_mapping(beside)
    return import_file(path, dataset_id, setting or bounded(), read)


ROBOT: Columns = {
    "note": ["start", "", "fell, badly", "x"],
    "q_2": [1.0, 2, 3, 4],
    "u_b": [0.5, 0.25, -0.5, 0],
    "q_10": [10.0, 20, 30, 40],
    "r": [1.0, 2, 4, 8],
    "u_a": [0, -0.25, 0.75, 1.0],
    "q_1": [-1.0, -2, -3, -4],
    "fell": [False, True, False, False],
    "stopped": [False, False, False, True],
}
ROBOT_ENDS = {"reward": "r", "terminated": "fell", "truncated": "stopped"}


@pytest.mark.parametrize("form", FORMS)
def test_patterns_stand_for_columns_in_the_files_order(form: str, tmp_path: Path) -> None:
    path = write_table(form, tmp_path, ROBOT)
    done = import_table(path, {"observation": "q_*", "action": ["u_*"], **ROBOT_ENDS})
    # the last row's observation is the next one of the step before it
    assert done.episodes.obs.tolist() == [[1, 10, -1], [2, 20, -2], [3, 30, -3]]
    assert done.episodes.next_obs[2].tolist() == [4, 40, -4]
    assert done.episodes.action.tolist() == [[0.5, 0], [0.25, -0.25], [-0.5, 0.75]]
    assert done.episodes.reward.tolist() == [1, 2, 4]
    assert ends(done.episodes) == [(2, True, False), (1, False, True)]


def test_names_before_a_pattern_come_first_and_no_column_comes_twice(tmp_path: Path) -> None:
    path = write_table("csv", tmp_path, ROBOT)
    done = import_table(path, {"observation": ["q_1", "q_*"], "action": "u_?", **ROBOT_ENDS})
    assert done.episodes.obs[0].tolist() == [-1, 1, 10]


@pytest.mark.parametrize("form", FORMS)
def test_a_mapping_by_part_makes_a_dict_observation(form: str, tmp_path: Path) -> None:
    path = write_table(form, tmp_path, ROBOT)
    parts = {"goal": "q_2", "arm": ["q_10", "q_1"]}
    done = import_table(path, {"observation": parts, "action": "u_*", **ROBOT_ENDS})
    assert done.episodes.spaces.obs_layout == (("arm", 2), ("goal", 1))
    assert done.episodes.obs[1].tolist() == [20, -2, 2]
    space = open_minari(NEW).spaces[0]
    assert isinstance(space, gym.spaces.Dict)
    assert {name: box.shape for name, box in space.items()} == {"arm": (2,), "goal": (1,)}


def test_parts_may_lie_in_parts(tmp_path: Path) -> None:
    path = write_table("csv", tmp_path, ROBOT)
    parts = {"arm/wrist": "q_2", "arm/elbow": "q_1", "goal": "q_10"}
    done = import_table(path, {"observation": parts, "action": "u_*", **ROBOT_ENDS})
    assert done.episodes.spaces.obs_layout == (("arm/elbow", 1), ("arm/wrist", 1), ("goal", 1))
    assert done.episodes.obs[0].tolist() == [-1, 1, 10]


@pytest.mark.parametrize(
    "parts",
    [{"arm": "q_1", "arm/wrist": "q_2"}, {"arm/wrist": "q_2", "arm": "q_1"}],
    ids=["outer first", "inner first"],
)
def test_a_part_that_is_also_a_parent_is_refused(parts: dict[str, str], tmp_path: Path) -> None:
    path = write_table("csv", tmp_path, ROBOT)
    with pytest.raises(BaqError, match="arm"):
        import_table(path, {"observation": parts, "action": "u_*", **ROBOT_ENDS})


@pytest.mark.parametrize("form", FORMS)
def test_next_observation_columns_keep_a_truncated_episodes_last_step(
    form: str, tmp_path: Path
) -> None:
    columns = {**ROBOT, "next_1": [-2.0, -9, -4, -5]}
    path = write_table(form, tmp_path, columns)
    mapping = {"observation": "q_1", "action": "u_a", "next_observation": "next_*", **ROBOT_ENDS}
    done = import_table(path, mapping)
    assert done.episodes.next_obs.ravel().tolist() == [-2, -9, -4, -5]
    assert done.episodes.reward.tolist() == [1, 2, 4, 8]
    assert ends(done.episodes) == [(2, True, False), (2, False, True)]
    assert done.lost == 0


@pytest.mark.parametrize("following", ["q_1", {"arm": "q_1"}], ids=["flat", "by part"])
def test_next_observations_of_another_width_are_refused(following: Any, tmp_path: Path) -> None:
    path = write_table("csv", tmp_path, ROBOT)
    observation = {"arm": "q_*"} if isinstance(following, dict) else "q_*"
    mapping = {"observation": observation, "next_observation": following, "action": "u_a"}
    with pytest.raises(DataError, match="observation"):
        import_table(path, {**mapping, **ROBOT_ENDS})


@pytest.mark.parametrize("form", FORMS)
def test_episodes_may_be_named_by_words(form: str, tmp_path: Path) -> None:
    columns = {**ROBOT, "run": ["tuesday", "tuesday", "monday", "monday"]}
    path = write_table(form, tmp_path, columns)
    mapping = {"observation": "q_1", "action": "u_a", "reward": "r", "episode": "run"}
    done = import_table(path, mapping)
    assert ends(done.episodes) == [(1, False, True), (1, False, True)]
    assert done.episodes.observations.ravel().tolist() == [-1, -2, -3, -4]
    assert done.lost == 2


def test_true_and_false_are_flags_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "obs,action,reward,terminated,truncated\n"
        "1,0.5,1,false,FALSE\n2,0.5,2,True,false\n3,0.5,4,False,0\n4,0.5,8,0,TRUE\n"
    )
    assert ends(import_table(path, None).episodes) == [(2, True, False), (1, False, True)]


# A log that writes each episode's last observation in a row of its own
BARE: Columns = {
    "obs": [1.0, 2, 3, 4, 5],
    "action": [0.5, 0.25, None, -0.5, None],
    "reward": [1.0, 2, None, 4, None],
    "terminated": [0.0, 1, None, 0, None],
    "truncated": [0.0, 0, None, 0, 1],
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_an_observation_alone_are_final_observations(form: str, tmp_path: Path) -> None:
    done = import_table(write_table(form, tmp_path, BARE), None)
    assert done.episodes.observations.ravel().tolist() == [1, 2, 3, 4, 5]
    assert done.episodes.reward.tolist() == [1, 2, 4]
    assert ends(done.episodes) == [(2, True, False), (1, False, True)]
    assert done.lost == 0


def test_empty_flags_of_such_a_row_in_a_parquet_are_no_harm(tmp_path: Path) -> None:
    """Pandas writes them as null in a column of booleans."""
    columns = {
        **BARE,
        "terminated": [False, True, None, False, None],
        "truncated": [False, False, None, False, True],
    }
    done = import_table(write_table("parquet", tmp_path, columns), None)
    assert ends(done.episodes) == [(2, True, False), (1, False, True)]


def test_a_final_observation_never_comes_from_another_episode(tmp_path: Path) -> None:
    """Episode 0 has no row of its own for it, episode 1 has: 3 is no successor of 2."""
    path = tmp_path / "log.csv"
    path.write_text("episode,obs,action,reward\n0,1,.5,1\n0,2,.5,2\n1,3,.5,4\n1,4,,\n")
    try:
        episodes = import_table(path, None).episodes
    except DataError:
        return  # refusing is as good
    pairs = set(zip(episodes.obs.ravel().tolist(), episodes.next_obs.ravel().tolist(), strict=True))
    assert (2, 3) not in pairs


def test_a_final_observation_inside_an_episode_isnt_passed_over(tmp_path: Path) -> None:
    """The episode's number says that 3 follows, the row before it that 2 does."""
    path = tmp_path / "log.csv"
    path.write_text("episode,obs,action,reward\n0,1,.5,1\n0,2,,\n0,3,.5,4\n0,4,,\n")
    with pytest.raises(DataError, match="row"):
        import_table(path, None)


@pytest.mark.parametrize("kind", ["list_", "large_list"])
def test_a_parquet_may_have_lists_of_equal_length(kind: str, tmp_path: Path) -> None:
    """Polars writes large lists."""
    pairs = pyarrow.array([[1.0, 2], [3, 4], [5, 6]], getattr(pyarrow, kind)(pyarrow.float64()))
    columns = {"action": [0.5, 0, -0.5], "reward": [1.0, 2, 4], "terminated": [0, 0, 1]}
    path = write_table("parquet", tmp_path, {"obs": pairs, **columns})
    done = import_table(path, None, bounded(CutRules(only_terminations=True)))
    assert done.episodes.obs.tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("form", FORMS)
def test_a_column_of_text_is_no_harm_unless_it_is_mapped(form: str, tmp_path: Path) -> None:
    path = write_table(form, tmp_path, ROBOT)
    mapping = {"observation": "q_1", "action": "u_a", **ROBOT_ENDS}
    assert import_table(path, mapping).episodes.lengths.tolist() == [2, 1]
    with pytest.raises(DataError, match=r"expected (a )?number"):
        import_table(path, {**mapping, "observation": "note"}, dataset_id="me/other-v0")
    assert local_datasets() == [NEW]


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_known_by_custom_without_a_mapping(form: str, tmp_path: Path) -> None:
    columns = {"note": ["a", "b", "c"], "observation": [1.0, 2, 3], "action": [0.5, 0, -0.5]}
    columns |= {"reward": [1.0, 2, 4], "terminals": [0, 0, 1], "timeouts": [0, 1, 0]}
    path = write_table(form, tmp_path, columns)
    assert ends(import_table(path, None).episodes) == [(1, False, True), (1, True, False)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"observatoin": "q_1"}, "unknown key 'observatoin'; did you mean 'observation'"),
        ({"observation": "q_11"}, "no column 'q_11'; did you mean 'q_1'"),
        ({"reward": "rr"}, "no column 'rr'; did you mean 'r'"),
        ({"action": ["u_a", "zz_*"]}, r"no column 'zz_\*'"),
        ({"reward": None}, "reward"),
        ({"observation": 5}, "observation"),
    ],
)
def test_a_wrong_mapping_is_refused_with_the_nearest_name(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = write_table("csv", tmp_path, ROBOT)
    mapping = {"observation": "q_*", "action": "u_*", **ROBOT_ENDS, **change}
    with pytest.raises(UsageError, match=said):
        import_table(path, mapping)


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "7"])
def test_a_mapping_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"map\.yaml"):
        read_mapping(path)


def test_a_d4rl_file_takes_no_mapping(tmp_path: Path) -> None:
    path = write_d4rl_file(tmp_path / "a.hdf5", short_arrays())
    with pytest.raises(UsageError, match="leave --mapping out"):
        import_table(path, {"observation": "q_*", "action": "u_*", **ROBOT_ENDS})


# -- action bounds

PLAIN = {"observation": "q_*", "action": "u_*", **ROBOT_ENDS}


@pytest.fixture
def import_robot(baq_here: Callable[..., Said], tmp_path: Path) -> Callable[..., Said]:
    """Import the robot's log with entries of the mapping and flags."""

    def run(mapping: dict[str, Any], *words: str) -> Said:
        path = write_table("csv", tmp_path, ROBOT)
        path.with_suffix(".yaml").write_text(yaml.safe_dump({**PLAIN, **mapping}))
        beside = path.with_suffix(".yaml")
        return baq_here("data", "import", path, "--id", NEW, "--mapping", beside, *words)

    return run


@pytest.mark.parametrize(
    ("mapping", "words", "low", "high"),
    [
        ({}, ("--action-low", "-1", "--action-high", "1"), [-1, -1], [1, 1]),
        ({}, ("--action-low=-1,-2", "--action-high=1.5"), [-1, -2], [1.5, 1.5]),
        ({"action_low": -3, "action_high": [1, 4]}, (), [-3, -3], [1, 4]),
        ({"action_low": -3, "action_high": 3}, ("--action-low=-1", "--action-high=1"), -1, 1),
        ({"env": "Short-v0"}, ("--action-low=-1", "--action-high=1"), -1, 1),
    ],
    ids=["one number", "one each", "the mapping", "flags before bounds", "flags before an env"],
)
def test_bounds_come_from_flags_or_else_the_mapping(
    mapping: dict[str, Any],
    words: tuple[str, ...],
    low: Any,
    high: Any,
    import_robot: Callable[..., Said],
) -> None:
    status, said = import_robot(mapping, *words)
    assert status == 0, said
    space = open_minari(NEW).spaces[1]
    assert isinstance(space, gym.spaces.Box)
    assert_array_equal(space.low, np.broadcast_to(low, 2))
    assert_array_equal(space.high, np.broadcast_to(high, 2))


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"env": "Short-v0"}, ()),
        ({}, ("--env", "Short-v0")),
        ({"env": "No-v0"}, ("--env", "Short-v0")),
    ],
    ids=["the mapping", "a flag", "a flag before the mapping"],
)
def test_bounds_come_from_the_environment(
    mapping: dict[str, Any],
    words: tuple[str, ...],
    short_env: str,
    import_robot: Callable[..., Said],
) -> None:
    status, said = import_robot({"action": "u_a", **mapping}, *words)
    assert status == 0, said
    assert load_episodes(NEW).action.ravel().tolist() == [0, -0.125, 0.375]  # of [−2, 2]
    assert open_minari(NEW).spaces[1] == gym.spaces.Box(-2, 2, (1,))


@pytest.mark.parametrize(
    ("mapping", "words", "status", "said"),
    [
        ({}, (), ExitStatus.DATA, "--env ID), or give --action-low and --action-high"),
        ({}, ("--action-low=-1",), ExitStatus.USAGE, "two bounds"),
        ({}, ("--action-high=1",), ExitStatus.USAGE, "two bounds"),
        ({"action_low": -1}, (), ExitStatus.USAGE, "two bounds"),
        (
            {},
            ("--env", "Short-v0", "--action-low=-1", "--action-high=1"),
            ExitStatus.USAGE,
            "leave --action-low and --action-high out",
        ),
        (
            {"env": "Short-v0", "action_low": -1, "action_high": 1},
            (),
            ExitStatus.USAGE,
            "leave --action-low and --action-high out",
        ),
        ({}, ("--action-low=x", "--action-high=1"), ExitStatus.USAGE, "expected a number"),
        ({}, ("--action-low=-1,-1,-1", "--action-high=1"), ExitStatus.DATA, "3 numbers for 2"),
        ({}, ("--action-low=-inf", "--action-high=1"), ExitStatus.DATA, "expected finite numbers"),
        (
            {},
            ("--action-low=1", "--action-high=1"),
            ExitStatus.DATA,
            "low ones below the high ones",
        ),
        ({}, ("--action-low=-0.1", "--action-high=0.1"), ExitStatus.DATA, "lie outside"),
        ({}, ("--env", "Shord-v0"), ExitStatus.ENVIRONMENT, "Shord"),
        ({}, ("--env", "Short-v0"), ExitStatus.DATA, "2 dimensions"),
    ],
)
def test_bounds_that_are_missing_or_said_twice_are_refused(
    mapping: dict[str, Any],
    words: tuple[str, ...],
    status: ExitStatus,
    said: str,
    short_env: str,
    import_robot: Callable[..., Said],
) -> None:
    assert (found := import_robot(mapping, *words))[0] == status, found
    assert said in found[1]
    assert local_datasets() == []


@pytest.mark.parametrize("low", ["1", "nan"])
def test_a_lower_bound_above_the_upper_is_a_message_not_a_fault(
    low: str, import_robot: Callable[..., Said]
) -> None:
    status, said = import_robot({}, f"--action-low={low}", "--action-high=-1")
    assert status in (ExitStatus.USAGE, ExitStatus.DATA), said


# -- what an episode's last step needs


@pytest.mark.parametrize("form", FORMS)
def test_a_termination_keeps_its_last_step_and_a_truncation_without_next_loses_it(
    form: str, tmp_path: Path, baq_here: Callable[..., Said]
) -> None:
    columns = {"obs": [1.0, 2, 3, 4, 5], "action": [0.1, 0.2, 0.3, 0.4, 0.5]}
    columns |= {"reward": [1.0, 2, 4, 8, 16]}
    columns |= {"terminated": [0, 1, 0, 0, 0], "truncated": [0, 0, 0, 0, 1]}
    path = write_table(form, tmp_path, columns)
    bounds = ("--action-low=-1", "--action-high=1")
    status, said = baq_here("data", "import", path, "--id", NEW, *bounds)
    assert status == 0
    assert "1 transitions were left out" in said
    episodes = load_episodes(NEW)
    assert episodes.reward.tolist() == [1, 2, 4, 8]
    assert ends(episodes) == [(2, True, False), (2, False, True)]
    assert episodes.next_obs[2:].ravel().tolist() == [4, 5]
    assert import_table(path, None, dataset_id="me/again-v0").lost == 1


def test_a_refused_import_doesnt_send_the_user_to_a_dataset_that_isnt_there(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.csv"
    path.write_text("obs,action,reward,terminated,truncated\n1,9,1,1,0\n")
    with pytest.raises(DataError, match="outside") as caught:
        import_table(path, None)
    assert f"baq data check {NEW}" not in str(caught.value)


# -- arrays from Python

GIVEN: Columns = {
    "observations": np.arange(12.0).reshape(6, 2),
    "actions": np.linspace(-1, 1, 6)[:, None],
    "rewards": np.array([1.0, 2, 4, 8, 16, 32]),
    "terminated": np.array([0, 1, 0, 0, 0, 0], dtype=bool),
    "truncated": np.array([0, 0, 0, 1, 0, 1], dtype=bool),
}
BY_PART = {"arm": np.arange(12.0).reshape(6, 2), "goal": np.arange(6.0) - 9}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"truncated": None, "episode": np.array([0, 0, 7, 7, 3, 3])},
        {"next_observations": np.arange(12.0).reshape(6, 2) + 2},
        {"observations": BY_PART},
        {"observations": BY_PART, "next_observations": {k: v + 1 for k, v in BY_PART.items()}},
        {"actions": np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)},
        {"rewards": np.arange(6), "actions": np.linspace(-1, 1, 6)},
    ],
    ids=["flags", "episodes", "next", "by part", "next by part", "float32", "whole numbers"],
)
def test_saved_arrays_are_what_the_same_arrays_in_an_npz_are(
    change: Columns, tmp_path: Path
) -> None:
    arrays = {name: array for name, array in {**GIVEN, **change}.items() if array is not None}
    if isinstance(arrays.get("next_observations"), dict):  # goal moves by 1, arm by 2 a row
        arrays["next_observations"]["arm"] = BY_PART["arm"] + 2
    path = tmp_path / "log.npz"
    flat: Columns = {}
    for name, array in arrays.items():
        parts = (
            {f"{name}/{part}": a for part, a in array.items()} if isinstance(array, dict) else {}
        )
        flat |= parts or {name: array}
    np.savez(path, **flat)
    saved = save_arrays("me/saved-v0", **arrays, action_low=-1, action_high=1.0)
    imported = import_file(path, NEW, bounded(), None)
    assert saved.lost == imported.lost
    assert saved.episodes.content_hash == imported.episodes.content_hash
    one, other = (read_recording(open_minari(name)) for name in ("me/saved-v0", NEW))
    assert (one.observation_space, one.action_space) == (
        other.observation_space,
        other.action_space,
    )
    for name in one.observations:
        assert one.observations[name].dtype == other.observations[name].dtype
        assert_array_equal(one.observations[name], other.observations[name])
    assert load_episodes("me/saved-v0").content_hash == saved.episodes.content_hash


def test_float32_actions_are_saved_without_a_warning_of_gymnasiums() -> None:
    arrays = {**GIVEN, "actions": GIVEN["actions"].astype(np.float32)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_arrays(NEW, **arrays, action_low=-1, action_high=1)
    assert read_recording(open_minari(NEW)).actions.dtype == np.float32


def test_saved_arrays_take_an_environment_and_its_limit(short_env: str) -> None:
    arrays = short_arrays()
    terminated = arrays.pop("terminals")
    done = save_arrays(NEW, **arrays, terminated=terminated, env=short_env, description="Short.")
    assert done.episodes.lengths.tolist() == [3, 1, 3, 1]
    assert open_minari(NEW).metadata["description"] == "Short."
    with pytest.raises(UsageError, match="exists"):
        save_arrays(NEW, **arrays, terminated=terminated, env=short_env)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rewards": np.zeros(5)}, "beside 5 rewards"),
        ({"actions": np.zeros((7, 1))}, r"actions have the shape \[7, 1\] beside 6"),
        ({"terminated": None, "truncated": None}, "no column says where an episode ends"),
        ({"observations": np.array(list("abcdef"))}, "expected numbers"),
        ({"observations": np.zeros((0, 2)), "rewards": np.zeros(0)}, "no rows"),
    ],
)
def test_arrays_that_dont_fit_each_other_are_refused(change: Columns, said: str) -> None:
    with pytest.raises(DataError, match=said):
        save_arrays(NEW, **{**GIVEN, **change}, action_low=-1, action_high=1)
    assert local_datasets() == []


# -- what lies beside the rows


def rich_arrays() -> Columns:
    """Return a D4RL file as D4RL's are: infos, notes and a policy's weights."""
    arrays = d4rl_arrays(TERMINALS, TIMEOUTS_, None, True)
    rows = len(TERMINALS)
    return {
        **arrays,
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


@pytest.mark.parametrize("form", ["d4rl", "npz", "parquet"])
def test_infos_and_notes_survive_import_export_and_import(form: str, tmp_path: Path) -> None:
    path = write_d4rl_file(tmp_path / "a.hdf5", rich_arrays())
    first = import_file(path, NEW, bounded(), None).episodes
    out = tmp_path / f"out.{'hdf5' if form == 'd4rl' else form}"
    export_file(NEW, form, out)
    again = import_file(out, "me/again-v0", Setting(), None)
    assert again.lost == 0
    assert again.episodes.content_hash == first.content_hash
    for dataset_id in (NEW, "me/again-v0"):
        recording = read_recording(open_minari(dataset_id))
        assert set(recording.infos) == {"qpos", "contact/left"}
        assert_array_equal(recording.infos["qpos"], np.arange(39.0).reshape(13, 3))
        assert recording.infos["contact/left"].dtype == np.int32
        assert recording.infos["contact/left"].tolist() == list(range(13))
        assert recording.about["d4rl_metadata"] == NOTES
    assert open_minari("me/again-v0").metadata["description"] == "Imported from a.hdf5."


def test_an_exported_d4rl_file_has_infos_and_notes_in_their_places(tmp_path: Path) -> None:
    arrays = rich_arrays()
    import_file(write_d4rl_file(tmp_path / "a.hdf5", arrays), NEW, bounded(), None)
    export_file(NEW, "d4rl", tmp_path / "out.hdf5")
    with h5py.File(tmp_path / "out.hdf5") as file:
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
    log = read_d4rl(write_d4rl_file(tmp_path / "a.hdf5", arrays))
    assert log.about == {"d4rl_metadata": {"iteration": note}}


def test_infos_are_cut_with_their_steps(tmp_path: Path) -> None:
    arrays = d4rl_arrays([0, 1, 0, 0], [0, 0, 0, 1], None, False)
    arrays["infos/qpos"] = np.array([5, 6, 7, 8])
    import_file(write_d4rl_file(tmp_path / "a.hdf5", arrays), NEW, bounded(), None)
    assert read_recording(open_minari(NEW)).infos["qpos"].tolist() == [5, 6, 7]


def test_an_info_that_not_every_episode_has_is_left_out_of_an_export(tmp_path: Path) -> None:
    save_arrays(NEW, **GIVEN, action_low=-1, action_high=1)
    with h5py.File(dataset_path(NEW) / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/infos/once"] = np.arange(2.0)
        for episode in file.values():
            episode["infos/always"] = np.ones(len(episode["rewards"]))
    export_file(NEW, "npz", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        assert [name for name in arrays if name.startswith("infos/")] == ["infos/always"]


# -- nothing that a stranger's file names is imported or made


@pytest.mark.parametrize("module", ["nothing.like", "strange_robot"])
@pytest.mark.parametrize("form", ["d4rl", "npz", "parquet"])
def test_an_environment_that_a_file_names_is_described_not_imported(
    form: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "strange_robot.py").write_text("raise SystemExit('a stranger was let in')\n")
    monkeypatch.syspath_prepend(str(code))
    spec = EnvSpec("Strange-v0", entry_point=f"{module}:This", max_episode_steps=9)
    spec.additional_wrappers = (WrapperSpec("Wrap", f"{module}:Wrap", {}),)
    recording = Recording(
        observation_space=gym.spaces.Box(-9, 9, (1,)),
        action_space=gym.spaces.Box(-1, 1, (1,)),
        observations={"": np.array([[1], [2], [3]], dtype=np.float32)},
        actions=np.array([[0.5], [-0.5]], dtype=np.float32),
        rewards=np.array([1.0, 2]),
        terminated=np.array([False, True]),
        truncated=np.array([False, False]),
        lengths=np.array([2]),
        env_spec=spec,
    )
    write_minari("strange/robot-v0", recording)
    path = tmp_path / f"out.{'hdf5' if form == 'd4rl' else form}"
    export_file("strange/robot-v0", form, path)
    import_file(path, NEW, Setting(), None)
    stored = open_minari(NEW)
    assert stored.env_spec is not None
    assert (stored.env_spec.id, stored.env_spec.entry_point) == ("Strange-v0", f"{module}:This")
    assert json.loads(stored.metadata["env_spec"])["max_episode_steps"] == 9
    assert load_episodes(NEW).origin.env_id == "Strange-v0"
    assert not {"nothing", module} & set(sys.modules)
    assert "Strange-v0" not in gym.registry

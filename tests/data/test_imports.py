"""What an import is told and says: action bounds, arrays from Python, strangers' environments."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
import yaml
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from numpy.testing import assert_array_equal

from baq_cli.data.exchange import SUFFIXES, export_file, import_file, save_arrays
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.folder import dataset_path, local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.minari.write import write_minari
from baq_cli.errors import DataError, ExitStatus, UsageError
from support.logs import (
    NEW,
    ROBOT,
    ROBOT_ENDS,
    Columns,
    bounded,
    import_table,
    short_arrays,
    write_table,
    written,
)
from support.recordings import FORMS, plain_recording, unseal

# -- action bounds

Said = tuple[int, str]


@pytest.fixture
def import_robot(
    baq_here: Callable[..., tuple[int, str, str]], folder: Path
) -> Callable[..., Said]:
    """Import the robot's log with entries of the mapping and flags; return status and stderr."""

    def run(mapping: dict[str, Any], *words: str) -> Said:
        path = write_table("csv", folder, ROBOT)
        entries = {"observation": "q_*", "action": "u_*", **ROBOT_ENDS, **mapping}
        beside = written(folder / "map.yaml", yaml.safe_dump(entries))
        done = baq_here("data", "import", path, "--id", NEW, "--mapping", beside, *words)
        return done[0], done[2]

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


TWICE = "leave --action-low and --action-high (in a mapping"
ENV = ("--env", "Short-v0")


@pytest.mark.parametrize(
    ("mapping", "words", "status", "said"),
    [
        ({}, (), ExitStatus.DATA, "--env ID), or give --action-low and --action-high"),
        ({}, ("--action-low=-1",), ExitStatus.USAGE, "two bounds"),
        ({}, ("--action-high=1",), ExitStatus.USAGE, "two bounds"),
        ({"action_low": -1}, (), ExitStatus.USAGE, "two bounds"),
        ({}, (*ENV, "--action-low=-1", "--action-high=1"), ExitStatus.USAGE, TWICE),
        ({"env": "Short-v0", "action_low": -1, "action_high": 1}, (), ExitStatus.USAGE, TWICE),
        ({}, ("--action-low=x", "--action-high=1"), ExitStatus.USAGE, "expected a number"),
        ({}, ("--action-low=-1,-1,-1", "--action-high=1"), ExitStatus.DATA, "3 numbers for 2"),
        ({}, ("--action-low=-inf", "--action-high=1"), ExitStatus.DATA, "expected finite numbers"),
        ({}, ("--action-low=nan", "--action-high=-1"), ExitStatus.DATA, "expected finite numbers"),
        ({}, ("--action-low=1", "--action-high=1"), ExitStatus.DATA, "low ones below the high"),
        ({}, ("--action-low=1", "--action-high=-1"), ExitStatus.DATA, "low ones below the high"),
        ({}, ("--action-low=-0.1", "--action-high=0.1"), ExitStatus.DATA, "lie outside"),
        ({}, ("--env", "Shord-v0"), ExitStatus.ENVIRONMENT, "Shord"),
        ({}, ENV, ExitStatus.DATA, "2 dimensions"),
    ],
)
def test_bounds_that_are_missing_wrong_or_said_twice_are_refused(
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


def test_a_refused_import_doesnt_send_the_user_to_a_dataset_that_isnt_there(folder: Path) -> None:
    text = "obs,action,reward,terminated,truncated\n1,9,1,1,0\n"
    with pytest.raises(DataError, match="outside") as caught:
        import_table(written(folder / "log.csv", text))
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
NEXT_BY_PART = {"arm": BY_PART["arm"] + 2, "goal": BY_PART["goal"] + 1}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"truncated": None, "episode": np.array([0, 0, 7, 7, 3, 3])},
        {"next_observations": np.arange(12.0).reshape(6, 2) + 2},
        {"observations": BY_PART},
        {"observations": BY_PART, "next_observations": NEXT_BY_PART},
        {"actions": np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)},
        {"rewards": np.arange(6), "actions": np.linspace(-1, 1, 6)},
    ],
    ids=["flags", "episodes", "next", "by part", "next by part", "float32", "whole numbers"],
)
def test_saved_arrays_are_what_the_same_arrays_in_an_npz_are(change: Columns, folder: Path) -> None:
    arrays = {name: array for name, array in {**GIVEN, **change}.items() if array is not None}
    flat: Columns = {}
    for name, array in arrays.items():
        parts = array.items() if isinstance(array, dict) else [("", array)]
        flat |= {f"{name}/{part}".rstrip("/"): values for part, values in parts}
    np.savez(folder / "log.npz", **flat)
    saved = save_arrays("me/saved-v0", **arrays, action_low=-1, action_high=1.0)
    imported = import_file(folder / "log.npz", NEW, bounded(), None)
    assert saved.lost == imported.lost
    assert saved.episodes.content_hash == imported.episodes.content_hash
    one, other = (read_recording(open_minari(name)) for name in ("me/saved-v0", NEW))
    assert one.observation_space == other.observation_space
    assert one.action_space == other.action_space
    for name in one.observations:
        assert one.observations[name].dtype == other.observations[name].dtype
        assert_array_equal(one.observations[name], other.observations[name])
    assert load_episodes("me/saved-v0").content_hash == saved.episodes.content_hash


@pytest.mark.usefixtures("folder")
def test_float32_actions_are_saved_without_a_warning_of_gymnasiums() -> None:
    arrays = {**GIVEN, "actions": GIVEN["actions"].astype(np.float32)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_arrays(NEW, **arrays, action_low=-1, action_high=1)
    assert read_recording(open_minari(NEW)).actions.dtype == np.float32


@pytest.mark.usefixtures("folder")
def test_saved_arrays_take_an_environment_and_its_limit(short_env: str) -> None:
    arrays = short_arrays()
    arrays["terminated"] = arrays.pop("terminals")
    done = save_arrays(NEW, **arrays, env=short_env, description="Short.")
    assert done.episodes.lengths.tolist() == [3, 1, 3, 1]
    assert open_minari(NEW).metadata["description"] == "Short."
    with pytest.raises(UsageError, match="exists"):
        save_arrays(NEW, **arrays, env=short_env)


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
@pytest.mark.usefixtures("folder")
def test_arrays_that_dont_fit_each_other_are_refused(change: Columns, said: str) -> None:
    with pytest.raises(DataError, match=said):
        save_arrays(NEW, **{**GIVEN, **change}, action_low=-1, action_high=1)
    assert local_datasets() == []


def test_an_info_that_not_every_episode_has_is_left_out_of_an_export(folder: Path) -> None:
    save_arrays(NEW, **GIVEN, action_low=-1, action_high=1)
    unseal(NEW)
    with h5py.File(dataset_path(NEW) / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/infos/once"] = np.arange(2.0)
        for episode in file.values():
            episode["infos/always"] = np.ones(len(episode["rewards"]))
    export_file(NEW, "npz", folder / "out.npz")
    with np.load(folder / "out.npz") as arrays:
        assert [name for name in arrays if name.startswith("infos/")] == ["infos/always"]


# -- nothing that a stranger's file names is imported or made


@pytest.mark.parametrize("module", ["nothing.like", "strange_robot"])
@pytest.mark.parametrize("form", FORMS)
def test_an_environment_that_a_file_names_is_described_not_imported(
    form: str, module: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = folder / "code"
    code.mkdir()
    written(code / "strange_robot.py", "raise SystemExit('a stranger was let in')\n")
    monkeypatch.syspath_prepend(str(code))
    spec = EnvSpec("Strange-v0", entry_point=f"{module}:This", max_episode_steps=9)
    spec.additional_wrappers = (WrapperSpec("Wrap", f"{module}:Wrap", {}),)
    write_minari("strange/robot-v0", plain_recording(env_spec=spec))
    path = folder / f"out{SUFFIXES[form]}"
    export_file("strange/robot-v0", form, path)
    import_file(path, NEW, Setting(), None)
    stored = open_minari(NEW)
    assert stored.env_spec is not None
    assert (stored.env_spec.id, stored.env_spec.entry_point) == ("Strange-v0", f"{module}:This")
    assert json.loads(stored.metadata["env_spec"])["max_episode_steps"] == 9
    assert load_episodes(NEW).origin.env_id == "Strange-v0"
    assert not {"nothing", module} & set(sys.modules)
    assert "Strange-v0" not in gym.registry

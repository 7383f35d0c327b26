"""Datasets of Minari before 0.5 are listed, named as what they are, and brought over whole."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from baq_cli.data.exchange import import_file
from baq_cli.data.logs.cutting import CutRules
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.folder import (
    check_new_id,
    dataset_path,
    local_datasets,
    older_datasets,
    open_minari,
)
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.minari.write import write_minari
from baq_cli.errors import DataError, UsageError
from support.advice import Terminal, follows
from support.older_minari import OLD, older, pendulum
from support.recordings import assert_same_array, plain_recording

NEW = "me/pen-human-v1"
ARM = gym.spaces.Dict(
    {"goal": gym.spaces.Box(-9, 9, (1,)), "arm": gym.spaces.Box(-9, 9, (2,), np.float64)}
)


Baq = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("folder")


def bring_over(said: str, baq_here: Baq) -> None:
    """Run the command that a message names in quotes."""
    command = next(part for part in said.split("'") if part.startswith("baq data import"))
    status, _, words = baq_here(*command.split()[1:])
    assert status == 0, words


@pytest.mark.parametrize(
    ("version", "named"),
    [("~=0.4", "Minari 0.4"), ("==0.3.1", "Minari 0.3.1"), (None, "before 0.5")],
)
def test_the_advice_brings_an_older_dataset_over_whole(
    version: Any, named: str, baq_here: Baq
) -> None:
    made = pendulum()
    older(made, version)
    with pytest.raises(DataError, match=named) as caught:
        open_minari(OLD)
    bring_over(str(caught.value), baq_here)
    found = read_recording(open_minari(NEW))
    for name in ("actions", "rewards", "terminated", "truncated", "lengths"):
        assert_same_array(getattr(found, name), getattr(made, name), name)
    assert_same_array(found.observations[""], made.observations[""], "observations")
    assert {n: a.tolist() for n, a in found.infos.items()} == {
        n: a.tolist() for n, a in made.infos.items()
    }
    assert found.seeds == made.seeds
    assert found.env_spec is not None
    assert (found.env_spec.id, found.env_spec.max_episode_steps) == ("Pendulum-v1", 200)
    assert found.about["algorithm_name"] == "by hand"
    assert load_episodes(NEW).content_hash == made.episodes(NEW).content_hash


def test_a_dict_that_was_flattened_gets_its_parts_back() -> None:
    made = plain_recording((2, 3), observation_space=ARM)
    path = older(made, "==0.2.0", env_spec=None, flatten_observation=True)
    import_file(path, NEW, Setting(), None)
    found = read_recording(open_minari(NEW))
    assert found.observation_space == ARM
    for name, part in made.observations.items():
        assert np.array_equal(found.observations[name], part)


def test_a_file_without_spaces_takes_them_from_its_environment_or_the_one_named() -> None:
    path = older(pendulum(), observation_space=None, action_space=None)
    import_file(path, NEW, Setting(), None)
    assert load_episodes(NEW).spaces.action_high == (2.0,)
    with h5py.File(path, "r+") as file:
        del file.attrs["env_spec"]
    import_file(path, "me/named-v0", Setting("Pendulum-v1"), None)
    assert load_episodes("me/named-v0").content_hash == load_episodes(NEW).content_hash
    with pytest.raises(DataError, match="neither its spaces nor its environment"):
        import_file(path, "me/nothing-v0", Setting(), None)


def test_older_datasets_are_listed_apart_wherever_they_lie() -> None:
    write_minari("me/today-v0", plain_recording())
    older(pendulum())
    older(pendulum(), "==0.3.1", "D4RL/deep/old-v2")
    (dataset_path() / "hollow-v0" / "data").mkdir(parents=True)
    assert local_datasets() == ["me/today-v0"]
    found = {name: said["minari_version"] for name, said in older_datasets().items()}
    assert found == {OLD: "0.4", "D4RL/deep/old-v2": "0.3.1"}


def test_the_list_names_the_way(baq_here: Baq) -> None:
    older(pendulum())
    [row] = json.loads(baq_here("data", "list", "--json")[1])
    assert (row["dataset"], row["episodes"], row["env_steps"]) == (OLD, 3, 8)
    bring_over(row["about"], baq_here)
    assert local_datasets() == [NEW]


def test_what_is_no_older_dataset_is_not_called_one() -> None:
    path = older(pendulum())
    path.write_bytes(path.read_bytes()[:100])
    assert older_datasets() == {}
    with pytest.raises(DataError, match="damaged"):
        open_minari(OLD)


@follows("the folder {} holds a dataset of Minari {}: choose another id, as me/{}")
def test_the_folder_of_an_older_dataset_is_not_called_hollow() -> None:
    older(pendulum())
    with pytest.raises(
        UsageError, match=r"holds a dataset of Minari 0\.4: choose another id"
    ) as refused:
        check_new_id(OLD)
    check_new_id(str(refused.value).rpartition("as ")[2])


@follows(
    "{} is a dataset of an older Minari, which says itself where its episodes end and what its"
)
def test_an_older_dataset_says_itself_where_it_ends() -> None:
    path = older(pendulum())
    with pytest.raises(UsageError, match="give --env and --clip-actions at most"):
        import_file(path, NEW, Setting(rules=CutRules(max_episode_steps=5)), None)
    with pytest.raises(UsageError, match="give --env and --clip-actions at most"):
        import_file(path, NEW, Setting(None, [-1.0], [1.0]), None)
    import_file(path, NEW, Setting("Pendulum-v1", clip_actions=True), None)


@follows("baq data import {} --id me/{}")
def test_a_way_over_with_a_space_in_its_path_can_be_pasted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "my data"))
    path = older(pendulum())
    with pytest.raises(DataError) as caught:
        open_minari(OLD)
    assert f"import '{path}' --id" in str(caught.value)
    (command,) = re.findall(r"baq (data import .* --id \S*\w)", str(caught.value))
    terminal.done(*shlex.split(command))

"""Logged experience there and back: every format keeps what it was given, to the bit.

Random recordings go through the Minari folder, its official reader, and the formats of exports.
"""

from __future__ import annotations

import csv
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.data import exchange
from baq_cli.data.exchange import SUFFIXES, export_file, import_file
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.logs.mapping import parse_mapping
from baq_cli.data.minari.folder import dataset_path, local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.minari.write import write_minari
from baq_cli.data.recording import Recording
from support.recordings import (
    FORMS,
    ID,
    assert_same_array,
    assert_same_episodes,
    assert_same_recording,
    assert_same_space,
    box,
    few,
    from_cache,
    own_folders,
    plain_recording,
    recordings,
    spec_text,
    unseal,
)

# -- the Minari folder


@few
@given(recordings())
def test_a_written_recording_is_read_as_it_was(made: Recording) -> None:
    with own_folders():
        write_minari(ID, made)
        assert local_datasets() == [ID]
        assert_same_recording(read_recording(open_minari(ID)), made)


@few
@given(recordings())
def test_minaris_own_reader_sees_the_same_episodes(made: Recording) -> None:
    def at(nested: Any, path: str) -> Any:
        for key in filter(None, path.split("/")):
            nested = nested[key]
        return nested

    with own_folders():
        write_minari(ID, made)
        dataset = minari.load_dataset(ID)
        assert (dataset.total_episodes, dataset.total_steps) == (
            len(made.lengths),
            len(made.rewards),
        )
        assert_same_space(dataset.observation_space, made.observation_space)
        assert_same_space(dataset.action_space, made.action_space)
        assert spec_text(dataset.env_spec) == spec_text(made.env_spec)
        episodes = list(dataset.iterate_episodes())
        metadata = list(dataset.storage.get_episode_metadata(range(len(episodes))))
    assert tuple(entry.get("seed") for entry in metadata) == made.seeds
    start = first = 0
    for episode, length in zip(episodes, made.lengths.tolist(), strict=True):
        steps, rows = slice(start, start + length), slice(first, first + length + 1)
        for name, part in made.observations.items():
            assert_same_array(at(episode.observations, name), part[rows], name)
        for name, info in made.infos.items():
            mine = info[steps if len(info) == len(made.rewards) else rows]
            assert_same_array(at(episode.infos, name), mine, name)
        assert_same_array(episode.actions, made.actions[steps], "actions")
        assert_same_array(episode.rewards, made.rewards[steps], "rewards")
        assert_same_array(episode.terminations, made.terminated[steps], "terminated")
        assert_same_array(episode.truncations, made.truncated[steps], "truncated")
        start, first = steps.stop, rows.stop


@few
@given(recordings())
def test_a_dataset_trains_the_same_read_or_from_the_cache(made: Recording) -> None:
    with own_folders():
        write_minari(ID, made)
        expected = made.episodes(ID)
        cold = load_episodes(ID)
        assert_same_episodes(cold, expected)
        cached = from_cache(ID)
        assert_same_episodes(cached, expected)
        assert cached.findings == cold.findings


def test_a_recording_without_seeds_has_none_for_each_episode(folder: Path) -> None:
    write_minari(ID, plain_recording(seeds=()))
    assert read_recording(open_minari(ID)).seeds == (None, None, None)
    assert load_episodes(ID).origin.seeds == (None, None, None)


@pytest.mark.parametrize("dataset_id", ["made-v0", "made/one-v0", "made/by/hand-v12"])
def test_datasets_are_found_under_their_ids_in_any_namespace(folder: Path, dataset_id: str) -> None:
    made = plain_recording()
    write_minari(dataset_id, made)
    assert local_datasets() == [dataset_id]
    assert_same_episodes(load_episodes(dataset_id), made.episodes(dataset_id))


def test_parts_keep_the_order_of_their_space(folder: Path) -> None:
    """Gymnasium flattens in this order; a policy would see the numbers in other places."""
    part = box((2,), (-1.0, 1.0), np.float32)
    made = plain_recording(observation_space=gym.spaces.Dict(OrderedDict(target=part, agent=part)))
    assert list(made.observations) == ["target", "agent"]
    write_minari(ID, made)
    assert_same_recording(read_recording(open_minari(ID)), made)
    assert_same_episodes(load_episodes(ID), made.episodes(ID))


# -- other formats


def through(form: str, source: str, target: str, folder: Path) -> exchange.Imported:
    """Export a dataset and import the file under another id."""
    path = folder / f"{target.replace('/', '-')}{SUFFIXES[form]}"
    export_file(source, form, path)
    return import_file(path, target, Setting(), None)


@pytest.mark.parametrize("form", FORMS)
@few
@given(made=recordings())
def test_an_export_imported_again_is_the_same_dataset(form: str, made: Recording) -> None:
    with own_folders() as folder:
        write_minari(ID, made)
        imported = through(form, ID, "made/again-v0", folder)
        assert imported.lost == 0
        expected = made.episodes("made/again-v0")
        assert_same_episodes(imported.episodes, expected)
        assert_same_episodes(load_episodes("made/again-v0"), expected)
        assert_same_recording(read_recording(open_minari("made/again-v0")), made)


@few
@given(recordings(), st.permutations(FORMS))
def test_a_dataset_survives_all_formats_in_any_order(made: Recording, forms: list[str]) -> None:
    with own_folders() as folder:
        write_minari("made/step-v0", made)
        for number, form in enumerate(forms):
            through(form, f"made/step-v{number}", f"made/step-v{number + 1}", folder)
        last = f"made/step-v{len(forms)}"
        assert_same_recording(read_recording(open_minari(last)), made)
        assert_same_episodes(load_episodes(last), made.episodes(last))


@pytest.mark.parametrize("form", FORMS)
def test_parts_of_different_types_keep_them(folder: Path, form: str) -> None:
    space = gym.spaces.Dict(
        narrow=box((2,), (-1.0, 1.0), np.float32), wide=box((), (-1.0, 1.0), np.float64)
    )
    made = plain_recording(observation_space=space)
    write_minari(ID, made)
    through(form, ID, "made/again-v0", folder)
    assert_same_recording(read_recording(open_minari("made/again-v0")), made)


@pytest.mark.parametrize("form", FORMS)
def test_names_that_look_like_a_column_of_another_array_are_told_apart(
    folder: Path, form: str
) -> None:
    part, lone = box((2,), (-1.0, 1.0), np.float32), box((), (-1.0, 1.0), np.float32)
    first = plain_recording(observation_space=gym.spaces.Dict({"arm": part, "arm.0": lone}))
    infos = {"arm": np.arange(16.0).reshape(8, 2), "arm.0": -np.arange(8.0)}
    second = plain_recording(infos=infos)
    for name, made in (("infos", second), ("parts", first)):
        write_minari(f"made/{name}-v0", made)
        through(form, f"made/{name}-v0", f"made/{name}-v1", folder)
        assert_same_recording(read_recording(open_minari(f"made/{name}-v1")), made)


def csv_of(made: Recording, finals: str, folder: Path) -> tuple[Path, Any]:
    """Write a flat recording with repr(), as any logger would; return the file and its mapping.

    `finals` says where an episode's last observation stands: beside each step as a next one, or in
    a row without action and reward, which may bear the flags.
    """
    obs, actions = made.observations[""].tolist(), made.actions.tolist()
    width, dims = len(obs[0]), len(actions[0])
    header = ["run", *(f"o{i}" for i in range(width)), *(f"a{i}" for i in range(dims)), "r"]
    header += ["done", "cut", *(f"n{i}" for i in range(width) if finals == "beside")]
    table: list[list[Any]] = [header]
    step = row = 0
    for number, length in enumerate(made.lengths.tolist()):
        run = f"run {number}"
        for k in range(length):
            flags = [str(bool(made.terminated[step])), str(bool(made.truncated[step]))]
            if finals == "flagged row" and k == length - 1:
                flags = ["False", "False"]
            following = obs[row + 1] if finals == "beside" else []
            told = [*map(repr, actions[step]), repr(made.rewards[step].item()), *flags]
            table.append([run, *map(repr, obs[row]), *told, *map(repr, following)])
            step, row = step + 1, row + 1
        if finals != "beside":
            ends = ["", ""]
            if finals == "flagged row":
                ends = [repr(int(made.terminated[step - 1])), repr(int(made.truncated[step - 1]))]
            table.append([run, *map(repr, obs[row]), *[""] * (dims + 1), *ends])
        row += 1
    path = folder / "log.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    mapping = {
        "observation": "o*",
        "action": [f"a{i}" for i in range(dims)],
        "reward": "r",
        "terminated": "done",
        "truncated": "cut",
        "episode": "run",
        **({"next_observation": "n*"} if finals == "beside" else {}),
    }
    return path, parse_mapping(mapping, "mapping.yaml")


@pytest.mark.parametrize("finals", ["beside", "bare row", "flagged row"])
@few
@given(made=recordings(flat=True))
def test_a_table_of_words_holds_the_same_transitions(finals: str, made: Recording) -> None:
    with own_folders() as folder:
        path, mapping = csv_of(made, finals, folder)
        bounds = made.action_space.low.tolist(), made.action_space.high.tolist()
        imported = import_file(path, ID, Setting(None, *bounds), mapping)
        assert imported.lost == 0
        expected = made.episodes(ID)
        same_place = replace(load_episodes(ID), origin=expected.origin)
        assert_same_episodes(same_place, expected)
        found = read_recording(open_minari(ID))
        for name, array in (("", made.observations[""]), ("actions", made.actions)):
            values = found.observations[""] if name == "" else found.actions
            assert_same_array(values, array.astype(np.float64), name)
        assert_same_array(found.rewards, made.rewards.astype(np.float64), "rewards")


def test_episodes_of_different_types_are_exported_in_one_that_holds_both(folder: Path) -> None:
    """Some environments return whole numbers as rewards until something happens."""
    write_minari(ID, plain_recording(lengths=(3, 2)))
    unseal(ID)
    with h5py.File(dataset_path(ID) / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_0/rewards"]
        file["episode_0"].create_dataset("rewards", data=np.array([0, 0, 1]))
        file["episode_1/rewards"][...] = [0.25, 1.5]
    assert read_recording(open_minari(ID)).rewards.tolist() == [0, 0, 1, 0.25, 1.5]
    assert load_episodes(ID).reward.tolist() == [0, 0, 1, 0.25, 1.5]

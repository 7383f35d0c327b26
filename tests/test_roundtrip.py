"""Logged experience there and back: every format keeps what it was given, and so does the cache.

Random recordings go through the Minari folder, its official reader, the cache, and the formats of
exports; nothing may change on the way, to the bit. Writes that fail leave nothing behind.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from hypothesis import given, settings
from hypothesis import strategies as st
from minari.dataset._storages.hdf5_storage import HDF5Storage

from baq_cli.data import cache, exchange, minari_read
from baq_cli.data.episodes import ARRAYS, Episodes, monte_carlo_returns
from baq_cli.data.exchange import SUFFIXES, export_file, import_file
from baq_cli.data.logfile import Setting
from baq_cli.data.mapping import parse_mapping
from baq_cli.data.minari_folder import dataset_path, local_datasets, open_minari
from baq_cli.data.minari_read import load_episodes, read_recording
from baq_cli.data.minari_write import write_minari
from baq_cli.data.recording import Recording
from baq_cli.envs.spaces import observation_parts
from baq_cli.errors import DataError, UsageError

Array = np.ndarray[Any, Any]
FORMS = sorted(SUFFIXES)
FULL = OSError(errno.ENOSPC, "No space left on device")
ID = "made/first-v0"
few = settings(max_examples=30)


@contextmanager
def own_folders() -> Iterator[Path]:
    """Give a Minari folder and a cache of one's own; yield the folder that both lie in."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari" / "datasets"))
        patch.setenv("BAQ_CACHE", str(folder / "cache"))
        (folder / "minari" / "datasets").mkdir(parents=True)
        yield folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with own_folders() as place:
        yield place


# -- random recordings

LONE_SHAPES = st.sampled_from([(1,), (2,), (5,)])
PART_SHAPES = st.sampled_from([(), (1,), (3,), (1, 1), (2, 3)])
BOUNDS = st.sampled_from([(-np.inf, np.inf), (-5.0, 5.0), (0.0, np.inf)])
NAMES = st.sampled_from(["arm", "joints", "Z", "goal", "rewards", "0", "two words", "größe"])
FLOATS = st.sampled_from([np.float32, np.float64])
INFO_NAMES = ("success", "rewards", "deep/x", "deep/y", "deep/er/z")
INFO_TYPES = st.sampled_from(["f4", "f8", "i4", "i8", "u1", "?"])
ENDS = st.tuples(st.booleans(), st.booleans())
SEEDS = st.integers(0, 2**63 - 1)
SPEC = EnvSpec(id="nowhere/Made-v3", entry_point="nowhere.at:All")
SPECS = st.builds(
    lambda limit, kwargs: replace(SPEC, max_episode_steps=limit, kwargs=kwargs),
    st.none() | st.integers(1, 9),
    st.sampled_from([{}, {"gravity": 9.8, "mode": "fast", "deep": {"weights": [1, 2]}}]),
)
ABOUT = st.fixed_dictionaries(
    {"requirements": st.lists(st.sampled_from(["numpy>=1", "nowhere==3.1"]), max_size=2)},
    optional={
        "description": st.text(max_size=20),
        "algorithm_name": st.text(max_size=5),
        "author": st.lists(st.sampled_from(["Ada", "Alan"]), unique=True),
        "d4rl_metadata": st.just({"algorithm": "SAC", "policy/depth": 3, "rate": 0.1}),
    },
)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return numbers of many sizes, some of them awkward, in every bit of their type."""
    values = rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 4, size=shape)
    awkward = rng.choice([0.0, -0.0, 1 / 3, 1e30, -1e-30, 5e-324, 1.0], size=shape)
    return np.where(rng.random(shape) < 0.2, awkward, values).astype(dtype)


def box(shape: tuple[int, ...], bounds: tuple[float, float], dtype: Any) -> gym.spaces.Box:
    return gym.spaces.Box(*bounds, shape, dtype)


def dicts(dtype: Any, depth: int) -> st.SearchStrategy[gym.spaces.Dict]:
    parts: st.SearchStrategy[Any] = st.builds(box, PART_SHAPES, BOUNDS, st.just(dtype))
    if depth:
        parts |= dicts(dtype, depth - 1)
    return st.dictionaries(NAMES, parts, min_size=1, max_size=3).map(gym.spaces.Dict)


@st.composite
def action_boxes(draw: st.DrawFn) -> gym.spaces.Box:
    dtype = draw(FLOATS)
    width = 32 if dtype is np.float32 else 64
    low, high = [], []
    for _ in range(draw(st.integers(1, 3))):
        low.append(dtype(draw(st.floats(-1e6, 1e6, width=width))))
        wide = dtype(draw(st.floats(2.0**-10, 1e6, width=width)))
        high.append(max(low[-1] + wide, np.nextafter(low[-1], dtype(np.inf))))
    return gym.spaces.Box(np.asarray(low), np.asarray(high), dtype=dtype)


def actions_in(space: gym.spaces.Box, rng: np.random.Generator, steps: int) -> Array:
    """Return actions of which some lie on the bounds and none outside, in the box's own type."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    share = np.clip(rng.uniform(-0.2, 1.2, size=(steps, *space.shape)), 0, 1)
    return np.clip((low + share * (high - low)).astype(space.dtype), space.low, space.high)


@st.composite
def recordings(draw: st.DrawFn, flat: bool = False) -> Recording:
    """Return what any source might give: all that a recording can say, in small."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(FLOATS)
    lone = st.builds(box, LONE_SHAPES, BOUNDS, st.just(dtype))
    observation_space = draw(lone if flat else lone | dicts(dtype, 2))
    action_space = draw(action_boxes())
    lengths = np.asarray(draw(st.lists(st.integers(1, 8), min_size=1, max_size=6)))
    steps, count = int(lengths.sum()), len(lengths)
    flags = np.zeros((2, steps), dtype=np.bool_)
    flags[:, np.cumsum(lengths) - 1] = np.transpose([draw(ENDS) for _ in range(count)])
    seed = draw(st.sampled_from([st.none(), SEEDS, st.none() | SEEDS]))
    infos = {}
    for name in draw(st.lists(st.sampled_from(INFO_NAMES), unique=True)):
        rows = steps + draw(st.sampled_from([0, count]))
        shape = (rows, *draw(PART_SHAPES))
        kind = np.dtype(draw(INFO_TYPES))
        infos[name] = (
            numbers(rng, shape, kind)
            if kind.kind == "f"
            else rng.integers(0, 2 if kind.kind == "b" else 200, size=shape).astype(kind)
        )
    return Recording(
        observation_space=observation_space,
        action_space=action_space,
        observations={
            name: numbers(rng, (steps + count, *part.shape), dtype)
            for name, part in observation_parts(observation_space).items()
        },
        actions=actions_in(action_space, rng, steps),
        rewards=numbers(rng, (steps,), draw(FLOATS)),
        terminated=flags[0],
        truncated=flags[1],
        lengths=lengths,
        seeds=tuple(draw(seed) for _ in range(count)),
        infos=infos,
        env_spec=draw(st.none() | SPECS),
        about=draw(ABOUT),
    )


def plain_recording(
    lengths: tuple[int, ...] = (4, 1, 3), width: int = 2, phase: int = 0, **changes: Any
) -> Recording:
    """Return a recording without surprises, for laws that aren't about its content."""
    rng = np.random.default_rng(phase)
    steps, count = sum(lengths), len(lengths)
    ends = np.zeros(steps, dtype=np.bool_)
    ends[np.cumsum(lengths) - 1] = True
    space = changes.pop("observation_space", box((width,), (-np.inf, np.inf), np.float32))
    fields: dict[str, Any] = {
        "observation_space": space,
        "action_space": box((2,), (-2.0, 2.0), np.float32),
        "observations": {
            name: rng.normal(size=(steps + count, *part.shape)).astype(part.dtype)
            for name, part in observation_parts(space).items()
        },
        "actions": rng.uniform(-1.5, 1.5, size=(steps, 2)).astype(np.float32),
        "rewards": rng.normal(size=steps),
        "terminated": ends,
        "truncated": np.zeros(steps, dtype=np.bool_),
        "lengths": np.asarray(lengths),
        "seeds": (None,) * count,
    }
    return Recording(**{**fields, **changes})


# -- what it means to be the same


def assert_same_array(found: Any, made: Any, name: str) -> None:
    assert (found.dtype, found.shape) == (made.dtype, made.shape), name
    assert found.tobytes() == made.tobytes(), name


def assert_same_space(found: gym.Space[Any], made: gym.Space[Any]) -> None:
    assert type(found) is type(made)
    assert found == made
    parts = observation_parts(made)
    assert list(observation_parts(found)) == list(parts)
    for name, part in observation_parts(found).items():
        assert_same_array(part.low, parts[name].low, f"low {name}")
        assert_same_array(part.high, parts[name].high, f"high {name}")


def spec_text(spec: EnvSpec | None) -> str | None:
    return None if spec is None else spec.to_json()


def assert_same_recording(found: Recording, made: Recording) -> None:
    """Two recordings say the same, to the bit; the metadata may have entries of Minari's own."""
    assert_same_space(found.observation_space, made.observation_space)
    assert_same_space(found.action_space, made.action_space)
    assert list(found.observations) == list(made.observations)
    assert found.infos.keys() == made.infos.keys()
    for kind in ("observations", "infos"):
        for name, part in getattr(made, kind).items():
            assert_same_array(getattr(found, kind)[name], part, f"{kind} {name}")
    for name in ("actions", "rewards", "terminated", "truncated", "lengths"):
        assert_same_array(getattr(found, name), getattr(made, name), name)
    assert found.seeds == made.seeds
    assert spec_text(found.env_spec) == spec_text(made.env_spec)
    for name, entry in made.about.items():
        same = set if name == "author" else lambda value: value  # Minari keeps authors as a set
        assert same(found.about[name]) == same(entry), name


def assert_same_episodes(found: Episodes, made: Episodes) -> None:
    """Two datasets train the same, to the bit, and come from the same place."""
    assert (found.dataset_id, found.spaces) == (made.dataset_id, made.spaces)
    for name in (*ARRAYS, "obs", "next_obs"):
        assert_same_array(getattr(found, name), getattr(made, name), name)
    for discount in (0.5, 0.99):
        returns = [monte_carlo_returns(e, e.reward, discount) for e in (found, made)]
        assert_same_array(*returns, f"returns at {discount}")
    assert found.content_hash == made.content_hash
    assert found.origin == made.origin


def from_cache(dataset_id: str) -> Episodes:
    """Load a dataset where reading it would fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minari_read, "read_episodes", None)
        return load_episodes(dataset_id)


def is_read_again(dataset_id: str) -> bool:
    """Load a dataset; tell whether its own files were read for it."""
    read = []
    true_read = minari_read.read_episodes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minari_read, "read_episodes", lambda s: read.append(s) or true_read(s))
        load_episodes(dataset_id)
    return bool(read)


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


# -- the cache


def cached_files(kind: str) -> list[Path]:
    return sorted(path for path in (cache.folder() / kind).iterdir())


@pytest.mark.parametrize("name", ["main_data.hdf5", "metadata.json"])
def test_a_touched_dataset_is_read_again(folder: Path, name: str) -> None:
    write_minari(ID, plain_recording())
    load_episodes(ID)
    assert not is_read_again(ID)
    path = dataset_path(ID) / "data" / name
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert is_read_again(ID)
    assert not is_read_again(ID)


def test_a_dataset_changed_in_place_is_read_again(folder: Path) -> None:
    made = plain_recording()
    write_minari(ID, made)
    before = load_episodes(ID).content_hash
    with h5py.File(dataset_path(ID) / "data" / "main_data.hdf5", "r+") as file:
        file["episode_1/rewards"][0] = made.rewards[4] = 77.0
    found = load_episodes(ID)
    assert_same_episodes(found, made.episodes(ID))
    assert found.content_hash != before


def test_a_dataset_replaced_under_its_id_is_read_again(folder: Path) -> None:
    write_minari(ID, plain_recording(phase=1))
    load_episodes(ID)
    minari.delete_dataset(ID)
    other = plain_recording(phase=2)
    write_minari(ID, other)
    assert_same_episodes(load_episodes(ID), other.episodes(ID))
    assert_same_episodes(from_cache(ID), other.episodes(ID))


def test_new_metadata_are_not_answered_from_before(folder: Path) -> None:
    write_minari(ID, plain_recording(about={"requirements": ["numpy>=1"]}))
    assert load_episodes(ID).origin.requirements == ("numpy>=1",)
    path = dataset_path(ID) / "data" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "requirements": ["gymnasium"]}))
    assert load_episodes(ID).origin.requirements == ("gymnasium",)


def flip(path: Path, at: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(content)


@few
@given(st.floats(0, 1, exclude_max=True), st.sampled_from([1, 8, 128]))
def test_a_flipped_bit_of_the_cached_arrays_is_noticed(share: float, bit: int) -> None:
    """Wherever it is, the arrays are the true ones; in the header it may change nothing."""
    with own_folders():
        made = plain_recording()
        write_minari(ID, made)
        load_episodes(ID)
        (path,) = cached_files("arrays")
        size = path.stat().st_size
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        place = int(share * size)
        flip(path, place, bit)
        if place >= header:
            assert is_read_again(ID)
        assert_same_episodes(load_episodes(ID), made.episodes(ID))
        assert_same_episodes(from_cache(ID), made.episodes(ID))


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_cut_arrays_file_is_noticed(folder: Path, kept: int) -> None:
    made = plain_recording()
    write_minari(ID, made)
    load_episodes(ID)
    (path,) = cached_files("arrays")
    path.write_bytes(path.read_bytes()[:kept])
    assert is_read_again(ID)
    assert_same_episodes(from_cache(ID), made.episodes(ID))


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"", b"{", b"[]", b"null", b"3", b'"sha256"', b"{}", b"\xff\xfe\x00"),
        *(b'{"sha256": null}', b'{"sha256": "a/../\\u0000"}'),
    ],
)
def test_a_garbage_index_is_noticed(folder: Path, garbage: bytes) -> None:
    made = plain_recording()
    write_minari(ID, made)
    load_episodes(ID)
    (path,) = cached_files("index")
    path.write_bytes(garbage)
    assert is_read_again(ID)
    assert_same_episodes(from_cache(ID), made.episodes(ID))


def test_an_index_without_one_of_its_entries_is_noticed(folder: Path) -> None:
    made = plain_recording()
    write_minari(ID, made)
    load_episodes(ID)
    (path,) = cached_files("index")
    entries = json.loads(path.read_text())
    for name in entries:
        damaged = [{key: value for key, value in entries.items() if key != name}]
        if name != "dataset_id":
            damaged += [{**entries, name: None}, {**entries, name: 7}]
        for entry in damaged:
            path.write_text(json.dumps(entry))
            assert is_read_again(ID), entry
    assert_same_episodes(from_cache(ID), made.episodes(ID))


def test_a_bound_that_changed_in_the_index_is_noticed(folder: Path) -> None:
    """Else training would scale actions by bounds that nobody recorded."""
    made = plain_recording()
    write_minari(ID, made)
    load_episodes(ID)
    (path,) = cached_files("index")
    content = path.read_text()
    assert "2.0" in content
    path.write_text(content.replace("2.0", "3.0"))
    assert_same_episodes(load_episodes(ID), made.episodes(ID))


def test_no_flipped_bit_of_the_index_is_an_error(folder: Path) -> None:
    made = plain_recording(about={"requirements": ["numpy>=1"]}, env_spec=SPEC)
    write_minari(ID, made)
    load_episodes(ID)
    (path,) = cached_files("index")
    content = path.read_bytes()
    for place in range(0, len(content), 2):
        flip(path, place, 1 << place % 8)
        found = cache.find(path.stem)
        assert found is None or found.content_hash == made.episodes(ID).content_hash
        path.write_bytes(content)


def test_lost_arrays_are_no_error(folder: Path) -> None:
    made = plain_recording()
    write_minari(ID, made)
    load_episodes(ID)
    cached_files("arrays")[0].unlink()
    assert_same_episodes(load_episodes(ID), made.episodes(ID))
    assert_same_episodes(from_cache(ID), made.episodes(ID))


@pytest.mark.parametrize("below", ["plain", "plain/below", "plain/far/below"])
def test_a_cache_that_cannot_be_written_is_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    (folder / "plain").write_text("a file, not a folder")
    monkeypatch.setenv("BAQ_CACHE", str(folder / below))
    made = plain_recording()
    write_minari(ID, made)
    for _ in range(2):
        assert_same_episodes(load_episodes(ID), made.episodes(ID))
    assert is_read_again(ID)


def test_a_cache_on_a_full_disk_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.numpy

    def fail(arrays: Any, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise FULL

    made = plain_recording()
    write_minari(ID, made)
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", fail)
        assert_same_episodes(load_episodes(ID), made.episodes(ID))
    assert [path for path in cache.folder().rglob("*") if path.is_file()] == []
    assert_same_episodes(load_episodes(ID), made.episodes(ID))


def test_datasets_of_the_same_content_share_their_arrays_and_keep_their_ids(folder: Path) -> None:
    made = plain_recording()
    ids = ["made/one-v0", "made/two-v0"]
    for dataset_id in ids:
        write_minari(dataset_id, made)
        load_episodes(dataset_id)
    assert len(cached_files("arrays")) == 1
    assert len(cached_files("index")) == 2
    for dataset_id in ids:
        assert_same_episodes(from_cache(dataset_id), made.episodes(dataset_id))


def test_datasets_of_the_same_arrays_keep_their_own_origins_and_spaces(folder: Path) -> None:
    made = plain_recording(seeds=(1, 2, None))
    scaled = replace(
        made,
        action_space=box((2,), (-4.0, 4.0), np.float32),
        actions=made.actions * 2,
        seeds=(None, 5, 6),
        env_spec=SPEC,
    )
    write_minari("made/one-v0", made)
    write_minari("made/two-v0", scaled)
    for name, recording in (("made/one-v0", made), ("made/two-v0", scaled)):
        load_episodes(name)
        assert_same_episodes(from_cache(name), recording.episodes(name))
    assert len(cached_files("arrays")) == 1


def test_the_hash_is_the_same_with_and_without_a_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_minari(ID, plain_recording())
    hashes = [load_episodes(ID).content_hash, from_cache(ID).content_hash]
    monkeypatch.setenv("BAQ_CACHE", str(folder / "another"))
    hashes.append(load_episodes(ID).content_hash)
    (folder / "plain").touch()
    monkeypatch.setenv("BAQ_CACHE", str(folder / "plain" / "below"))
    hashes.append(load_episodes(ID).content_hash)
    assert len(set(hashes)) == 1


def test_warnings_are_repeated_from_the_cache(folder: Path) -> None:
    made = plain_recording(lengths=(1, 1, 3), rewards=np.full(5, 2.0))
    made.terminated[-1] = False
    write_minari(ID, made)
    cold = load_episodes(ID)
    assert {"end flags", "lengths", "rewards"} <= {finding.check for finding in cold.findings}
    assert from_cache(ID).findings == cold.findings


def test_a_dataset_with_an_error_is_refused_each_time(folder: Path) -> None:
    made = plain_recording()
    made.terminated[1] = True
    write_minari(ID, made)
    for _ in range(2):
        with pytest.raises(DataError, match="inside an episode"):
            load_episodes(ID)


# -- writes that fail


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything in a folder, with the content of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def failing(error: Exception, after: int = 0, first: Callable[..., Any] | None = None) -> Any:
    """Return a function that raises after so many calls, which do what `first` does."""
    calls = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        result = None if first is None else first(*args, **kwargs)
        if len(calls) > after:
            raise error
        return result

    return call


HDF5_ON_CLOSING = RuntimeError("Can't decrement id ref count (file write failed: errno = 28)")
"""What h5py raises, beside OSError, when a full disk is noticed as it closes a file."""


@pytest.mark.parametrize(
    ("owner", "name", "after", "error"),
    [
        (HDF5Storage, "update_episodes", 0, FULL),
        (HDF5Storage, "update_metadata", 0, FULL),
        (HDF5Storage, "update_metadata", 1, FULL),
        (HDF5Storage, "_create", 0, FULL),
        (h5py.Group, "create_group", 0, FULL),
        (h5py.Group, "create_dataset", 0, FULL),
        (h5py.Group, "create_dataset", 9, FULL),
        (h5py.File, "__init__", 0, FULL),
        (h5py.File, "__exit__", 0, FULL),
        (h5py.File, "__exit__", 0, HDF5_ON_CLOSING),
    ],
)
def test_a_dataset_that_cannot_be_written_leaves_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    after: int,
    error: Exception,
) -> None:
    write_minari("made/before-v0", plain_recording())
    before = tree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing(error, after, getattr(owner, name)))
        with pytest.raises(DataError, match="cannot save dataset 'other/first-v0'"):
            write_minari("other/first-v0", plain_recording())
    assert tree(folder) == before
    write_minari("other/first-v0", plain_recording())
    assert local_datasets() == ["made/before-v0", "other/first-v0"]


def test_a_dataset_that_cannot_be_moved_into_place_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing(FULL))
        with pytest.raises(DataError, match="cannot save dataset"):
            write_minari(ID, plain_recording())
    assert tree(folder) == before


def test_a_dataset_that_was_finished_meanwhile_is_left_as_it_is(folder: Path) -> None:
    write_minari(ID, plain_recording(phase=1))
    before = tree(folder)
    write_minari(ID, plain_recording(phase=2))
    assert tree(folder) == before


@pytest.mark.parametrize("form", FORMS)
def test_an_import_under_a_taken_id_is_refused_and_changes_nothing(folder: Path, form: str) -> None:
    write_minari(ID, plain_recording())
    export_file(ID, form, folder / f"log{SUFFIXES[form]}")
    before = tree(folder)
    with pytest.raises(UsageError, match=f"'{ID}' exists"):
        import_file(folder / f"log{SUFFIXES[form]}", ID, Setting(), None)
    assert tree(folder) == before


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("taken", ["file", "folder"])
def test_an_export_to_a_taken_path_is_refused(folder: Path, form: str, taken: str) -> None:
    write_minari(ID, plain_recording())
    path = folder / f"log{SUFFIXES[form]}"
    path.write_text("mine") if taken == "file" else path.mkdir()
    before = tree(folder)
    with pytest.raises(UsageError, match="exists"):
        export_file(ID, form, path)
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("form", "error"), [*((form, FULL) for form in FORMS), ("d4rl", HDF5_ON_CLOSING)]
)
def test_an_export_that_fails_leaves_no_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, form: str, error: Exception
) -> None:
    write_minari(ID, plain_recording())
    path = folder / f"log{SUFFIXES[form]}"
    before = tree(folder)
    with monkeypatch.context() as patch:
        patch.setitem(exchange.WRITERS, form, failing(error, 0, exchange.WRITERS[form]))
        with pytest.raises(DataError, match="cannot write"):
            export_file(ID, form, path)
    assert tree(folder) == before
    export_file(ID, form, path)
    assert path.is_file()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["below a file", "with too long a name"])
def test_an_export_to_an_impossible_path_is_refused_in_words(
    folder: Path, form: str, place: str
) -> None:
    write_minari(ID, plain_recording())
    (folder / "plain").write_text("mine")
    name = {"below a file": "plain/log", "with too long a name": "x" * 300}[place]
    before = tree(folder)
    with pytest.raises((DataError, UsageError), match="cannot write"):
        export_file(ID, form, folder / f"{name}{SUFFIXES[form]}")
    assert tree(folder) == before


ON_A_FULL_DISK = """
import gc, resource, sys
from pathlib import Path
from baq_cli.data.exchange import export_file
from baq_cli.data.minari_folder import open_minari
from baq_cli.data.minari_read import read_recording
from baq_cli.data.minari_write import write_minari
from baq_cli.errors import DataError

made = read_recording(open_minari("made/first-v0"))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    if sys.argv[1] == "minari":
        write_minari("other/first-v0", made)
    else:
        export_file("made/first-v0", sys.argv[1], Path(sys.argv[2]))
except DataError:
    gc.collect()
    print("refused")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("form", ["minari", *FORMS])
def test_a_disk_that_is_really_full_is_told_in_words(folder: Path, form: str) -> None:
    """In a process of its own, because HDF5 may crash it: here files end at 100 kB."""
    write_minari(ID, plain_recording(lengths=(2000, 2000), width=20))
    before = tree(folder)
    path = folder / f"log{SUFFIXES.get(form, '')}"
    done = subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK, form, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr[-500:]
    assert tree(folder) == before

"""One log, written in every format, is one dataset: the same rows, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pyarrow import parquet

from baq_cli.data.exchange import import_files
from baq_cli.data.logs.cutting import CutRules
from baq_cli.data.logs.mapping import Mapping, parse_mapping
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import read_recording
from baq_cli.errors import BaqError
from support.logs import NEW, bounded, write_table, written
from support.recordings import own_folders

Arrays = dict[str, Any]
BY_NAME = {"observation": "obs_*", "action": "act_*", "reward": "r", "terminated": "t"}


def as_columns(arrays: Arrays) -> Arrays:
    """Lay arrays out as columns of one number, `NAME_0` and so on."""
    columns: Arrays = {}
    for name, array in arrays.items():
        flat = array.reshape(len(array), -1)
        several = array.ndim > 1
        columns |= {f"{name}_{k}" if several else name: c for k, c in enumerate(flat.T.tolist())}
    return columns


def as_csv(folder: Path, arrays: Arrays) -> Path:
    return write_table("csv", folder, as_columns(arrays))


def as_european(folder: Path, arrays: Arrays) -> Path:
    columns = as_columns(arrays)
    rows = [
        ";".join(map(str, row)).replace(".", ",") for row in zip(*columns.values(), strict=True)
    ]
    return written(folder / "euro.csv", "\n".join([";".join(columns), *rows, ""]))


def as_npz(folder: Path, arrays: Arrays) -> Path:
    np.savez(folder / "log.npz", **arrays)
    return folder / "log.npz"


def as_parquet(folder: Path, arrays: Arrays) -> Path:
    return write_table("parquet", folder, as_columns(arrays))


def as_lists(kind: Callable[..., Any]) -> Callable[[Path, Arrays], Path]:
    def write(folder: Path, arrays: Arrays) -> Path:
        table = {}
        for name, array in arrays.items():
            numbers = pyarrow.from_numpy_dtype(array.dtype)
            of = kind(numbers, array.shape[1]) if array.ndim > 1 else numbers
            table[name] = pyarrow.array(array.tolist(), of)
        parquet.write_table(pyarrow.table(table), folder / "lists.parquet", row_group_size=3)
        return folder / "lists.parquet"

    return write


def as_hdf5(folder: Path, arrays: Arrays) -> Path:
    with h5py.File(folder / "log.h5", "w") as file:
        file.update(arrays)
    return folder / "log.h5"


def in_parts(write: Callable[[Path, Arrays], Path]) -> Callable[[Path, Arrays], Path]:
    """Write a file an episode, into a folder."""

    def parts(folder: Path, arrays: Arrays) -> Path:
        ends = np.flatnonzero(arrays["t"] | arrays["c"]) + 1
        place = folder / "parts"
        place.mkdir()
        for k, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            path = write(folder, {name: array[start:stop] for name, array in arrays.items()})
            path.rename(place / f"part_{k}{path.suffix}")
        return place

    return parts


WAYS = {
    "csv": as_csv,
    "a European csv": as_european,
    "npz": as_npz,
    "parquet": as_parquet,
    "lists": as_lists(lambda numbers, width: pyarrow.list_(numbers)),
    "large lists": as_lists(lambda numbers, width: pyarrow.large_list(numbers)),
    "lists of one size": as_lists(pyarrow.list_),
    "hdf5": as_hdf5,
    "a csv an episode": in_parts(as_csv),
    "an npz an episode": in_parts(as_npz),
}
LISTED = ("npz", "lists", "large lists", "lists of one size", "hdf5", "an npz an episode")


def mapping(way: str, **more: Any) -> Mapping:
    said = {**BY_NAME, "truncated": "c", **more}
    if way in LISTED:
        said |= {"observation": "obs", "action": "act"}
    return parse_mapping(said, "m")


@st.composite
def logs(draw: Any) -> Arrays:
    """Return a log of episodes that end in either flag, its numbers of any size."""
    lengths = draw(st.lists(st.integers(2, 4), min_size=1, max_size=4))
    rows, rng = sum(lengths), np.random.default_rng(draw(st.integers(0, 2**16)))
    last = np.isin(np.arange(rows), np.cumsum(lengths) - 1)
    over = rng.random(rows) < 0.5
    scale = 10.0 ** draw(st.integers(-5, 5))
    return {
        "obs": rng.normal(size=(rows, 3)) * scale,
        "act": rng.uniform(-1, 1, size=(rows, 2)),
        "r": rng.normal(size=rows) * scale,
        "t": last & over,
        "c": last & ~over,
    }


def imported(way: str, arrays: Arrays) -> tuple[Any, Any]:
    with own_folders() as folder:
        done = import_files([WAYS[way](folder, arrays)], NEW, bounded(), mapping(way))
        return done, read_recording(open_minari(NEW))


@settings(max_examples=8)
@given(arrays=logs())
def test_one_log_in_every_format_is_one_dataset(arrays: Arrays) -> None:
    expected, recording = imported("npz", arrays)
    for way in WAYS:
        done, found = imported(way, arrays)
        assert done.lost == expected.lost, way
        assert done.episodes.content_hash == expected.episodes.content_hash, way
        assert_array_equal(found.lengths, recording.lengths)
        for name in ("actions", "rewards", "terminated", "truncated"):
            assert_array_equal(getattr(found, name), getattr(recording, name))
            assert getattr(found, name).dtype == getattr(recording, name).dtype, way
        assert_array_equal(found.observations[""], recording.observations[""])
        assert found.observation_space == recording.observation_space


ODD = {
    "a name that isn't there": ({"reward": "gone"}, {}),
    "rewards that aren't numbers": ({}, {"r": np.array([1.0, np.nan, 3.0])}),
    "actions beyond their bounds": ({}, {"act": np.full((3, 2), 3.0)}),
    "no ends": ({"terminated": None, "truncated": None}, {}),
    "no reward": ({"reward": None}, {}),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_refused_in_one_format_is_refused_in_every(odd: str) -> None:
    asked, change = ODD[odd]
    arrays = {
        "obs": np.arange(9.0).reshape(3, 3),
        "act": np.zeros((3, 2)),
        "r": np.arange(3.0),
        "t": np.array([False, False, True]),
        "c": np.zeros(3, bool),
    } | change
    said = {}
    for way, write in WAYS.items():
        with own_folders() as folder:
            path = write(folder, arrays)
            with pytest.raises(BaqError) as caught:
                import_files([path], NEW, bounded(), mapping(way, **asked))
        said[way] = caught.value.status
    assert len(set(said.values())) == 1, said


def test_rules_count_alike_in_every_format() -> None:
    """A limit of steps, over a file or over the files of a folder."""
    arrays = {
        "obs": np.arange(18.0).reshape(6, 3),
        "act": np.zeros((6, 2)),
        "r": np.arange(6.0),
        "t": np.array([0, 0, 0, 0, 0, 1], bool),
        "c": np.zeros(6, bool),
    }
    for way, write in WAYS.items():
        with own_folders() as folder:
            said = mapping(way, truncated=None)
            rules = bounded(CutRules(max_episode_steps=4))
            done = import_files([write(folder, arrays)], NEW, rules, said)
        assert done.episodes.lengths.tolist() == [3, 2], way


# -- what only tables of Arrow's have


@pytest.mark.parametrize("width", [np.float16, np.float32])
def test_lists_of_narrow_floats_keep_their_type(width: Any, folder: Path) -> None:
    values = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], width)
    of = pyarrow.list_(pyarrow.from_numpy_dtype(np.dtype(width)))
    table = pyarrow.table(
        {
            "observation.state": pyarrow.array(list(values), of),
            "observation": ["words", "beside", "it"],
            "action": [0.0, 0.5, 0.25],
            "next.reward": [1.0, 2, 4],
            "next.done": [False, False, True],
        }
    )
    parquet.write_table(table, folder / "log.parquet")
    asked = {"observation": "observation.state", "action": "action", "reward": "next.reward"}
    said = parse_mapping({**asked, "terminated": "next.done", "truncated": "next.done"}, "m")
    import_files([folder / "log.parquet"], NEW, bounded(), said)
    found = read_recording(open_minari(NEW)).observations[""]
    assert found.dtype == width
    assert_array_equal(found[:3], values)


@pytest.mark.parametrize("way", ["lists", "tensors", "npz", "hdf5"])
def test_matrices_are_flattened_row_by_row(way: str, folder: Path) -> None:
    values = np.arange(12.0).reshape(3, 2, 2)
    rest = {"action": np.zeros(3), "reward": np.arange(3.0), "terminated": np.array([0, 0, 1])}
    rest["truncated"] = np.zeros(3, int)
    path = folder / "log.parquet"
    if way == "npz":
        path = as_npz(folder, {"obs": values, **rest})
    elif way == "hdf5":
        path = as_hdf5(folder, {"obs": values, **rest})
    else:
        column: Any = values.tolist()
        if way == "tensors":
            column = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(values)
        parquet.write_table(pyarrow.table({"obs": column, **rest}), path)
    done = import_files([path], NEW, bounded(), None)
    assert done.episodes.obs.tolist() == values.reshape(3, 4).tolist()


def test_nested_lists_of_other_shapes_are_refused(folder: Path) -> None:
    obs = [[[1.0, 2], [3, 4]], [[1, 2, 3], [4]], [[1, 2], [3, 4]]]
    table = {"obs": obs, "action": [0.0] * 3, "reward": [1.0] * 3, "truncated": [0, 0, 1]}
    parquet.write_table(pyarrow.table(table), folder / "log.parquet")
    with pytest.raises(BaqError, match="lists of different lengths"):
        import_files([folder / "log.parquet"], NEW, bounded(), None)

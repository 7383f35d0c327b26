"""Only what is asked for decides: whatever else a file holds, its log is read all the same."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from baq_cli.data.exchange import import_file
from baq_cli.data.logs.d4rl import read_d4rl
from baq_cli.data.logs.mapping import parse_mapping
from baq_cli.data.logs.parquet import read_parquet
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import read_recording
from baq_cli.errors import DataError
from support.logs import (
    ARRAYS,
    NEW,
    bounded,
    d4rl_file,
    import_table,
    npz_file,
    parquet_file,
    written,
)

OBJECTS = np.array([{"battery": 0.5}] * 8, object)


ASKED = {"observation": "obs", "action": "action", "reward": "reward", "truncated": "truncated"}


def reward_of(path: Path) -> list[float]:
    return import_file(path, NEW, bounded(), None).episodes.reward.tolist()


# -- .npz


def entry(header: dict[str, Any] | None, content: bytes = b"") -> bytes:
    """Return an archive's entry: an array's header and whatever lies behind it."""
    file = io.BytesIO()
    if header is not None:
        np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


ODD = {
    "objects": {"infos.npy": entry({"descr": "|O", "fortran_order": False, "shape": (8,)})},
    "a dict": {"config.npy": entry({"descr": "|O", "fortran_order": False, "shape": ()})},
    "nothing": {"none.npy": entry({"descr": "|V0", "fortran_order": False, "shape": (2**27,)})},
    "a bomb": {"bomb.npy": entry({"descr": "<f8", "fortran_order": False, "shape": (2**60,)})},
    "no array": {"readme.npy": b"This is no array.", "readme.txt": b"Nor is this.", "empty": b""},
    "two of a name": {"note.npy": b"one", "note": b"other"},
    "structures": {
        "s.npy": entry({"descr": [("a", "<f4")], "fortran_order": False, "shape": (8,)}, bytes(32))
    },
    "infos of objects": {
        "infos/x.npy": entry({"descr": "|O", "fortran_order": False, "shape": (8,)})
    },
    "infos that are none": {"infos/x.npy": b"no array"},
    "words for infos": {
        "infos/x.npy": entry({"descr": "<U1", "fortran_order": False, "shape": (8,)}, bytes(32))
    },
    "infos of another length": {
        "infos/x.npy": entry({"descr": "<f8", "fortran_order": False, "shape": (5,)}, bytes(40))
    },
}


@pytest.mark.parametrize("name", ODD)
def test_whatever_else_an_archive_holds_its_log_is_read(name: str, folder: Path) -> None:
    path = npz_file(folder / "log.npz")
    expected = import_file(path, "me/plain-v0", bounded(), None).episodes
    with zipfile.ZipFile(path, "a") as archive:
        for entry_name, content in ODD[name].items():
            archive.writestr(entry_name, content)
    assert import_file(path, NEW, bounded(), None).episodes.content_hash == expected.content_hash
    assert not read_recording(open_minari(NEW)).infos


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_asked_for_and_there_twice_is_refused(folder: Path) -> None:
    path = npz_file(folder / "log.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("rewards.npy", archive.read("rewards.npy"))
    with pytest.raises(DataError, match="'rewards' twice"):
        import_file(path, NEW, bounded(), None)


# -- .csv


@pytest.mark.parametrize(
    "more",
    [",", ",,", ",note,note", ',"a\nb"', ",x y,x y", ",#,%", f",{'n' * 900}", ",nan,inf"],
    ids=["blank", "blanks", "repeated", "two lines", "spaces", "marks", "long", "numbers"],
)
def test_whatever_else_a_header_holds_its_log_is_read(more: str, folder: Path) -> None:
    cells = "," * more.count(",")
    rows = "".join(f"{k},0.5,{k + 1},0,{int(k == 2)}{cells}\n" for k in range(3))
    path = written(folder / "log.csv", f"obs,action,reward,terminated,truncated{more}\n{rows}")
    assert import_table(path).episodes.reward.tolist() == [1, 2]


def test_cells_that_nothing_asks_for_may_be_of_any_length(folder: Path) -> None:
    rows = "".join(f"{k},0.5,{k + 1},{int(k == 2)},{'x' * 200_000}\n" for k in range(3))
    path = written(folder / "log.csv", f"obs,action,reward,truncated,note\n{rows}")
    assert import_table(path, ASKED).episodes.reward.tolist() == [1, 2]


# -- .parquet


@pytest.mark.parametrize(
    "column",
    [
        ["a", "b", None],
        [{"a": 1}, None, {"a": 2}],
        [[1], [2, 3], None],
        [[{"a": [1]}]] * 3,
        [None] * 3,
        pyarrow.array([[("k", 1)]] * 3, pyarrow.map_(pyarrow.string(), pyarrow.int32())),
        pyarrow.array([b"\xff"] * 3),
        pyarrow.array(["1.5"] * 3).cast(pyarrow.decimal128(5, 2)),
        pyarrow.array([1, 2, 3], pyarrow.timestamp("ns")),
    ],
    ids=["words", "structs", "ragged", "nested", "null", "maps", "bytes", "decimals", "times"],
)
@pytest.mark.parametrize(
    "name", ["note", "infos/note", "obs.note", "reward.note", "timestamp", "done", "success"]
)
def test_whatever_else_a_table_holds_its_log_is_read(name: str, column: Any, folder: Path) -> None:
    assert reward_of(parquet_file(folder / "log.parquet", **{name: column})) == [1, 2, 4]


def test_a_table_that_has_a_name_twice_is_refused_only_where_it_is_asked_for(folder: Path) -> None:
    path = parquet_file(folder / "log.parquet")
    made = parquet.read_table(path)
    parquet.write_table(
        made.append_column("note", made["reward"]).append_column("note", made["obs"]), path
    )
    assert reward_of(path) == [1, 2, 4]
    parquet.write_table(made.append_column("reward", made["reward"]), path)
    with pytest.raises(DataError, match="'reward' twice"):
        import_file(path, "me/other-v0", bounded(), None)


def test_what_is_not_read_of_a_table_may_claim_anything(folder: Path) -> None:
    """Thirty megabytes of ones in a list, in a file of a few kB."""
    values = pyarrow.array(np.ones(2**22))
    bomb = pyarrow.ListArray.from_arrays([0, 0, 0, len(values)], values)
    path = parquet_file(folder / "log.parquet")
    made = parquet.read_table(path).append_column("bomb", bomb)
    parquet.write_table(made, path, compression="zstd")
    assert reward_of(path) == [1, 2, 4]
    with pytest.raises(DataError, match="claims"):
        read_parquet(path, parse_mapping({**ASKED, "observation": "bomb"}, "m"))


# -- HDF5

COMPOUND = np.zeros(8, [("x", "f4"), ("name", "S4")])


def odd_hdf5(file: h5py.File, place: str) -> None:
    """Put into a file whatever HDF5 can hold beside arrays of numbers."""
    file[f"{place}/compound"] = COMPOUND
    file[f"{place}/one"] = COMPOUND[0]
    file[f"{place}/opaque"] = np.void(b"\x00\x01")
    file[f"{place}/null"] = h5py.Empty("f4")
    file[f"{place}/words"] = ["a", "bc"] * 4
    file[f"{place}/complex"] = 1j
    file[f"{place}/reference"] = file["rewards"].ref
    file[f"{place}/enum"] = h5py.Empty(h5py.enum_dtype({"A": 0}, basetype="i1"))
    file[f"{place}/type"] = np.dtype("f8")
    file[f"{place}/ragged"] = np.array([np.arange(2), np.arange(3)] * 4, object).astype(
        h5py.vlen_dtype(np.int32)
    )
    file.create_group(f"{place}/group/group")


@pytest.mark.parametrize("place", ["more", "infos", "reset_infos", "metadata", "metadata/deep"])
def test_whatever_else_an_hdf5_file_holds_its_log_is_read(place: str, folder: Path) -> None:
    path = d4rl_file(folder / "a.hdf5")
    expected = read_d4rl(path)
    with h5py.File(path, "a") as file:
        odd_hdf5(file, place)
    found = read_d4rl(path)
    assert np.array_equal(found.log.rewards, expected.log.rewards)
    assert not found.log.infos
    import_file(path, NEW, bounded(), None)


@pytest.mark.parametrize("link", [h5py.SoftLink("/rewards"), h5py.ExternalLink("b.hdf5", "/")])
def test_links_that_nothing_asks_for_are_not_followed_and_no_harm(link: Any, folder: Path) -> None:
    path = d4rl_file(folder / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["alias"] = link
        file["more/alias"] = link
    assert np.array_equal(read_d4rl(path).log.rewards, ARRAYS["rewards"])
    asked = {
        "observation": "alias",
        "action": "actions",
        "reward": "rewards",
        "terminated": "terminals",
    }
    with pytest.raises(Exception, match="no column 'alias'"):
        import_table(path, asked)


def test_an_hdf5_file_of_any_names_is_read_by_a_mapping(folder: Path) -> None:
    path = folder / "robot.h5"
    with h5py.File(path, "w") as file:
        file["arm/joints"] = np.arange(6.0).reshape(3, 2)
        file["arm/torque"] = np.array([0.5, 0, -0.5])
        file["r"] = np.array([1, 2, 4])
        file["run"] = np.array([b"a", b"a", b"b"])
        file["note"] = COMPOUND
    asked = {"observation": "arm/joints", "action": "arm/torque", "reward": "r", "episode": "run"}
    done = import_table(path, asked)
    assert done.episodes.obs.tolist() == [[0, 1]]
    assert done.lost == 2

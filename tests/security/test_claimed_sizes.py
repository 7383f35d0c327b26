"""Small files that claim much: refused before the memory or the time is spent, under a limit."""

from __future__ import annotations

import copy
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import h5py
import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from baq_cli.data import sizes
from baq_cli.data.logs.d4rl import read_d4rl
from baq_cli.data.logs.delimited import read_csv
from baq_cli.data.logs.mapping import expand, parse_mapping
from baq_cli.data.logs.parquet import read_parquet
from baq_cli.data.logs.tables import read_npz
from baq_cli.data.suite import SUITE, Trained
from baq_cli.deploy.policy import load_one_seed
from baq_cli.engine.checkpoints.tensors import read_document, read_tensors, tensor_bytes
from baq_cli.errors import DataError, UsageError
from baq_cli.nets.streams import SeedStream
from baq_cli.untrusted import parse_json
from support.limits import little_memory
from support.logs import ARRAYS, d4rl_file, import_table, npz_file, written

GIGABYTES = 1.5
SECONDS = 20


@pytest.fixture(autouse=True, scope="module")
def _limits() -> Iterator[None]:
    with little_memory(GIGABYTES):
        yield


@pytest.fixture(autouse=True)
def _little_time() -> Iterator[None]:
    def late(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(read: Callable[[], Any], *words: str) -> None:
    with pytest.raises(DataError) as caught:
        read()
    assert "Unable to allocate" not in str(caught.value)
    assert len(str(caught.value)) < 1_000
    for word in words:
        assert word in str(caught.value)


# -- tables


def test_one_row_with_a_list_of_millions_is_refused(tmp_path: Path) -> None:
    path, values = tmp_path / "log.parquet", pyarrow.array(np.ones(2**22))
    chunk = pyarrow.ListArray.from_arrays([0, len(values)], values)
    one = {"obs": chunk, "action": [0.5], "reward": [1.0], "terminated": [True]}
    parquet.write_table(pyarrow.table(one), path, compression="zstd")
    assert path.stat().st_size * 2_000 < 8 * len(values)
    refused(lambda: read_parquet(path, None), "claims")


def repeated(tmp_path: Path, word: str, rows: int) -> Path:
    """Write a table with a column that says one long word in every row, in a dictionary."""
    indices = pyarrow.array(np.zeros(rows, np.int32))
    words = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([word]))
    numbers = np.arange(float(rows))
    log = {
        "obs": numbers,
        "action": np.zeros(rows),
        "reward": numbers,
        "terminated": numbers == rows - 1,
    }
    path = tmp_path / "log.parquet"
    table = pyarrow.table({**log, "note": words})
    parquet.write_table(table, path, store_schema=False)  # for who reads them they are plain words
    assert path.stat().st_size < 8_000_000
    return path


@pytest.mark.parametrize("episodes", [False, True])
def test_a_long_word_that_a_table_repeats_is_held_once(tmp_path: Path, episodes: bool) -> None:
    """Twenty gigabytes of letters, where nothing asks for them, and where they name episodes."""
    path = repeated(tmp_path, "x" * 200_000, 100_000)
    content = {"observation": "obs", "action": "action", "reward": "reward"}
    ends = {"episode": "note"} if episodes else {"terminated": "terminated"}
    log = read_parquet(path, parse_mapping({**content, **ends}, "m")).log
    assert len(log.rewards) == 100_000
    if episodes:
        assert log.episode is not None
        assert len(set(log.episode.tolist())) == 1


def test_a_column_of_words_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = repeated(tmp_path, "x" * 200_000, 100_000)
    content = {"observation": "note", "action": "action", "reward": "reward", "episode": "obs"}
    refused(lambda: read_parquet(path, parse_mapping(content, "m")), "expected numbers")


def test_a_long_cell_costs_no_more_than_itself(tmp_path: Path) -> None:
    """As an array of words, the column would be 8 000 times as wide as that cell."""
    lines = [
        "obs,action,reward,terminated,note",
        *["1,0,1,0,a"] * 8_000,
        f"1,0,1,1,{'x' * 131_000}",
    ]
    path = written(tmp_path / "log.csv", "\n".join(lines) + "\n")
    assert len(read_csv(path, None).log.rewards) == 8_001
    content = {"observation": "obs", "action": "action", "reward": "reward", "episode": "note"}
    episode = read_csv(path, parse_mapping(content, "m")).log.episode
    assert episode is not None
    assert episode.tolist() == [0] * 8_000 + [1]
    long = {**content, "reward": "note", "episode": "obs"}
    refused(lambda: read_csv(path, parse_mapping(long, "m")), "in line 2")
    digits = written(tmp_path / "digits.csv", "\n".join([*lines[:9], f"1,0,{'9' * 131_000},1,a"]))
    refused(lambda: read_csv(digits, None), "in line 10")


def test_tens_of_thousands_of_columns_are_found_by_a_pattern() -> None:
    count = 40_000
    names = [f"c{k}" for k in range(count)]
    assert expand("c*", names) == names
    assert expand(tuple(names), names) == names
    with pytest.raises(UsageError) as caught:
        expand("d", names)
    assert len(str(caught.value)) < 10_000
    with pytest.raises(UsageError, match="patterns"):
        expand(tuple(f"*{k}*" for k in range(10_000)), names)


@pytest.mark.usefixtures("folder")
def test_tens_of_thousands_of_columns_that_are_alike_are_imported(tmp_path: Path) -> None:
    names = [f"c{k}" for k in range(40_000)]
    lines = [
        [*names, "a", "r", "t"],
        *[[row] * 40_000 + ["0", "1", end] for row, end in zip("012", "001", strict=True)],
    ]
    path = written(tmp_path / "log.csv", "\n".join(map(",".join, lines)) + "\n")
    content = {"observation": "c*", "action": "a", "reward": "r", "truncated": "t"}
    found = import_table(path, content)
    assert found.episodes.observations.shape[1] == 40_000
    assert any("duplicates: 0 = 1, 0 = 2" in finding.text for finding in found.episodes.findings)


def test_a_name_longer_than_any_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", f"{'a' * 100_000},r\n1,1\n")
    refused(lambda: read_csv(path, None), "letters")


@pytest.mark.parametrize("descr", ["|V0", "<U0", "|S0"])
def test_an_array_of_nothing_is_refused(tmp_path: Path, descr: str) -> None:
    """Its shape costs no bytes, and each of its values an object."""
    import zipfile

    path = npz_file(tmp_path / "log.npz")
    with zipfile.ZipFile(path, "a") as archive, archive.open("episode.npy", "w") as member:
        header = {"descr": descr, "fortran_order": False, "shape": (2**27,)}
        np.lib.format.write_array_header_1_0(member, header)
    refused(lambda: read_npz(path, None), "episode")


# -- HDF5


def chunked(path: Path, chunk: int, packings: int) -> Path:
    """Write a file of eight rewards in one chunk of zeros, packed so many times."""
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            if name != "rewards":
                file[name] = array
        stored = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        stored.set_chunk((chunk,))
        for _ in range(packings):
            stored.set_deflate(9)
        space = h5py.h5s.create_simple((8,), (h5py.h5s.UNLIMITED,))
        made = h5py.h5d.create(file.id, b"rewards", h5py.h5t.IEEE_F64LE, space, stored)
        packed = zlib.compress(bytes(8 * min(chunk, 2**20)), 9)
        for _ in range(packings - 1):
            packed = zlib.compress(packed, 9)
        made.write_direct_chunk((0,), packed)
    return path


def test_a_chunk_much_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    path = chunked(tmp_path / "a.hdf5", 2**28, 1)
    refused(lambda: read_d4rl(path), "claims")


def test_what_is_packed_twice_is_refused(tmp_path: Path) -> None:
    path = chunked(tmp_path / "a.hdf5", 2**10, 2)
    refused(lambda: read_d4rl(path), "compressed 2 times")


def test_a_chunk_that_unpacks_to_more_than_it_claims_is_refused(tmp_path: Path) -> None:
    """A megabyte as stored, a few kB as claimed: HDF5 would unpack a gigabyte of it."""
    path = tmp_path / "a.hdf5"
    d4rl_file(path)
    packing = zlib.compressobj(9)
    packed = b"".join(packing.compress(bytes(2**24)) for _ in range(64)) + packing.flush()
    with h5py.File(path, "a") as file:
        del file["rewards"]
        rewards = file.create_dataset(
            "rewards", (8,), "f8", chunks=(2**17,), maxshape=(None,), compression="gzip"
        )
        rewards.id.write_direct_chunk((0,), packed)
    assert path.stat().st_size < 2_000_000
    refused(lambda: read_d4rl(path), "unpacks")


def test_honest_chunks_of_any_size_are_read(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.hdf5", 300_000
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=rows)
    with h5py.File(path, "w") as file:
        for name in ("observations", "actions"):
            file.create_dataset(name, data=rng.normal(size=(rows, 1)), compression="lzf")
        file.create_dataset("terminals", data=np.arange(rows) == rows - 1, compression="gzip")
        options = {"chunks": (rows,), "compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("rewards", data=rewards, **options)
    assert np.array_equal(read_d4rl(path).log.rewards, rewards)


def test_a_card_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file.create_dataset("metadata/baq", (), "S2000000000")
    refused(lambda: read_d4rl(path), "claims")


# -- behaviours


def test_a_behaviour_is_built_of_what_its_file_holds(tmp_path: Path) -> None:
    """Its recipe may say 900 wide critics, of which the file has none."""
    trained = SUITE["baq/pendulum/medium-v0"].behaviors[0]
    assert isinstance(trained, Trained)
    document, tensors = read_document(trained.path), read_tensors(trained.path)
    hostile = copy.deepcopy(document)
    section = hostile["recipe"][hostile["algo"]]
    old, width = section["hidden"], 512
    section |= {"critics": 900, "hidden": [width] * len(old)}

    def grown(tensor: torch.Tensor) -> torch.Tensor:
        shape = [width if size in old else size for size in tensor.shape]
        return torch.zeros(shape, dtype=tensor.dtype)

    wide = {n: t if n.startswith("inputs.") else grown(t) for n, t in tensors.items()}
    path = tmp_path / "wide.safetensors"
    path.write_bytes(tensor_bytes(wide, hostile))
    one, true = load_one_seed(path, None), load_one_seed(trained.path, None)
    obs, noise = torch.randn(1, 5, true.spaces.obs_dim), SeedStream((0,), "act")
    assert (one.agent.act(obs, noise) == 0).all()
    kept = {name: t.float() for name, t in tensors.items() if not name.startswith("inputs.")}
    own = true.agent.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in kept.items())
    assert not (true.agent.act(obs, noise) == 0).any()


# -- limits


def test_what_claims_more_than_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the file: 300 MB of an array in a file of as much."""
    claim = 300_000_000
    sizes.check_size(claim, claim)
    monkeypatch.setattr(sizes, "free_memory", lambda: claim)
    with pytest.raises(ValueError, match="free"):
        sizes.check_size(claim, claim)
    with pytest.raises(ValueError, match="claims"):
        sizes.check_size(100 * claim, claim)


def test_json_of_millions_of_containers_is_refused() -> None:
    with pytest.raises(ValueError, match="lists"):
        parse_json("[" + "[]," * 2_000_000 + "[]]")

"""Damaged files to import: one message that names the file, status 3, and nothing left behind.

The fixture `refused_import` states this law of every file given to it.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baq_cli.data.exchange import import_file
from baq_cli.data.logs.d4rl import read_d4rl
from baq_cli.data.minari.folder import local_datasets, open_minari
from baq_cli.data.minari.read import read_recording
from baq_cli.errors import BaqError, DataError, ExitStatus
from support.cli import baq
from support.logs import (
    ARRAYS,
    BOUNDS,
    GROUP,
    NEW,
    Claim,
    bounded,
    cut_short,
    d4rl_file,
    listing,
    npz_file,
    parquet_file,
    written,
)

Refused = Callable[..., str]
FILES: dict[str, Callable[..., Path]] = {
    "hdf5": d4rl_file,
    "npz": npz_file,
    "parquet": parquet_file,
}


@pytest.mark.parametrize("suffix", FILES)
def test_the_undamaged_files_are_imported(suffix: str, folder: Path) -> None:
    """Otherwise every test below could pass for a reason of its own."""
    import_file(FILES[suffix](folder / f"log.{suffix}"), NEW, bounded(), None)
    assert local_datasets() == [NEW]
    assert [path.name for path in (folder / "minari").iterdir()] == ["datasets"]


@pytest.mark.parametrize("share", [0.002, 0.02, 0.2, 0.5, 0.8, 0.99, 0.999])
@pytest.mark.parametrize("suffix", FILES)
def test_a_truncated_file_is_refused(
    suffix: str, share: float, refused_import: Refused, folder: Path
) -> None:
    path = FILES[suffix](folder / f"log.{suffix}")
    cut_short(path, share)
    name = "as a D4RL file" if suffix == "hdf5" else f".{suffix}"
    assert name in refused_import(path)


@pytest.mark.parametrize("content", [b"", np.random.default_rng(0).bytes(4_000)], ids=len)
@pytest.mark.parametrize("suffix", [*FILES, "csv"])
def test_a_file_of_nothing_or_noise_is_refused(
    suffix: str, content: bytes, refused_import: Refused, folder: Path
) -> None:
    path = folder / f"log.{suffix}"
    path.write_bytes(content)
    refused_import(path)


@pytest.mark.parametrize("suffix", [*FILES, "csv"])
def test_a_file_that_isnt_there_is_refused(
    suffix: str, refused_import: Refused, folder: Path
) -> None:
    assert "not there" in refused_import(folder / f"gone.{suffix}")
    (folder / f"place.{suffix}").mkdir()
    assert "a folder without a log" in refused_import(folder / f"place.{suffix}")


@pytest.mark.parametrize("name", ["log.txt", "log.pkl", "log.npy", "log", "log.hdf5.zip"])
def test_another_kind_of_file_is_refused_by_its_suffix(
    name: str, refused: Refused, folder: Path
) -> None:
    (folder / name).write_bytes(b"x")
    words = ("data", "import", folder / name, "--id", NEW, *BOUNDS)
    assert "known: .hdf5" in refused(*words, status=ExitStatus.USAGE)


def test_the_command_in_a_process_of_its_own_says_one_line_and_has_status_3(folder: Path) -> None:
    path = d4rl_file(folder / "a.hdf5")
    cut_short(path, 0.6)
    before = listing(folder / "minari")
    words = ("data", "import", path, "--id", NEW, *BOUNDS)
    done = baq(*words, data=folder / "minari" / "datasets", expect=ExitStatus.DATA)
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {path}: can't be read as a D4RL file: ")
    assert done.stderr.count("\n") == 1
    assert listing(folder / "minari") == before


@pytest.mark.parametrize(
    ("suffix", "change", "said"),
    [
        ("hdf5", {"observations": np.zeros((7, 2))}, "beside 8 rewards"),
        ("hdf5", {"observations": 5.0}, "observations is a single value"),
        ("hdf5", {"actions": np.zeros((9, 1))}, "beside 8 rewards"),
        ("hdf5", {"rewards": np.zeros((8, 2))}, "shape"),
        ("hdf5", {"rewards": 1.0}, "rewards is a single value"),
        ("hdf5", {"rewards": np.full(8, np.nan)}, "rewards are NaN"),
        ("hdf5", {"terminals": np.zeros(7, dtype=bool)}, "beside 8 rewards"),
        ("hdf5", {"timeouts": np.zeros((8, 2), dtype=bool)}, "shape"),
        ("hdf5", {"next_observations": np.zeros((8, 3))}, "3 numbers"),
        ("npz", {"observations": np.zeros((7, 2))}, "[7, 2] beside 8 rewards"),
        ("npz", {"actions": np.zeros((8, 0))}, "action"),
        ("npz", {"rewards": np.zeros((8, 2))}, "one number a row"),
        ("npz", {"rewards": np.float64(1)}, "no rows"),
        ("npz", {"rewards": np.array(list("abcdefgh"))}, "expected numbers"),
        ("npz", {"rewards": np.zeros(8, dtype=complex)}, "expected numbers"),
        ("npz", {"rewards": None}, "no column is called rewards"),
        ("npz", {"terminals": None, "timeouts": None}, "where an episode ends"),
        ("npz", {"rewards": np.array([1, 2, np.nan, 4, 5, 6, 7, 8])}, "rewards are NaN"),
        ("npz", {"actions": np.full((8, 1), 1.5)}, "outside"),
        ("parquet", {"obs": [[1.0, 2], [3], [5, 6]]}, "different lengths"),
        ("parquet", {"obs": [[1.0, 2], None, [5, 6]]}, "different lengths"),
        ("parquet", {"obs": [["a"], ["b"], ["c"]]}, "expected numbers"),
        ("parquet", {"reward": ["a", "b", "c"]}, "expected numbers"),
        ("parquet", {"reward": [{"a": 1}] * 3}, "expected numbers"),
        ("parquet", {"reward": [1.0, None, 3]}, "rewards are NaN"),
    ],
)
def test_arrays_that_dont_fit_are_refused(
    suffix: str, change: dict[str, Any], said: str, refused_import: Refused, folder: Path
) -> None:
    assert said in refused_import(FILES[suffix](folder / f"log.{suffix}", **change))


# -- D4RL files


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals"])
def test_a_missing_array_is_named(name: str, refused_import: Refused, folder: Path) -> None:
    said = refused_import(d4rl_file(folder / "a.hdf5", **{name: None}))
    assert f"it has no {name}; found" in said


def test_a_file_without_any_array_is_refused(refused_import: Refused, folder: Path) -> None:
    changes = dict.fromkeys(ARRAYS)
    assert "found nothing" in refused_import(d4rl_file(folder / "a.hdf5", **changes))


@pytest.mark.parametrize("name", [*ARRAYS, "next_observations"])
def test_a_group_in_the_place_of_an_array_is_named(
    name: str, refused_import: Refused, folder: Path
) -> None:
    said = refused_import(d4rl_file(folder / "a.hdf5", **{name: GROUP}))
    assert name in said
    assert "group" in said


@pytest.mark.parametrize("words", [np.array([b"a"] * 8), ["one"] * 8], ids=["fixed", "variable"])
@pytest.mark.parametrize("name", ARRAYS)
def test_words_in_the_place_of_numbers_are_named(
    name: str, words: Any, refused_import: Refused, folder: Path
) -> None:
    assert name in refused_import(d4rl_file(folder / "a.hdf5", **{name: words}))


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("rewards", Claim(2**40)),
        ("observations", Claim(2**40)),
        ("observations", Claim(8, 2**45)),
        ("infos/qpos", Claim(8, 2**45)),
        ("reset_infos/qpos", Claim(2**50)),
    ],
)
def test_an_array_that_claims_more_than_fits_anywhere_is_refused(
    name: str, claim: Claim, refused_import: Refused, folder: Path
) -> None:
    refused_import(d4rl_file(folder / "a.hdf5", **{name: claim}))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("observations", (8, 2**21)),
        ("actions", (8, 2**21)),
        ("infos/qpos", (8, 2**21)),
        ("reset_infos/qpos", (2**24,)),
    ],
)
def test_an_array_that_claims_far_more_than_its_file_holds_is_refused_before_it_is_read(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """128 MiB in 5 kB; a wider claim would fill any memory with zeros."""
    path = d4rl_file(tmp_path / "a.hdf5", **{name: Claim(*shape, chunk=2**17)})
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError):
        read_d4rl(path)


@pytest.mark.parametrize(
    "resets", [np.float64(1), np.array([b"a", b"b", b"c"]), np.zeros((3, 2))], ids=str
)
@pytest.mark.parametrize("suffix", ["hdf5", "npz"])
def test_infos_of_resets_that_dont_fit_are_refused_or_left_out(
    suffix: str, resets: Any, folder: Path
) -> None:
    infos = {"infos/qpos": np.arange(8.0), "reset_infos/qpos": resets}
    try:
        import_file(FILES[suffix](folder / f"log.{suffix}", **infos), NEW, bounded(), None)
    except DataError:
        assert local_datasets() == []
    else:
        assert len(read_recording(open_minari(NEW)).infos["qpos"]) == 6


# -- tables


@pytest.mark.usefixtures("folder")
def test_an_npz_with_a_byte_flipped_anywhere_is_refused_or_read_but_no_fault(
    tmp_path: Path,
) -> None:
    path = npz_file(tmp_path / "a.npz", observations=np.random.default_rng(0).normal(size=(8, 2)))
    content = path.read_bytes()
    for place in range(0, len(content), 13):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        with contextlib.suppress(BaqError):
            import_file(path, f"me/flipped-v{place}", bounded(), None)


def test_an_array_that_is_no_archive_is_refused(refused_import: Refused, folder: Path) -> None:
    """What `numpy.save` writes, under the name of what `numpy.savez` does."""
    with (folder / "log.npz").open("wb") as file:
        np.save(file, np.zeros((8, 2)))
    refused_import(folder / "log.npz")


class Stranger:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_nothing_in_an_npz_is_unpickled(refused_import: Refused, folder: Path) -> None:
    mark, path = folder / "unpickled", folder / "log.npz"
    objects = np.empty(8, dtype=object)
    objects[:] = [Stranger(mark)] * 8
    refused_import(npz_file(path, rewards=objects))
    import_file(npz_file(path, unused=objects), NEW, bounded(), None)
    path.write_bytes(pickle.dumps(Stranger(mark)))
    with pytest.raises(DataError):
        import_file(path, "me/other-v0", bounded(), None)
    assert not mark.exists()


HEADER = "obs,action,reward,terminated,truncated\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER + "1,.5,1,0,0\n2,.5,2,1\n", "line 3 has 4 cells, the header has 5"),
        (HEADER + "1,.5,1,0,0\n2,.5,2,1,0,9\n", "line 3 has 6 cells, the header has 5"),
        (HEADER + "1,.5,1,0,0\n2,half,2,1,0\n", "column 'action' has 'half' in line 3"),
        (HEADER + "1,.5,1,0,0\n2,.5,2,yes,0\n", "column 'terminated' has 'yes' in line 3"),
        (HEADER + "1,.5,1,0,0\n,.5,2,1,0\n", "observations are NaN"),
        (HEADER, "no rows"),
        ("obs,action\n1,.5\n", "no column is called rewards"),
        (HEADER + "1,.5,1,0,0\n\n2,.5,2,1\n", "line 4 has 4 cells"),
        (HEADER + "1,.5,1,0,0\n\n2,half,2,1,0\n", "column 'action' has 'half' in line 4"),
        (HEADER + '"1\n",.5,1,0,0\n2,half,2,1,0\n', "column 'action' has 'half' in line 4"),
    ],
)
def test_what_is_wrong_in_a_csv_is_named_with_its_line(
    text: str, said: str, refused_import: Refused, folder: Path
) -> None:
    assert said in refused_import(written(folder / "log.csv", text))

"""Damaged inputs: one message, status 3, and nothing left behind."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow
import pytest
from cli import baq
from pyarrow import parquet

from baq_cli.cli.main import main
from baq_cli.data.d4rl import read_d4rl
from baq_cli.data.exchange import export_file, import_file, save_arrays
from baq_cli.data.logfile import Setting
from baq_cli.data.minari_folder import local_datasets, open_minari
from baq_cli.data.minari_read import load_episodes, read_recording
from baq_cli.errors import BaqError, DataError, ExitStatus

Array = npt.NDArray[Any]
NEW, GOOD = "me/new-v0", "me/good-v0"
BOUNDS = ("--action-low=-1", "--action-high=1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the Minari folder and nothing else."""
    folder = tmp_path / "home"
    (folder / "minari").mkdir(parents=True)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    monkeypatch.setenv("BAQ_CACHE", str(tmp_path / "cache"))
    return folder


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return every path below a folder with its size and time of change."""
    found = [(path, path.stat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), state.st_size, state.st_mtime_ns) for path, state in found]


Refused = Callable[..., str]


@pytest.fixture
def refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Run `baq`, here, on something damaged; return its message once all is well with it."""

    def run(*words: str | Path, status: ExitStatus = ExitStatus.DATA) -> str:
        monkeypatch.setattr(sys, "argv", ["baq", *map(str, words)])
        before = listing(home)
        with pytest.raises(SystemExit) as end:
            main()
        out, said = capsys.readouterr()
        assert end.value.code == status, said
        assert out == ""
        assert said.startswith("error: ")
        assert said.count("\n") == 1, said
        assert "Traceback" not in said
        assert listing(home) == before
        return said

    return run


@pytest.fixture
def refused_import(refused: Refused) -> Refused:
    """Import a damaged file, through the command line and from Python."""

    def run(path: Path, *words: str) -> str:
        said = refused("data", "import", path, "--id", NEW, *(words or BOUNDS))
        bounds = Setting() if words else Setting(None, [-1.0], [1.0])
        with pytest.raises(DataError):
            import_file(path, NEW, bounds, None)
        return said

    return run


# -- D4RL files

ARRAYS: dict[str, Any] = {
    "observations": np.arange(16.0).reshape(8, 2),
    "actions": np.linspace(-0.5, 0.5, 8)[:, None],
    "rewards": np.arange(8.0),
    "terminals": np.arange(8) == 2,
    "timeouts": np.arange(8) == 5,
}
GROUP = object()


class Claim:
    """An array that a header claims, without data."""

    def __init__(self, *shape: int, chunk: int = 2):
        self.shape, self.chunks = shape, (*(1 for _ in shape[1:]), min(chunk, shape[-1]))


def put(file: h5py.Group, name: str, value: Any) -> None:
    """Put a value in the place of what a file has under a name; None takes it out."""
    if name in file:
        del file[name]
    if isinstance(value, Claim):
        file.create_dataset(name, value.shape, "f8", chunks=value.chunks)
    elif value is GROUP:
        file.create_group(name)
    elif value is not None:
        file[name] = value


def d4rl_file(path: Path, **changes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in {**ARRAYS, **changes}.items():
            put(file, name, value)
    return path


def test_the_undamaged_file_is_imported(home: Path, tmp_path: Path) -> None:
    """Otherwise every test below could pass for a reason of its own."""
    import_file(d4rl_file(tmp_path / "a.hdf5"), NEW, Setting(None, [-1.0], [1.0]), None)
    assert local_datasets() == [NEW]
    assert [path.name for path in home.iterdir()] == ["minari"]


@pytest.mark.parametrize("share", [0, 0.002, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_d4rl_file_is_refused(
    share: float, refused_import: Refused, tmp_path: Path
) -> None:
    path = d4rl_file(tmp_path / "a.hdf5")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "as a D4RL file" in refused_import(path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("observations", np.zeros((7, 2)), "beside 8 rewards"),
        ("observations", 5.0, "shape"),
        ("actions", np.zeros((9, 1)), "beside 8 rewards"),
        ("rewards", np.zeros((8, 2)), "shape"),
        ("rewards", 1.0, "shape"),
        ("terminals", np.zeros(7, dtype=bool), "beside 8 rewards"),
        ("timeouts", np.zeros((8, 2), dtype=bool), "shape"),
        ("next_observations", np.zeros((8, 3)), "3 numbers"),
    ],
)
def test_arrays_of_wrong_shapes_are_refused(
    name: str, value: Any, said: str, refused_import: Refused, tmp_path: Path
) -> None:
    assert said in refused_import(d4rl_file(tmp_path / "a.hdf5", **{name: value}))


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals"])
def test_a_missing_array_is_named(name: str, refused_import: Refused, tmp_path: Path) -> None:
    said = refused_import(d4rl_file(tmp_path / "a.hdf5", **{name: None}))
    assert f"it has no {name}; found" in said


def test_a_file_without_any_array_is_refused(refused_import: Refused, tmp_path: Path) -> None:
    changes = dict.fromkeys(ARRAYS)
    assert "found nothing" in refused_import(d4rl_file(tmp_path / "a.hdf5", **changes))


@pytest.mark.parametrize("name", [*ARRAYS, "next_observations"])
def test_a_group_in_the_place_of_an_array_is_named(
    name: str, refused_import: Refused, tmp_path: Path
) -> None:
    said = refused_import(d4rl_file(tmp_path / "a.hdf5", **{name: GROUP}))
    assert name in said
    assert "group" in said


@pytest.mark.parametrize("words", [np.array([b"a"] * 8), ["one"] * 8], ids=["fixed", "variable"])
@pytest.mark.parametrize("name", ARRAYS)
def test_words_in_the_place_of_numbers_are_named(
    name: str, words: Any, refused_import: Refused, tmp_path: Path
) -> None:
    assert name in refused_import(d4rl_file(tmp_path / "a.hdf5", **{name: words}))


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
    name: str, claim: Claim, refused_import: Refused, tmp_path: Path
) -> None:
    refused_import(d4rl_file(tmp_path / "a.hdf5", **{name: claim}))


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("observations", Claim(8, 2**21, chunk=2**17)),
        ("actions", Claim(8, 2**21, chunk=2**17)),
        ("infos/qpos", Claim(8, 2**21, chunk=2**17)),
        ("reset_infos/qpos", Claim(2**24, chunk=2**17)),
    ],
)
def test_an_array_that_claims_far_more_than_its_file_holds_is_refused_before_it_is_read(
    name: str, claim: Claim, tmp_path: Path
) -> None:
    """128 MiB in 5 kB; a wider claim would fill any memory with zeros."""
    path = d4rl_file(tmp_path / "a.hdf5", **{name: claim})
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError):
        read_d4rl(path)


@pytest.mark.parametrize(
    "resets", [np.float64(1), np.array([b"a", b"b", b"c"]), np.zeros((3, 2))], ids=str
)
@pytest.mark.parametrize("form", ["hdf5", "npz"])
def test_infos_of_resets_that_dont_fit_are_refused_or_left_out(
    form: str, resets: Any, tmp_path: Path
) -> None:
    infos = {"infos/qpos": np.arange(8.0), "reset_infos/qpos": resets}
    path = (d4rl_file if form == "hdf5" else npz)(tmp_path / f"log.{form}", **infos)
    try:
        import_file(path, NEW, Setting(None, [-1.0], [1.0]), None)
    except DataError:
        assert local_datasets() == []
    else:
        assert len(read_recording(open_minari(NEW)).infos["qpos"]) == 6


# -- cards: what an export says beside the rows

BOX = '{"type": "Box", "dtype": "float64", "shape": [%s], "low": [%s], "high": [%s]}'
CARD = {
    "observation_space": BOX % (2, "-99, -99", "99, 99"),
    "action_space": BOX % (1, -1, 1),
    "env_spec": None,
    "seeds": [],
    "about": {},
}
SPEC = {"id": "A-v0", "entry_point": "a:B", "kwargs": {}, "additional_wrappers": []}
CARDS: dict[str, Any] = {
    "not JSON": "{",
    "a list": "[1]",
    "a number": "7",
    "no spaces": {"observation_space": None},
    "half a space": {"observation_space": '{"type": "Box", '},
    "a space of no kind": {"action_space": '{"type": "Bos"}'},
    "a space of another shape": {"observation_space": BOX % (3, "-9, -9", "9, 9")},
    "a space upside down": {"action_space": BOX % (1, 1, -1)},
    "half an environment": {"env_spec": '{"id": '},
    "a list of environments": {"env_spec": "[]"},
    "an environment without a name": {"env_spec": json.dumps({**SPEC, "id": "?!"})},
    "an environment with odd settings": {"env_spec": json.dumps({**SPEC, "kwargs": 5})},
    "an environment with an odd limit": {
        "env_spec": json.dumps({**SPEC, "max_episode_steps": "x"})
    },
    "seeds that are one": {"seeds": 5},
    "no seeds": {"seeds": None},
    "seeds of words": {"seeds": ["a", "b", "c"]},
    "types that are no numbers": {"observation_types": {"": "object"}},
    "types that are a list": {"observation_types": ["float32"]},
    "types that are lists": {"observation_types": {"": []}},
    "metadata that are a list": {"about": []},
    "no metadata": {"about": None},
    "an author that is a number": {"about": {"author": 5}},
    "requirements that are a number": {"about": {"requirements": 5}},
}
MAY_BE_MENDED = ("no seeds", "seeds of words", "no metadata")
"""Where reading on as if nothing was said is as good as refusing."""


def card_text(kind: str) -> str:
    change = CARDS[kind]
    return change if isinstance(change, str) else json.dumps({**CARD, **change})


def test_the_undamaged_card_is_read(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", **{"metadata/baq": json.dumps(CARD)})
    assert import_file(path, NEW, Setting(), None).episodes.spaces.action_low == (-1,)


@pytest.mark.parametrize("kind", [kind for kind in CARDS if kind not in MAY_BE_MENDED])
def test_a_damaged_card_is_refused(kind: str, refused_import: Refused, tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", **{"metadata/baq": card_text(kind)})
    refused_import(path, "--split-gaps")


@pytest.mark.parametrize("kind", MAY_BE_MENDED)
def test_a_card_with_less_than_it_should_say_is_refused_or_read(kind: str, tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", **{"metadata/baq": card_text(kind)})
    try:
        import_file(path, NEW, Setting(), None)
    except DataError:
        assert local_datasets() == []
    else:
        assert load_episodes(NEW).origin.seeds in ((), (None,) * 3)
        export_file(NEW, "npz", tmp_path / "again.npz")


def write_card(path: Path, text: str) -> Path:
    """Write a log with this card, in the format of its suffix."""
    if path.suffix == ".hdf5":
        return d4rl_file(path, **{"metadata/baq": text})
    if path.suffix == ".npz":
        return npz(path, baq=np.asarray(text))
    parquet.write_table(pyarrow.table(COLUMNS).replace_schema_metadata({"baq": text}), path)
    return path


@pytest.mark.parametrize("text", ["{", "[1]"])
@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_a_damaged_card_is_refused_in_a_table_too(
    form: str, text: str, refused_import: Refused, tmp_path: Path
) -> None:
    assert "card" in refused_import(write_card(tmp_path / f"log.{form}", text))


SPLIT = {"shape": [2], "columns": ["o.0", "o.1"]}
"""What the card of a .parquet says of an array with a second axis."""


def write_split(path: Path, spread: Any) -> Path:
    columns = {name: column for name, column in COLUMNS.items() if name != "obs"}
    table = pyarrow.table({"o.0": [1.0, 2, 4], "o.1": [4.0, 2, 1], **columns})
    card = json.dumps({"spread": spread})
    parquet.write_table(table.replace_schema_metadata({"baq": card}), path)
    return path


def test_undamaged_columns_are_put_together(tmp_path: Path) -> None:
    path = write_split(tmp_path / "log.parquet", {"observations": SPLIT})
    done = import_file(path, NEW, Setting(None, [-1.0], [1.0]), None)
    assert done.episodes.obs.tolist() == [[1, 4], [2, 2], [4, 1]]


@pytest.mark.parametrize(
    "spread",
    [
        [1],
        {"observations": 5},
        {"observations": {**SPLIT, "columns": ["o.0", "o.7"]}},
        {"observations": {**SPLIT, "columns": []}},
        {"observations": {**SPLIT, "columns": 5}},
        {"observations": {**SPLIT, "columns": ["o.0", "o.0"]}},
        {"observations": {**SPLIT, "shape": [3]}},
        {"observations": {**SPLIT, "shape": ["a"]}},
        {"observations": {**SPLIT, "shape": None}},
        {"observations": {**SPLIT, "shape": [0]}},
        {"observations": {**SPLIT, "shape": [1.5]}},
        {"observations": {**SPLIT, "shape": [1, 2]}},
        {"observations": {**SPLIT, "shape": [2**40]}},
        {"observations": {"shape": [2]}},
    ],
    ids=str,
)
def test_columns_that_dont_fit_what_the_card_says_of_them_are_refused(
    spread: Any, refused_import: Refused, tmp_path: Path
) -> None:
    refused_import(write_split(tmp_path / "log.parquet", spread))


# -- tables


def npz(path: Path, **changes: Any) -> Path:
    arrays = {**ARRAYS, **changes}
    np.savez_compressed(path, **{n: a for n, a in arrays.items() if a is not None})
    return path


COLUMNS: dict[str, Any] = {
    "obs": [[1.0, 2], [3, 4], [5, 6]],
    "action": [0.5, 0, -0.5],
    "reward": [1.0, 2, 4],
    "terminated": [False, False, True],
    "truncated": [False] * 3,
}


def write_parquet(path: Path, **changes: Any) -> Path:
    parquet.write_table(pyarrow.table({**COLUMNS, **changes}), path)
    return path


def test_the_undamaged_tables_are_imported(tmp_path: Path) -> None:
    setting = Setting(None, [-1.0], [1.0])
    import_file(npz(tmp_path / "log.npz"), "me/npz-v0", setting, None)
    import_file(write_parquet(tmp_path / "log.parquet"), "me/parquet-v0", setting, None)
    assert local_datasets() == ["me/npz-v0", "me/parquet-v0"]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_a_truncated_table_is_refused(
    form: str, share: float, refused_import: Refused, tmp_path: Path
) -> None:
    path = tmp_path / f"log.{form}"
    (npz if form == "npz" else write_parquet)(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert f".{form}" in refused_import(path)


def test_an_npz_with_a_byte_flipped_anywhere_is_refused_or_read_but_no_fault(
    home: Path, tmp_path: Path
) -> None:
    path = npz(tmp_path / "log.npz", observations=np.random.default_rng(0).normal(size=(8, 2)))
    content = path.read_bytes()
    setting = Setting(None, [-1.0], [1.0])
    kinds = set()
    for place in range(0, len(content), 13):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        path.write_bytes(bytes(changed))
        try:
            import_file(path, f"me/flipped-v{place}", setting, None)
        except BaqError:
            continue
        except Exception as error:
            kinds.add(type(error).__name__)
    assert not kinds


@pytest.mark.parametrize("suffix", ["hdf5", "npz", "parquet", "csv"])
def test_an_empty_file_is_refused(suffix: str, refused_import: Refused, tmp_path: Path) -> None:
    path = tmp_path / f"log.{suffix}"
    path.write_bytes(b"")
    refused_import(path)


@pytest.mark.parametrize("suffix", ["hdf5", "npz", "parquet", "csv"])
def test_a_file_of_noise_is_refused(suffix: str, refused_import: Refused, tmp_path: Path) -> None:
    path = tmp_path / f"log.{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(4_000))
    refused_import(path)


def test_an_array_that_is_no_archive_is_refused(refused_import: Refused, tmp_path: Path) -> None:
    """What `numpy.save` writes, under the name of what `numpy.savez` does."""
    path = tmp_path / "log.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros((8, 2)))
    refused_import(path)


class Stranger:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_nothing_in_an_npz_is_unpickled(refused_import: Refused, tmp_path: Path) -> None:
    mark, path = tmp_path / "unpickled", tmp_path / "log.npz"
    objects = np.empty(8, dtype=object)
    objects[:] = [Stranger(mark)] * 8
    npz(path, rewards=objects)
    refused_import(path)
    npz(path, unused=objects)
    refused_import(path)
    path.write_bytes(pickle.dumps(Stranger(mark)))
    refused_import(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"observations": np.zeros((7, 2))}, "[7, 2] beside 8 rewards"),
        ({"actions": np.zeros((8, 0))}, "action"),
        ({"rewards": np.zeros((8, 2))}, "one number a row"),
        ({"rewards": np.float64(1)}, "no rows"),
        ({"rewards": np.array(list("abcdefgh"))}, "expected numbers"),
        ({"rewards": np.zeros(8, dtype=complex)}, "expected numbers"),
        ({"rewards": None}, "no column is called rewards"),
        ({"terminals": None, "timeouts": None}, "where an episode ends"),
        ({"infos/qpos": np.zeros(5)}, "beside 8 rewards"),
        ({"infos/qpos": np.array(list("abcdefgh"))}, "expected numbers"),
        ({"rewards": np.array([1, 2, np.nan, 4, 5, 6, 7, 8])}, "rewards are NaN"),
        ({"actions": np.full((8, 1), 1.5)}, "outside"),
    ],
)
def test_arrays_of_an_npz_that_dont_fit_are_refused(
    change: dict[str, Any], said: str, refused_import: Refused, tmp_path: Path
) -> None:
    assert said in refused_import(npz(tmp_path / "log.npz", **change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"obs": [[1.0, 2], [3], [5, 6]]}, "different lengths"),
        ({"obs": [[1.0, 2], None, [5, 6]]}, "different lengths"),
        ({"obs": [["a"], ["b"], ["c"]]}, "expected numbers"),
        ({"reward": ["a", "b", "c"]}, "expected numbers"),
        ({"reward": [{"a": 1}] * 3}, "expected numbers"),
        ({"reward": [1.0, None, 3]}, "rewards are NaN"),
    ],
)
def test_columns_of_a_parquet_that_dont_fit_are_refused(
    change: dict[str, Any], said: str, refused_import: Refused, tmp_path: Path
) -> None:
    assert said in refused_import(write_parquet(tmp_path / "log.parquet", **change))


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
    ids=[
        "too few cells",
        "too many",
        "a word",
        "a word for a flag",
        "nothing",
        "no rows",
        "no rewards",
        "too few after an empty line",
        "a word after an empty line",
        "a word after a cell of two lines",
    ],
)
def test_what_is_wrong_in_a_csv_is_named_with_its_line(
    text: str, said: str, refused_import: Refused, tmp_path: Path
) -> None:
    assert said in refused_import(written(tmp_path / "log.csv", text))


NAMED: dict[str, Callable[[Path], Path]] = {
    "words in a .csv": lambda path: written(path / "log.csv", HEADER + "1,half,1,0,0\n"),
    "cells in a .csv": lambda path: written(path / "log.csv", HEADER + "1,.5\n"),
    "shapes in an .npz": lambda path: npz(path / "log.npz", observations=np.zeros((7, 2))),
    "infos in an .npz": lambda path: npz(path / "log.npz", **{"infos/qpos": np.zeros(5)}),
    "the card of an .npz": lambda path: write_card(path / "log.npz", "{"),
    "the card of a .parquet": lambda path: write_card(path / "log.parquet", "{"),
    "columns of a .parquet": lambda path: write_split(
        path / "log.parquet", {"observations": {**SPLIT, "shape": [3]}}
    ),
    "the card of a .hdf5": lambda path: write_card(path / "log.hdf5", "{"),
    "no rewards in a .hdf5": lambda path: d4rl_file(path / "log.hdf5", rewards=None),
    "NaN in a .hdf5": lambda path: d4rl_file(path / "log.hdf5", rewards=np.full(8, np.nan)),
}


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("what", NAMED)
def test_a_message_names_its_file_once(what: str, refused_import: Refused, tmp_path: Path) -> None:
    path = NAMED[what](tmp_path)
    assert refused_import(path).count(str(path)) == 1


def test_a_file_that_isnt_there_is_refused(refused_import: Refused, tmp_path: Path) -> None:
    for name in ("gone.hdf5", "gone.npz", "gone.parquet", "gone.csv"):
        assert "not there" in refused_import(tmp_path / name)
    (tmp_path / "folder.npz").mkdir()
    assert "not a file" in refused_import(tmp_path / "folder.npz")


@pytest.mark.parametrize("name", ["log.txt", "log.pkl", "log.npy", "log", "log.hdf5.zip"])
def test_another_kind_of_file_is_refused_by_its_suffix(
    name: str, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"x")
    words = ("data", "import", tmp_path / name, "--id", NEW, *BOUNDS)
    assert "known: .hdf5" in refused(*words, status=ExitStatus.USAGE)


# -- datasets in the Minari folder


@pytest.fixture
def dataset(home: Path) -> Path:
    """Save a dataset of episodes of 2 and 4 steps; return its files' folder."""
    save_arrays(
        GOOD,
        observations=np.arange(12.0).reshape(6, 2),
        actions=np.linspace(-0.5, 0.5, 6)[:, None],
        rewards=np.arange(6.0),
        terminated=np.arange(6) % 4 == 1,
        truncated=np.zeros(6),
        action_low=-1,
        action_high=1,
    )
    assert load_episodes(GOOD).lengths.tolist() == [2, 4]
    return home / "minari" / "me" / "good-v0" / "data"


@pytest.fixture
def refused_dataset(refused: Refused, tmp_path: Path) -> Refused:
    """Read a damaged dataset in every way there is."""

    def run(dataset_id: str = GOOD) -> str:
        out = tmp_path / "out.npz"
        with pytest.raises(DataError):
            load_episodes(dataset_id)
        with pytest.raises(DataError):
            read_recording(open_minari(dataset_id))
        refused("data", "export", dataset_id, "--to", "npz", "--out", out)
        assert not out.exists()
        said = refused("data", "check", dataset_id)
        assert dataset_id in said
        return said

    return run


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.95])
def test_a_truncated_dataset_is_refused_though_it_was_read_before(
    share: float, dataset: Path, refused_dataset: Refused
) -> None:
    """What the cache keeps of it is of other files."""
    path = dataset / "main_data.hdf5"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refused_dataset()


def test_a_dataset_without_its_data_is_refused(dataset: Path, refused_dataset: Refused) -> None:
    (dataset / "main_data.hdf5").unlink()
    assert "damaged" in refused_dataset()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("observations", np.zeros((4, 2)), "episode 1 has 4 observations for 4 steps"),
        ("observations", np.zeros((6, 2)), "episode 1 has 6 observations for 4 steps"),
        ("observations", np.zeros((5, 3)), "rows of shape [3]; expected [2]"),
        ("observations", np.zeros(5), "rows of shape []; expected [2]"),
        ("observations", 1.0, "observations of episode 1"),
        ("actions", np.zeros((3, 1)), "episode 1 has 3 actions for 4 steps"),
        ("actions", np.zeros((4, 2)), "rows of shape [2]; expected [1]"),
        ("actions", None, "actions"),
        ("rewards", None, "rewards"),
        ("rewards", np.zeros((4, 1)), "rewards of episode 1 have rows of shape [1]"),
        ("rewards", np.zeros((4, 2)), "episode 1"),
        ("rewards", 1.0, "episode 1"),
        ("rewards", np.zeros(0), "episode 1 has no steps"),
        ("rewards", np.array([b"a"] * 4), "not numbers"),
        ("rewards", list("abcd"), "not numbers"),
        ("rewards", GROUP, "not an array"),
        ("rewards", Claim(2**50), "claims 1,125,899,906,842,626 bytes"),
        ("rewards", Claim(2**32, 2**32), "episode 1"),
        ("observations", Claim(2**50, 2), "episode 1 has 1125899906842624 observations"),
        ("observations", Claim(5, 2**50), "rows of shape [1125899906842624]"),
        ("terminations", np.zeros(3, dtype=bool), "episode 1 has 3 terminations for 4 steps"),
        ("terminations", True, "terminations"),
        ("truncations", None, "truncations"),
        ("truncations", False, "truncations"),
    ],
)
def test_a_damaged_episode_is_refused(
    name: str, value: Any, said: str, dataset: Path, refused_dataset: Refused
) -> None:
    with h5py.File(dataset / "main_data.hdf5", "r+") as file:
        put(file["episode_1"], name, value)
    assert said in refused_dataset()


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.move("episode_1", "episode_7"),
        lambda file: put(file, "episode_1", 3.0),
        lambda file: [put(file, name, None) for name in list(file)],
        lambda file: file["episode_1"].attrs.update(seed="x"),
        lambda file: file["episode_1"].attrs.update(seed=[1, 2]),
    ],
    ids=["a number left out", "a number for an episode", "none", "a word for a seed", "two seeds"],
)
def test_damaged_episodes_are_refused(
    change: Callable[[h5py.File], Any], dataset: Path, refused_dataset: Refused
) -> None:
    with h5py.File(dataset / "main_data.hdf5", "r+") as file:
        change(file)
    refused_dataset()


@pytest.mark.parametrize(
    "infos", [{"infos": np.zeros(2)}, {"infos/qpos": np.zeros(2)}], ids=["an array", "one scalar"]
)
def test_infos_that_make_no_sense_are_no_fault(
    infos: dict[str, Any], dataset: Path, tmp_path: Path
) -> None:
    with h5py.File(dataset / "main_data.hdf5", "r+") as file:
        for name, value in infos.items():
            put(file["episode_0"], name, value)
            put(file["episode_1"], name, 1.0)
    assert load_episodes(GOOD).lengths.tolist() == [2, 4]
    try:
        export_file(GOOD, "npz", tmp_path / "out.npz")
    except DataError:
        assert not (tmp_path / "out.npz").exists()


METADATA: dict[str, Any] = {
    "cut in half": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "a number": lambda text: "5",
    "without entries": lambda text: "{}",
    "without a space": lambda text: text.replace('"action_space"', '"actoin_space"'),
    "with half a space": lambda text: text.replace('\\"type\\": \\"Box\\"', '\\"type\\'),
    "of another format": lambda text: text.replace('"hdf5"', '"hdf7"'),
    "of a damaged environment": lambda text: text.replace('{"tot', '{"env_spec": "[]", "tot'),
}


@pytest.mark.parametrize("kind", METADATA)
def test_damaged_metadata_are_refused(kind: str, dataset: Path, refused_dataset: Refused) -> None:
    path = dataset / "metadata.json"
    changed = METADATA[kind](path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    refused_dataset()


def test_an_environment_with_damaged_settings_is_refused(dataset: Path, refused: Refused) -> None:
    path = dataset / "metadata.json"
    spec = json.dumps({**SPEC, "kwargs": 5})
    path.write_text(json.dumps({**json.loads(path.read_text()), "env_spec": spec}))
    refused("data", "check", GOOD)


@pytest.mark.parametrize("kind", ["cut in half", "a list", "without entries"])
def test_a_dataset_with_damaged_metadata_stands_in_no_others_way(
    kind: str, dataset: Path, tmp_path: Path
) -> None:
    path = dataset / "metadata.json"
    path.write_text(METADATA[kind](path.read_text()))
    import_file(d4rl_file(tmp_path / "a.hdf5"), NEW, Setting(None, [-1.0], [1.0]), None)
    assert local_datasets() == [NEW]
    assert load_episodes(NEW).lengths.tolist() == [3, 2, 1]


def test_an_import_doesnt_say_it_saved_what_a_damaged_dataset_kept_it_from(
    dataset: Path, home: Path, tmp_path: Path
) -> None:
    """Its id isn't listed, but its folder is in the way."""
    (dataset / "metadata.json").write_text("{")
    before = listing(home)
    path = d4rl_file(tmp_path / "a.hdf5")
    with pytest.raises(BaqError, match=GOOD):
        import_file(path, GOOD, Setting(None, [-1.0], [1.0]), None)
    assert listing(home) == before


# -- the command as a user runs it


def test_the_command_says_one_line_and_has_status_3(home: Path, tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5")
    path.write_bytes(path.read_bytes()[:3_000])
    before = listing(home)
    words = ("data", "import", path, "--id", NEW, *BOUNDS)
    done = baq(*words, data=home / "minari", expect=ExitStatus.DATA)
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {path}: can't be read as a D4RL file: ")
    assert done.stderr.count("\n") == 1
    assert listing(home) == before


def test_the_command_has_status_2_for_another_kind_of_file(home: Path, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("x")
    words = ("data", "import", tmp_path / "log.txt", "--id", NEW, *BOUNDS)
    done = baq(*words, data=home / "minari", expect=ExitStatus.USAGE)
    assert done.stderr.count("\n") == 1
    assert listing(home / "minari") == []


def test_the_command_has_status_3_for_a_damaged_dataset(dataset: Path, home: Path) -> None:
    with h5py.File(dataset / "main_data.hdf5", "r+") as file:
        put(file["episode_1"], "observations", np.zeros((4, 2)))
    before = listing(home)
    done = baq("data", "show", GOOD, data=home / "minari", expect=ExitStatus.DATA)
    assert done.stdout == ""
    assert "episode 1 has 4 observations for 4 steps" in done.stderr
    assert "Traceback" not in done.stderr
    assert listing(home) == before

"""Writes of datasets that fail: told in words, nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import minari
import pytest
from minari.dataset._storages.hdf5_storage import HDF5Storage

from baq_cli.data import exchange
from baq_cli.data.exchange import SUFFIXES, export_file, import_file
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.commit import beside
from baq_cli.data.minari.download import download
from baq_cli.data.minari.folder import local_datasets, open_minari
from baq_cli.data.minari.read import read_recording
from baq_cli.data.minari.write import write_minari
from baq_cli.data.recording import Recording
from baq_cli.errors import DataError, UsageError
from support.recordings import (
    FORMS,
    FULL,
    ID,
    assert_same_recording,
    plain_recording,
)


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
        # a file that was opened all the same would be left open, and crash HDF5 at exit
        first = None if name == "__init__" else getattr(owner, name)
        patch.setattr(owner, name, failing(error, after, first))
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
    with pytest.raises(DataError, match="another process saved one"):
        write_minari(ID, plain_recording(phase=2))
    write_minari(ID, plain_recording(phase=2), must_be_new=False)
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
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import read_recording
from baq_cli.data.minari.write import write_minari
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


# -- downloads, without a network


def publish(made: Recording) -> Callable[[str], None]:
    """Return what stands for Minari's download: it writes where Minari's folder is then."""
    return lambda dataset_id: write_minari(dataset_id, made)


def test_a_download_appears_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plain_recording()
    monkeypatch.setattr(minari, "download_dataset", publish(made))
    download(ID)
    assert_same_recording(read_recording(open_minari(ID)), made)
    assert local_datasets() == [ID]


def test_a_download_that_breaks_off_leaves_nothing_and_says_what_else_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_it = publish(plain_recording())

    def break_off(dataset_id: str) -> None:
        publish_it(dataset_id)
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr(minari, "download_dataset", break_off)
    before = tree(folder)
    with pytest.raises(DataError, match=rf"service not known\. Where there .* copy the .*{ID}"):
        download(ID)
    assert tree(folder) == before


def test_a_temporary_folder_that_the_disk_keeps_fails_no_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    with beside() as folder:
        monkeypatch.setattr(os, "rmdir", refused)
    assert folder.is_dir()

"""Output that is ASCII, full, closed or not read; names that are not UTF-8; missing folders."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baq_cli.cli.screen import Screen
from baq_cli.data.minari.folder import dataset_path, local_datasets
from baq_cli.data.minari.read import load_episodes
from baq_cli.data.minari.write import write_minari
from baq_cli.errors import DataError, UsageError
from baq_cli.launch.journal import read_state, write_state
from baq_cli.launch.places import Place
from baq_cli.outlets import guard, in_ascii, lost
from baq_cli.runs.folder import read_metrics
from baq_cli.surroundings import cache_folder, in_shell, in_utf8, known, minari_folder
from support.here import TRAIN, TUNE, run_baq, settle
from support.recordings import ID, own_folders, plain_recording
from support.small_data import write_steady

BAQ = f"{shlex.quote(sys.executable)} -m baq_cli.cli.main"
LATIN = os.fsdecode(b"l\xe4ufe")
NAMES = st.binary(min_size=1).filter(lambda name: 0 not in name).map(os.fsdecode)
"""What a file can be called, or a folder."""


def in_a_shell(line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, env=os.environ | variables, check=False
    )


# -- encodings


@given(st.text())
def test_every_text_can_be_written_in_ascii_and_what_is_ascii_stays(text: str) -> None:
    found = in_ascii(text)
    assert found.isascii()
    assert in_ascii(found) == found
    assert len(found) >= sum(map(str.isascii, text))


def test_what_stands_for_signs_says_the_same() -> None:
    assert in_ascii("412.0 ± 3.2 · −1 … a² → Größe") == "412.0 +- 3.2 - -1 ... a2 -> Grosse"
    assert in_ascii("▁▄█ ┤ 語") == "_-# | ?"


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
@pytest.mark.parametrize("words", ["recipes list", "data show --help", "recipes show ö.yaml"])
def test_an_ascii_terminal_gets_ascii(words: str, variables: dict[str, str]) -> None:
    plain, found = in_a_shell(f"{BAQ} {words}"), in_a_shell(f"{BAQ} {words}", **variables)
    assert found.returncode == plain.returncode
    assert (found.stdout + found.stderr).isascii()
    lines = [len(said.stdout.splitlines()) for said in (plain, found)]
    assert lines[0] == lines[1]
    assert ("ö".encode() in plain.stderr) == (b"'o.yaml'" in found.stderr) == ("ö" in words)


# -- full, closed, not read


@pytest.mark.parametrize("words", ["recipes list", "recipes list --json", "--help", "--version"])
@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        (">/dev/full", 3, "error: cannot write to stdout: No space left on device."),
        (">&-", 3, "error: cannot write to stdout: it is closed."),
        ("| true", 141, ""),
    ],
)
def test_stdout_that_takes_nothing_is_said_once_on_stderr(
    words: str, where: str, status: int, said: str
) -> None:
    found = in_a_shell(f"{BAQ} {words} {where}; exit ${{PIPESTATUS[0]}}")
    assert found.returncode == status
    lines = found.stderr.decode().splitlines()
    assert [line.startswith(said) for line in lines] == [True] * bool(said)


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", "2> >(true)", "<&- 2>&-"])
def test_stderr_that_takes_nothing_stops_nothing(where: str) -> None:
    assert (
        in_a_shell(f"{BAQ} recipes list {where}").stdout == in_a_shell(f"{BAQ} recipes list").stdout
    )
    assert in_a_shell(f"{BAQ} recipes show nothing {where}").returncode == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE, errno.ENOSPC])
def test_what_is_shown_is_lost_without_ending_a_run_and_only_of_stdout_that_is_known(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that was closed, a pipe whose reader has ended, a full disk."""

    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    for name in ("stdout", "stderr"):
        stream = open(os.devnull, "w")  # noqa: SIM115
        monkeypatch.setattr(sys, name, stream)
        monkeypatch.setattr(sys, f"__{name}__", stream)
    guard()
    monkeypatch.setattr(os, "write", refused)
    for _ in range(2):
        Screen(stderr=True).print("progress")
    assert lost() is None
    Screen().print("a table")
    found = lost()
    assert found is not None
    assert found.status == (141 if number == errno.EPIPE else 3)


# -- names that are not UTF-8


@given(NAMES)
def test_a_name_can_be_written_in_any_file_and_one_in_utf_8_stays(name: str) -> None:
    found = in_utf8(name)
    found.encode()
    try:
        os.fsencode(name).decode()
    except UnicodeDecodeError:
        assert found != name
    else:
        assert found == name


@settings(max_examples=20)
@given(st.lists(NAMES, min_size=1, max_size=5))
def test_a_command_line_is_utf_8_and_a_shell_reads_the_same_words(words: list[str]) -> None:
    line = in_shell(words)
    line.encode()
    said = in_a_shell(f"printf '%s\\0' {line}").stdout
    assert said.split(b"\0")[:-1] == list(map(os.fsencode, words))


def test_a_folder_whose_name_is_not_utf_8_holds_runs_and_reports_like_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(tmp_path, monkeypatch)
    write_steady(ID)
    for folder, lines in ((LATIN, None), ("plain", 3)):
        for line in (
            f"pretrain --algo iql --dataset {ID} --out {folder}/a {TRAIN}",
            f"finetune --checkpoint {folder}/a --out {folder}/b {TUNE}",
            f"finetune --checkpoint {folder}/a --out {folder}/b {TUNE} --resume",
            f"eval --checkpoint {folder}/b --episodes 1",
            f"export --checkpoint {folder}/b --format torchscript --out {folder}/b.pt",
            f"report {folder}/b --out {folder}/report",
            f"compare --dataset {ID} --algos iql --seeds 1, --out {folder}/c {TRAIN} --env-steps 6",
            f"compare status {folder}/c",
            f"data export {ID} --to npz --out {folder}/{folder}.npz",
            f"data import {folder}/{folder}.npz --id me/in-v0 --action-low -1 --action-high 1",
            "data show me/in-v0",
        )[:lines]:
            status, _, said = run_baq(*line.split(" "))
            assert status == 0, said
    for run in ("a", "b"):
        rows = [
            [{k: v for k, v in row.items() if k != "wall_seconds"} for row in read_metrics(path)]
            for path in (Path(LATIN) / run, Path("plain") / run)
        ]
        assert rows[0] == rows[1]
        manifest = json.loads((Path(LATIN) / run / "manifest.json").read_text("utf-8"))
        assert r"$'l\344ufe/" in manifest["command"]


def test_what_a_cell_says_of_such_a_folder_can_be_read_again(tmp_path: Path) -> None:
    write_state(tmp_path, "failed", f"cannot read {LATIN}/a", 3)
    assert read_state(tmp_path).error == r"cannot read l\xe4ufe/a"


@pytest.mark.parametrize("launcher", ["ray", "slurm"])
def test_a_cluster_is_given_no_such_folder(launcher: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not UTF-8.*--launcher local"):
        Place(launcher).open(1, tmp_path / LATIN)


# -- folders


def test_a_minari_folder_that_is_relative_is_that_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "sets")
    write_minari(ID, plain_recording())
    assert local_datasets() == [ID]
    assert (tmp_path / "sets" / ID / "data" / "main_data.hdf5").is_file()


def test_a_minari_folder_that_is_none_is_refused_with_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "dangling", "file/below", "x" * 300):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINARI_DATASETS_PATH", str(tmp_path / name))
            for use in (
                lambda: write_minari(ID, plain_recording()),
                lambda: load_episodes(ID),
            ):
                with pytest.raises(DataError) as caught:
                    use()
                assert str(tmp_path / name) in str(caught.value)
            if name != "file/below":
                with pytest.raises(DataError, match="MINARI_DATASETS_PATH"):
                    local_datasets()


def test_reading_needs_no_minari_folder_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "not" / "there"))
    assert local_datasets() == []
    with pytest.raises(DataError, match=str(tmp_path / "not" / "there")):
        load_episodes(ID)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_is_read_without_a_cache_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with own_folders() as folder:
        write_minari(ID, plain_recording())
        (folder / "file").write_text("")
        told: list[str] = []
        monkeypatch.setenv("BAQ_CACHE", str(folder / "file"))
        without = [load_episodes(ID, told.append).content_hash for _ in range(2)]
        assert all("BAQ_CACHE" in text and str(folder / "file") in text for text in told)
        assert len(told) == 2
        monkeypatch.setenv("BAQ_CACHE", str(folder / "cache"))
        assert without == [load_episodes(ID, told.append).content_hash] * 2
        assert len(told) == 2


def test_without_a_home_the_variable_is_named_and_no_folder_called_tilde_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MINARI_DATASETS_PATH", "BAQ_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="MINARI_DATASETS_PATH"):
        minari_folder()
    with pytest.raises(DataError, match="BAQ_CACHE"):
        cache_folder()
    with pytest.raises(DataError, match="MINARI_DATASETS_PATH"):
        dataset_path()
    assert list(tmp_path.iterdir()) == []


def test_a_current_folder_that_is_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    status, _, said = run_baq("data", "list")
    assert status == 3
    assert "cd to one" in said


# -- the last net


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), 3),
        (OSError("it is larger than 3 bytes"), 3),
        (UnicodeEncodeError("utf-8", LATIN, 1, 2, "surrogates not allowed"), 3),
        (KeyboardInterrupt(), 130),
        (MemoryError("of 3 GiB"), 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2),
    ],
)
def test_what_the_system_does_is_no_fault_of_ours(error: BaseException, status: int) -> None:
    found = known(error)
    assert found is not None
    assert found.status == status
    assert not isinstance(error, PermissionError) or "/a/b" in str(found)


def test_a_mistake_in_the_program_is_one() -> None:
    assert known(KeyError("x")) is None
    assert known(RuntimeError("odd")) is None

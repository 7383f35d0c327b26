"""A log of transitions: what was added is read back, whatever was torn or changed since."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.errors import DataError
from baq_cli.runs.transitions import Layout, Tail, TransitionLog, read, scan
from support.advice import follows

LAYOUT = Layout(obs_dim=3, action_dim=2, seeds=(0, 7))
SIZE = LAYOUT.record.itemsize
START = len(LAYOUT.header)


def fields(number: int) -> dict[str, Any]:
    """Return a record that differs from every other, in digits that float32 doesn't have."""
    obs = number + np.arange(3) / 3
    return {
        "seed_index": number % 2,
        "env_step": number,
        "episode": number // 5,
        "step_in_episode": number % 5,
        "start_seed": 2**31 - 2 - number,
        "obs": obs,
        "action": np.float32([0.1, -1.0]) / (number + 1),
        "proposed": np.float32([0.3, 1.0]) / (number + 1),
        "reward": -number / 7,
        "next_obs": obs + 1,
        "terminated": number % 5 == 4,
        "truncated": number % 7 == 6,
        "intervention": number % 3,
        "success": number % 3 - 1,
        "policy_version": number // 2,
        "time_ns": number * 50_000_000,
        "late_ns": number,
    }


def written(path: Path, count: int) -> Path:
    log = TransitionLog.create(path, LAYOUT)
    for number in range(count):
        log.append(**fields(number))
    log.sync()
    log.close()
    return path


def same(found: Any, numbers: range) -> None:
    assert len(found) == len(numbers)
    for record, number in zip(found.records, numbers, strict=True):
        for name, value in fields(number).items():
            assert np.array_equal(record[name], value), name


def test_every_field_comes_back_digit_for_digit(tmp_path: Path) -> None:
    found = read(written(tmp_path / "t.bin", 12))
    assert found.layout == LAYOUT
    same(found, range(12))
    assert found.obs.shape == (12, 3)
    assert found.late_ns.tolist() == list(range(12))
    assert found.of_seed(1).env_step.tolist() == [1, 3, 5, 7, 9, 11]


def test_what_is_not_given_is_zero_and_not_the_last_one(tmp_path: Path) -> None:
    log = TransitionLog.create(tmp_path / "t.bin", LAYOUT)
    log.append(**fields(5))
    log.append(env_step=6)
    found = read(log.path)
    assert found.obs[1].tolist() == [0, 0, 0]
    assert found.start_seed[1] == 0


@given(st.integers(0, 6), st.data())
def test_a_file_cut_anywhere_keeps_its_whole_records(count: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / "t.bin", count)
        kept = data.draw(st.integers(START, START + count * SIZE))
        os.truncate(path, kept)
        whole = (kept - START) // SIZE
        same(read(path), range(whole))
        log = TransitionLog.open(path, LAYOUT)
        assert log.count == whole
        log.append(**fields(whole))
        same(read(path), range(whole + 1))
        log.close()


@follows("record {} is not what was written (its checksum differs). Restore the file from a copy")
def test_a_torn_end_is_dropped_and_damage_before_it_is_not(tmp_path: Path) -> None:
    path = written(tmp_path / "t.bin", 6)
    copy = path.read_bytes()
    raw = bytearray(copy)
    for number in (4, 5):  # a failure of power may leave zeros in place of the last ones
        raw[START + number * SIZE : START + (number + 1) * SIZE] = bytes(SIZE)
    path.write_bytes(raw)
    same(read(path), range(4))
    raw[START + SIZE + 40] ^= 1  # within record 2, good ones after it
    path.write_bytes(raw)
    with pytest.raises(DataError, match="record 2 is not what was written"):
        read(path)
    with pytest.raises(DataError, match="record 2"):
        TransitionLog.open(path, LAYOUT)
    path.write_bytes(copy)
    same(read(path), range(6))


def test_records_in_another_order_are_damage(tmp_path: Path) -> None:
    path = written(tmp_path / "t.bin", 4)
    raw = path.read_bytes()
    first, second = raw[START : START + SIZE], raw[START + SIZE : START + 2 * SIZE]
    path.write_bytes(raw[:START] + second + first + raw[START + 2 * SIZE :])
    with pytest.raises(DataError, match="record 1 is not what was written"):
        read(path)


@follows("it is not what was written. Restore it from a copy")
def test_cut_drops_what_a_checkpoint_does_not_know(tmp_path: Path) -> None:
    path = written(tmp_path / "t.bin", 8)
    copy = path.read_bytes()
    log = TransitionLog.open(path, LAYOUT)
    log.cut(3)
    log.append(**fields(3))
    same(read(path), range(4))
    with pytest.raises(DataError, match="has 4 records, and a checkpoint knows of 5"):
        log.cut(5)
    path.write_bytes(copy)
    TransitionLog.open(path, LAYOUT).cut(5)
    same(read(path), range(5))


def test_a_tail_returns_each_whole_record_once(tmp_path: Path) -> None:
    log = TransitionLog.create(tmp_path / "t.bin", LAYOUT)
    tail = Tail(log.path)
    assert len(tail.new()) == 0
    log.append(**fields(0))
    log.append(**fields(1))
    assert tail.new(1)["env_step"].tolist() == [0]
    with log.path.open("ab") as file:  # half of the third, as a reader may find it
        file.write(bytes(SIZE // 2))
    assert tail.new()["env_step"].tolist() == [1]
    assert len(tail.new()) == 0
    log.cut(2)
    log.append(**fields(2))
    assert tail.new()["env_step"].tolist() == [2]
    assert Tail(log.path, 2).new()["env_step"].tolist() == [2]


def test_a_killed_writer_leaves_what_it_had_said(tmp_path: Path) -> None:
    path = tmp_path / "t.bin"
    code = (
        "import sys; from pathlib import Path; from baq_cli.runs.transitions import *\n"
        "log = TransitionLog.create(Path(sys.argv[1]), Layout(3, 2, (0, 7)))\n"
        "n = 0\n"
        "while True:\n"
        "    log.append(env_step=n); n += 1; print(n, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().split()]
    process.wait()
    _, count = scan(path)
    assert said[-1] <= count <= said[-1] + 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"obs_dim": 10**9}, "obs_dim"),
        ({"obs_dim": 4}, "other fields"),
        ({"version": 3}, "version"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_a_header_that_claims_something_else_is_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    path = written(tmp_path / "t.bin", 2)
    line, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(json.dumps(json.loads(line) | change).encode() + b"\n" + rest)
    with pytest.raises(DataError, match=says):
        read(path)


def test_another_layout_and_no_file_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.bin", 1)
    with pytest.raises(DataError, match="expected"):
        TransitionLog.open(path, Layout(3, 1, (0,)))
    with pytest.raises(DataError, match="cannot read"):
        read(tmp_path / "none.bin")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="first line"):
        read(tmp_path / "text")
